//! One Rust file in three forms: the text, the code without comments and literals, and the code that ships.
//!
//! Invariant: all three have the same length and the same lines, since removed text is replaced by spaces. So a rule
//! about code never matches prose, and every finding has its line.

/// A source file in its three forms.
pub(crate) struct Source {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// The text without comments, strings and characters.
    pub(crate) code: String,
    /// `code` without items for tests; blank for a file of tests.
    pub(crate) shipped: String,
}

/// One token of code: an identifier or number, `::`, or a single other character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// The token's characters.
    pub(crate) text: &'a str,
    /// Offset in bytes.
    pub(crate) at: usize,
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = without_prose(text);
        let folders = ["/tests/", "/benches/"];
        let files = ["/tests.rs", "_tests.rs"];
        let of_tests =
            folders.iter().any(|part| path.contains(part)) || files.iter().any(|end| path.ends_with(end));
        let shipped = if of_tests { blank(&code) } else { without_tests(&code) };
        Source { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    /// The line, counted from 1, of a byte offset in any of the three forms.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// The crate's folder: the first part of the path.
    pub(crate) fn member(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether the file has code, and all of it is for tests.
    pub(crate) fn is_test(&self) -> bool {
        self.shipped.trim().is_empty() && !self.code.trim().is_empty()
    }
}

/// Blanks `shipped` of modules that are declared for tests alone (`#[cfg(test)] mod model;`).
pub(crate) fn mark_test_modules(sources: &mut [Source]) {
    let mut modules: Vec<String> = Vec::new();
    for source in sources.iter() {
        for item in test_items(&source.code) {
            let tokens = tokens(&source.code[item]);
            if let Some([.., name, end]) = tokens.windows(3).find(|window| window[0].text == "mod")
                && end.text == ";"
            {
                modules.push(format!("{}/{}", module_folder(&source.path), name.text));
            }
        }
    }
    for source in sources {
        let within = |module: &String| {
            source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/"))
        };
        if modules.iter().any(within) {
            source.shipped = blank(&source.code);
        }
    }
}

/// Folder of the child modules of the file at `path`.
fn module_folder(path: &str) -> &str {
    for root in ["/mod.rs", "/lib.rs", "/main.rs"] {
        if let Some(folder) = path.strip_suffix(root) {
            return folder;
        }
    }
    path.strip_suffix(".rs").unwrap_or(path)
}

/// The tokens of code in which comments and literals are blank.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        if is_word(bytes[start]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
        } else if code[start..].starts_with("::") {
            at += 1;
        } else if bytes[start].is_ascii_whitespace() {
            continue;
        }
        tokens.push(Token { text: &code[start..at], at: start });
    }
    tokens
}

/// Whether the tokens from `at` on read as `words`.
pub(crate) fn reads(tokens: &[Token<'_>], at: usize, words: &[&str]) -> bool {
    tokens.len() >= at + words.len()
        && tokens[at..].iter().zip(words).all(|(token, word)| token.text == *word)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn blank(text: &str) -> String {
    text.chars().flat_map(|c| std::iter::repeat_n(if c == '\n' { '\n' } else { ' ' }, c.len_utf8())).collect()
}

fn without(text: &str, ranges: impl IntoIterator<Item = std::ops::Range<usize>>) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut done = 0;
    for range in ranges {
        rest.push_str(&text[done..range.start]);
        rest.push_str(&blank(&text[range.clone()]));
        done = range.end;
    }
    rest.push_str(&text[done..]);
    rest
}

fn without_prose(text: &str) -> String {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match prose_end(text, at) {
            Some(end) => {
                ranges.push(at..end);
                at = end;
            }
            None => at += 1,
        }
    }
    without(text, ranges)
}

/// The end of the comment or literal that starts at byte `at`, if one does.
fn prose_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let until = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |n| from + n + end.len());
    match bytes[at] {
        b'/' if bytes.get(at + 1) == Some(&b'/') => Some(until("\n", at) - 1),
        b'/' if bytes.get(at + 1) == Some(&b'*') => Some(block_comment_end(bytes, at)),
        b'"' => Some(string_end(bytes, at)),
        b'r' if starts_raw(bytes, at) => {
            let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
            (bytes.get(at + 1 + hashes) == Some(&b'"'))
                .then(|| until(&format!("\"{}", "#".repeat(hashes)), at + hashes + 2))
        }
        b'\'' => char_end(text, at),
        _ => None,
    }
}

