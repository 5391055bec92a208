//! Rules about unsafe code (in two folders, each use with its argument) and about clocks (read in `clock.rs` alone).

use std::collections::BTreeSet;

use crate::source::{Source, Token, reads, tokens};
use crate::tree::Finding;

/// Folders that may contain unsafe code: mappings and rings, and the hash lanes.
const FENCES: [&str; 2] = ["engine/src/mem/", "engine/src/hash/simd/"];

/// Files that may contain one unsafe block outside these folders, each with its reason.
const VOUCHED: [(&str, &str); 1] = [(
    "engine/src/storage/source.rs",
    "hashing at upload borrows mapped bytes; only the source knows how they are used",
)];

/// Shortest safety note, in characters. A shorter one cannot name the invariant, who keeps it, and what would break it.
const NOTE_MIN_CHARS: usize = 40;

/// Calls that read a clock or let time pass.
const CLOCK_READS: [&[&str]; 5] = [
    &["Instant", "::", "now"],
    &["SystemTime", "::", "now"],
    &["thread", "::", "sleep"],
    &[".", "elapsed", "(", ")"],
    &["clock_gettime"],
];

/// Unsafe code, and attributes that allow it, stand in the fences alone.
pub(crate) fn unsafe_code(source: &Source) -> Vec<Finding> {
    if FENCES.iter().any(|fence| source.path.starts_with(fence)) {
        return Vec::new();
    }
    let vouched = usize::from(VOUCHED.iter().any(|(path, _)| source.path == *path));
    let tokens = tokens(&source.code);
    let blocks = (0..tokens.len()).filter(|at| tokens[*at].text == "unsafe").skip(vouched);
    let permits = (0..tokens.len()).filter(|at| allows_unsafe(&tokens, *at)).skip(vouched);
    blocks
        .chain(permits)
        .map(|at| {
            let what = format!("unsafe code belongs behind a fence: {}", FENCES.join(" or "));
            Finding::new(&source.path, source.line(tokens[at].at), what)
        })
        .collect()
}

