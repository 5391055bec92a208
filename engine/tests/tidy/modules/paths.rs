//! The paths that a file names: in `use` statements, taken apart, and in the code itself.

use crate::source::{Source, Token, tokens};

/// One path, as written, without what follows the last plain name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPath {
    /// `crate`, `a`, `B` of `crate::a::B`.
    pub(super) segments: Vec<String>,
    /// The name that a `use` gives it here; `None` in code, and for `_` and `*`.
    pub(super) name: Option<String>,
    /// Whether it is a `pub use`.
    pub(super) is_public: bool,
    /// Where it stands, counted from 1.
    pub(super) line: usize,
}

/// Every path of what ships in a file that has more than one segment, and every `use`.
pub(super) fn of(source: &Source) -> Vec<NamedPath> {
    let tokens = tokens(&source.shipped);
    let mut reader = Reader { tokens: &tokens, at: 0, found: Vec::new() };
    while reader.at < tokens.len() {
        let start = reader.at;
        let token = tokens[start];
        let after = |text: &str| start > 0 && tokens[start - 1].text == text;
        if token.text == "use" && !after("<") && !after(",") && !after("+") {
            reader.at += 1;
            let first = reader.found.len();
            reader.tree(&[]);
            let is_public = after("pub") || after(")");
            reader.found[first..].iter_mut().for_each(|path| path.is_public = is_public);
        } else if is_name(token) && reader.next_is("::") && !after("::") {
            reader.plain();
        } else {
            reader.at += 1;
        }
    }
    let mut found = reader.found;
    // Until here, `line` is a place in bytes.
    found.iter_mut().for_each(|path| path.line = source.line(path.line));
    found
}

fn is_name(token: Token<'_>) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    found: Vec<NamedPath>,
}

impl Reader<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn next_is(&self, text: &str) -> bool {
        self.text(self.at + 1) == text
    }

    fn push(&mut self, segments: Vec<String>, name: Option<String>, token: usize) {
        let line = self.tokens.get(token).map_or(0, |token| token.at);
        self.found.push(NamedPath { segments, name, is_public: false, line });
    }

    /// One branch of a `use` statement's tree, below `prefix`.
    fn tree(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        while self.at < self.tokens.len() {
            let start = self.at;
            match self.text(start).to_owned().as_str() {
                "::" => self.at += 1,
                "{" => return self.branches(&segments),
                "*" => {
                    self.at += 1;
                    return self.push(segments, None, start);
                }
                "self" if !segments.is_empty() => return self.leaf(segments, start),
                segment if is_name(self.tokens[start]) => {
                    segments.push(segment.to_owned());
                    if !self.next_is("::") {
                        return self.leaf(segments, start);
                    }
                    self.at += 1;
                }
                _ => return,
            }
        }
    }

    fn branches(&mut self, prefix: &[String]) {
        self.at += 1;
        while self.at < self.tokens.len() && self.text(self.at) != "}" {
            if self.text(self.at) == "," {
                self.at += 1;
            } else {
                let before = self.at;
                self.tree(prefix);
                // Always advance, also past tokens that are no path.
                self.at = self.at.max(before + 1);
            }
        }
        self.at += 1;
    }

    fn leaf(&mut self, segments: Vec<String>, start: usize) {
        self.at += 1;
        let mut name = segments.last().cloned();
        if self.text(self.at) == "as" {
            name = Some(self.text(self.at + 1).to_owned()).filter(|alias| alias != "_");
            self.at += 2;
        }
        self.push(segments, name, start);
    }

    /// A path in code: names joined by `::`, up to the next other token.
    fn plain(&mut self) {
        let start = self.at;
        let mut segments = vec![self.text(start).to_owned()];
        while self.next_is("::") && self.tokens.get(self.at + 2).is_some_and(|token| is_name(*token)) {
            self.at += 2;
            segments.push(self.text(self.at).to_owned());
        }
        self.at += 1;
        self.push(segments, None, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_uses_and_from_code() {
        let text = "use crate::a::{self, b::{B as C, D as _}, *};\npub(crate) use super::E;\n\
                    fn f(x: crate::g::G) -> impl Fn() + use<'_> { Vec::<h::I>::new() }";
        let found: Vec<(String, Option<String>, bool, usize)> = of(&Source::new("x/src/y.rs", text))
            .into_iter()
            .map(|path| (path.segments.join("::"), path.name, path.is_public, path.line))
            .collect();
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(
            found,
            [
                ("crate::a".into(), named("a"), false, 1),
                ("crate::a::b::B".into(), named("C"), false, 1),
                ("crate::a::b::D".into(), None, false, 1),
                ("crate::a".into(), None, false, 1),
                ("super::E".into(), named("E"), true, 2),
                ("crate::g::G".into(), None, false, 3),
                ("Vec".into(), None, false, 3),
                ("h::I".into(), None, false, 3),
            ]
        );
    }
}