/// Whether the `r` at `at` begins a raw string's prefix (`r`, `br`, `cr`) and does not end a name.
fn starts_raw(bytes: &[u8], at: usize) -> bool {
    let before = bytes[..at].iter().rev().take_while(|byte| is_word(**byte)).count();
    before == 0 || (before == 1 && matches!(bytes[at - 1], b'b' | b'c'))
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of a character; `None` when the quote begins a lifetime.
fn char_end(text: &str, start: usize) -> Option<usize> {
    let rest = &text[start + 1..];
    let first = rest.chars().next()?;
    if first == '\\' {
        return rest[2..].find('\'').map(|n| start + 3 + n + 1);
    }
    rest[first.len_utf8()..].starts_with('\'').then(|| start + 1 + first.len_utf8() + 1)
}

fn without_tests(code: &str) -> String {
    without(code, test_items(code))
}

/// Ranges of the items that have `#[cfg(test)]` or `#[test]`, attributes included, in order.
fn test_items(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut items = Vec::new();
    let mut from = 0;
    let marks = ["#[cfg(test)]", "#[cfg(all(test", "#[test]"];
    while let Some(start) = marks.iter().filter_map(|mark| code[from..].find(mark)).min() {
        let start = from + start;
        from = item_end(code, start);
        items.push(start..from);
    }
    items
}

/// The end of the item whose first attribute starts at `start`: a `;`, or the brace that closes its first one, outside
/// of parentheses and brackets (attributes stand in brackets).
fn item_end(code: &str, start: usize) -> usize {
    let (mut nested, mut braces) = (0, 0);
    for (n, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested -= 1,
            b'{' => braces += 1,
            b'}' => braces -= 1,
            _ => continue,
        }
        if byte == b'}' && braces == 0 && nested == 0 {
            return n + 1;
        }
        if nested == 0 && braces == 0 && matches!(byte, b')' | b']') && ends_at_semicolon(&code[n + 1..]) {
            return n + 1 + code[n + 1..].find(';').map_or(0, |semicolon| semicolon + 1);
        }
    }
    code.len()
}

/// Whether a `;` comes before any other bracket.
fn ends_at_semicolon(rest: &str) -> bool {
    rest.find(|c: char| "()[]{};".contains(c)).is_some_and(|n| rest[n..].starts_with(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_taken_out_and_lines_stay() {
        let text = "let a = \"unsafe \\\" {\"; // unsafe\nlet b = r#\"\"unsafe\"#; /* a /* b */ unsafe */ let c = 'x';\n\
                    fn f<'a>(x: &'a str) -> char { '\\'' } let d = br\"unsafe\"; for_r\n";
        let source = Source::new("x/src/a.rs", text);
        assert!(!source.code.contains("unsafe"), "{}", source.code);
        assert_eq!(source.code.len(), text.len());
        assert!(source.code.contains("fn f<'a>(x: &'a str) -> char {"));
        assert!(source.code.contains("for_r"));
        assert_eq!(source.line(source.code.find("fn f").unwrap()), 3);
    }

    #[test]
    fn tests_do_not_ship() {
        let text = "fn a() {}\n#[cfg(test)]\nuse x::{y, z};\n#[cfg(test)]\n#[allow(x)]\nmod tests { fn b() { {} } }\nfn c() {}\n\
                    #[cfg(test)]\nmod model;\nfn d(x: [u8; 3]) {}\n#[test]\nfn e(x: [u8; 3]) { f(); }\nfn g() {}";
        let source = Source::new("x/src/a.rs", text);
        for (name, ships) in [("a", true), ("b", false), ("c", true), ("d", true), ("e", false), ("g", true)]
        {
            assert_eq!(source.shipped.contains(&format!("fn {name}(")), ships, "{name}: {}", source.shipped);
        }
        assert!(!source.shipped.contains("model"));
        assert!(Source::new("x/tests/a.rs", "fn a() {}").is_test());
    }

    #[test]
    fn modules_declared_for_tests_do_not_ship() {
        let mut sources = [
            Source::new("x/src/a/mod.rs", "mod b;\n#[cfg(test)]\nmod model;\n"),
            Source::new("x/src/a/model.rs", "fn only_tested() {}"),
            Source::new("x/src/a/b.rs", "fn shipped() {}"),
        ];
        mark_test_modules(&mut sources);
        assert!(sources[1].is_test());
        assert!(!sources[2].is_test());
    }

    #[test]
    fn tokens_keep_paths_apart() {
        let words: Vec<&str> = tokens("use a::b_1::{c};").into_iter().map(|token| token.text).collect();
        assert_eq!(words, ["use", "a", "::", "b_1", "::", "{", "c", "}", ";"]);
    }
}