fn allows_unsafe(tokens: &[Token<'_>], at: usize) -> bool {
    ["allow", "expect", "warn"].iter().any(|level| reads(tokens, at, &[level, "(", "unsafe_code"]))
}

/// Every unsafe block, implementation and function says why it is sound.
pub(crate) fn safety_notes(source: &Source) -> Vec<Finding> {
    let tokens = tokens(&source.code);
    let lines: Vec<&str> = source.text.lines().collect();
    let in_trait = trait_methods(&tokens);
    tokens
        .iter()
        .enumerate()
        .filter(|(at, token)| {
            token.text == "unsafe" && !is_pointer_type(&tokens, *at) && !in_trait.contains(at)
        })
        .filter_map(|(_, token)| {
            let line = source.line(token.at);
            let ships = source.shipped[token.at..].starts_with("unsafe");
            let fault = match note_above(&lines, line) {
                None => "unsafe without a `// SAFETY:` note or a `# Safety` section".to_owned(),
                Some(note) if ships && note.chars().count() < NOTE_MIN_CHARS => {
                    format!("`{note}` is no argument: name the invariant, who keeps it, what would break it")
                }
                Some(_) => return None,
            };
            Some(Finding::new(&source.path, line, fault))
        })
        .collect()
}

/// `unsafe fn(…)` or `unsafe extern "C" fn(…)` as a type, which runs no code.
fn is_pointer_type(tokens: &[Token<'_>], at: usize) -> bool {
    reads(tokens, at + 1, &["fn", "("]) || reads(tokens, at + 1, &["extern", "fn", "("])
}

/// Places of `unsafe` on methods that implement a trait: the trait states what the caller must ensure.
fn trait_methods(tokens: &[Token<'_>]) -> BTreeSet<usize> {
    let mut methods = BTreeSet::new();
    let mut of_trait: Vec<bool> = Vec::new();
    let mut header = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => {
                let words = |word: &str| tokens[header..at].iter().any(|token| token.text == word);
                of_trait.push(words("impl") && words("for") && !words("fn"));
            }
            "}" => _ = of_trait.pop(),
            "unsafe" if of_trait.last() == Some(&true) => _ = methods.insert(at),
            ";" => {}
            _ => continue,
        }
        header = at + 1;
    }
    methods
}

/// The note on the unsafe code at `line` (from 1): on the line itself or above it, with only attributes, comments and
/// the beginning of the same statement between.
fn note_above(lines: &[&str], line: usize) -> Option<String> {
    for at in (0..line).rev() {
        let text = lines[at].trim();
        let comment = text.find("//").map(|start| &text[start..]);
        if let Some(mark) =
            comment.and_then(|c| ["SAFETY:", "# Safety"].into_iter().find(|mark| c.contains(mark)))
        {
            return Some(note_text(&lines[at..line], mark));
        }
        let statement_ended = comment.is_none() && text.ends_with([';', '{', '}']);
        if at + 1 < line && (statement_ended || text.is_empty()) {
            return None;
        }
    }
    None
}

/// The words of a note that starts on the first of `lines`: what follows the mark, and the comment lines after it.
fn note_text(lines: &[&str], mark: &str) -> String {
    let first = lines[0].split_once(mark).map_or("", |(_, rest)| rest);
    let rest = lines[1..].iter().map(|line| line.trim()).take_while(|line| line.starts_with("//"));
    let words = rest.map(|line| line.trim_start_matches('/').trim());
    std::iter::once(first.trim()).chain(words).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Time is an argument; what ships reads a clock in a `clock.rs` and nowhere else.
pub(crate) fn clocks(source: &Source) -> Vec<Finding> {
    if source.path.ends_with("/clock.rs") {
        return Vec::new();
    }
    let tokens = tokens(&source.shipped);
    (0..tokens.len())
        .filter(|at| CLOCK_READS.iter().any(|read| reads(&tokens, *at, read)))
        .map(|at| {
            let what = "reads a clock: take the time as an argument; only a clock.rs reads one";
            Finding::new(&source.path, source.line(tokens[at].at), what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD_NOTE: &str =
        "the map lives as long as the guard, which this struct owns; moving it out would break it";

    fn fenced(text: &str) -> Source {
        Source::new("engine/src/mem/map.rs", text)
    }

    fn outside(text: &str) -> Source {
        Source::new("engine/src/driver/send.rs", text)
    }

    #[test]
    fn unsafe_outside_the_fences_is_found() {
        assert_eq!(unsafe_code(&fenced("unsafe fn a() {}")), []);
        assert_eq!(
            unsafe_code(&outside("// unsafe\nconst A: &str = \"unsafe\"; #[deny(unsafe_code)] fn b() {}")),
            []
        );
        assert_eq!(unsafe_code(&outside("fn a() { unsafe { b() } }")).len(), 1);
        assert_eq!(unsafe_code(&outside("#![allow(unsafe_code, reason = \"\")]")).len(), 1);
        let vouched = |text: &str| unsafe_code(&Source::new(VOUCHED[0].0, text)).len();
        assert_eq!(vouched("#[allow(unsafe_code)] fn a() { unsafe { b() } }"), 0);
        assert_eq!(vouched("#[allow(unsafe_code)] fn a() { unsafe { b() }; unsafe { c() } }"), 1);
    }

    #[test]
    fn unsafe_without_an_argument_is_found() {
        for good in [
            format!("// SAFETY: {GOOD_NOTE}\nlet a =\n    unsafe {{ b() }};"),
            format!("let a = unsafe {{ b() }}; // SAFETY: {GOOD_NOTE}"),
            format!("/// B.\n///\n/// # Safety\n/// {GOOD_NOTE}\n#[inline]\npub unsafe fn b() {{}}"),
            format!("// SAFETY: {GOOD_NOTE}\nunsafe impl A for B {{\n    unsafe fn c() {{}}\n}}"),
            "#[cfg(test)]\nmod tests {\n    // SAFETY: it is ours.\n    fn a() { unsafe { b() } }\n}"
                .to_owned(),
            "type Hook = unsafe extern \"C\" fn(i32);".to_owned(),
        ] {
            assert_eq!(safety_notes(&fenced(&good)), [], "{good}");
        }
        for bad in [
            "let a = unsafe { b() };".to_owned(),
            "// SAFETY: valid.\nlet a = unsafe { b() };".to_owned(),
            format!("// SAFETY: {GOOD_NOTE}\nlet a = 1;\nlet b = unsafe {{ c() }};"),
            "/// B.\npub unsafe fn b() {}".to_owned(),
            "unsafe impl Send for A {}".to_owned(),
        ] {
            assert_eq!(safety_notes(&fenced(&bad)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn clock_reads_are_found() {
        let read = "fn a() { let t = Instant::now(); b(t.elapsed()); std::thread::sleep(c); }";
        assert_eq!(clocks(&outside(read)).len(), 3);
        assert_eq!(clocks(&Source::new("engine/src/driver/clock.rs", read)), []);
        assert_eq!(clocks(&Source::new("engine/tests/a.rs", read)), []);
        assert_eq!(clocks(&outside("fn a(now: Instant) { b.elapsed(now) }")), []);
    }
}
