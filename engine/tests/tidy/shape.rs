//! Rules about the shape of a source file: header, drawing, length, names, leftovers, panics.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, reads, tokens};
use crate::tree::Finding;
use crate::words::name_words;

/// Longest source file, in lines.
const FILE_MAX_LINES: usize = 500;

/// Words that fit everything and so name nothing.
const EMPTY_WORDS: [&str; 10] =
    ["manager", "helper", "helpers", "util", "utils", "misc", "common", "data", "info", "process"];

/// Names that may contain such a word, each with its reason.
const NAMED_WITH_REASON: [(&str, &str); 0] = [];

/// Largest number of panics per thousand lines of shipped code. Each states its reason in its `expect`.
const PANICS_PER_1000_LINES: usize = 3;

/// A file begins with a header that says what it owns.
pub(crate) fn header(source: &Source) -> Vec<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.strip_prefix("//! ").is_some_and(|header| !header.trim().is_empty()) {
        return Vec::new();
    }
    vec![Finding::new(
        &source.path,
        1,
        "does not open with a `//!` header: say what the file owns and its invariants",
    )]
}

/// A folder of several files has a drawing of their dependencies in the header of the file that stands for the folder.
pub(crate) fn drawings(sources: &[Source]) -> Vec<Finding> {
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.contains("/src/") && !source.is_test()) {
        let (folder, file) = source.path.rsplit_once('/').expect("the filter leaves paths with a `/`");
        if !matches!(file, "mod.rs" | "lib.rs" | "main.rs") {
            folders.entry(folder).or_default().insert(file);
        }
    }
    let mut findings = Vec::new();
    for (folder, files) in folders {
        let heads: Vec<&Source> = ["/mod.rs", "/lib.rs", "/main.rs", ".rs"]
            .iter()
            .filter_map(|end| sources.iter().find(|source| source.path == format!("{folder}{end}")))
            .collect();
        let drawn = |source: &&Source| header_text(&source.text).contains("```text");
        if !heads.iter().any(drawn) && (files.len() > 1 || folder_has_mod(&heads)) {
            let at = heads.first().map_or(folder, |head| head.path.as_str());
            findings.push(Finding::new(
                at,
                1,
                "the folder has no drawing: put a ```text block into this file's header",
            ));
        }
    }
    findings
}

fn folder_has_mod(heads: &[&Source]) -> bool {
    heads.iter().any(|head| head.path.ends_with("/mod.rs"))
}

fn header_text(text: &str) -> String {
    text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

/// A file has at most `FILE_MAX_LINES` lines.
pub(crate) fn length(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().count();
    if lines <= FILE_MAX_LINES {
        return Vec::new();
    }
    vec![Finding::new(
        &source.path,
        0,
        format!("{lines} lines are more than {FILE_MAX_LINES}: divide the file"),
    )]
}

/// Names of modules and types contain no empty word.
pub(crate) fn names(source: &Source) -> Vec<Finding> {
    let tokens = tokens(&source.code);
    let mut named: Vec<(usize, &str)> = tokens
        .windows(2)
        .filter(|pair| matches!(pair[0].text, "mod" | "struct" | "enum" | "trait" | "union" | "type"))
        .map(|pair| (source.line(pair[1].at), pair[1].text))
        .collect();
    let parts = source.path.trim_end_matches(".rs").split('/');
    named.extend(parts.map(|part| (0, part)));
    named
        .into_iter()
        .filter(|(_, name)| NAMED_WITH_REASON.iter().all(|(allowed, _)| allowed != name))
        .filter_map(|(line, name)| {
            let word = name_words(name).into_iter().find(|word| EMPTY_WORDS.contains(&word.as_str()))?;
            Some(Finding::new(&source.path, line, format!("`{name}` is named by the empty word `{word}`")))
        })
        .collect()
}

/// `todo!` and `dbg!` do not land.
pub(crate) fn leftovers(source: &Source) -> Vec<Finding> {
    let tokens = tokens(&source.code);
    (0..tokens.len())
        .filter(|at| ["todo", "dbg"].iter().any(|name| reads(&tokens, *at, &[name, "!"])))
        .map(|at| {
            Finding::new(
                &source.path,
                source.line(tokens[at].at),
                format!("`{}!` is left over", tokens[at].text),
            )
        })
        .collect()
}

/// Shipped code has few panics.
pub(crate) fn panics(sources: &[Source]) -> Vec<Finding> {
    let places: Vec<(&Source, usize)> =
        sources.iter().flat_map(|source| panics_of(source).into_iter().map(move |at| (source, at))).collect();
    let lines: usize = sources.iter().map(shipped_lines).sum();
    if places.len() * 1_000 <= PANICS_PER_1000_LINES * lines.max(1_000) {
        return Vec::new();
    }
    let what = format!("a panic: one of {} in {lines} lines", places.len());
    places
        .into_iter()
        .map(|(source, at)| Finding::new(&source.path, source.line(at), what.as_str()))
        .collect()
}

/// Places of explicit panics; clippy refuses `unimplemented!`.
fn panics_of(source: &Source) -> Vec<usize> {
    let tokens = tokens(&source.shipped);
    let panics =
        [[".", "expect", "("].as_slice(), &[".", "unwrap", "("], &["panic", "!"], &["unreachable", "!"]];
    (0..tokens.len())
        .filter(|at| panics.iter().any(|panic| reads(&tokens, *at, panic)))
        .map(|at| tokens[at].at)
        .collect()
}

/// Lines of the file outside tests, blank lines and comments included.
fn shipped_lines(source: &Source) -> usize {
    let of_tests = |(code, shipped): (&str, &str)| !code.trim().is_empty() && shipped.trim().is_empty();
    if source.is_test() {
        return 0;
    }
    source.code.lines().zip(source.shipped.lines()).filter(|lines| !of_tests(*lines)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("x/src/a.rs", text)
    }

    #[test]
    fn a_missing_header_is_found() {
        assert_eq!(header(&source("//! Owns a.\n")), []);
        assert_eq!(header(&source("// Owns a.\n")).len(), 1);
        assert_eq!(header(&source("//!\nuse b;")).len(), 1);
    }

    #[test]
    fn a_missing_drawing_is_found() {
        let folder = |header: &str| {
            [("mod", header), ("b", "//! B.\nfn b() {}"), ("c", "//! C.\nfn c() {}")]
                .map(|(name, text)| Source::new(&format!("x/src/a/{name}.rs"), text))
        };
        assert_eq!(drawings(&folder("//! A.\n//! ```text\n//! b -> c\n//! ```\n")), []);
        assert_eq!(drawings(&folder("//! A.\n\n/// ```text\nmod b;")).len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(length(&source(&"\n".repeat(FILE_MAX_LINES))), []);
        assert_eq!(length(&source(&"\n".repeat(FILE_MAX_LINES + 1))).len(), 1);
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(names(&source("struct Database; fn util() {} use std::process; // struct Info")), []);
        for bad in ["struct PeerManager;", "mod utils;", "enum PEER_Info {}", "trait Helper {}"] {
            assert_eq!(names(&source(bad)).len(), 1, "{bad}");
        }
        assert_eq!(names(&Source::new("x/src/data.rs", "")).len(), 1);
    }

    #[test]
    fn leftovers_are_found() {
        assert_eq!(leftovers(&source("fn todo() {} // todo!()")), []);
        assert_eq!(leftovers(&source("fn a() { todo!() }\nfn b() { dbg!(1) }")).len(), 2);
    }

    #[test]
    fn too_many_panics_are_found() {
        let few = "fn a() { b.expect(\"r\") }\n#[cfg(test)] mod tests { fn c() { d.unwrap(); panic!() } }";
        assert_eq!(panics(&[source(few)]), []);
        assert_eq!(panics(&[source(&"fn a() { b.unwrap() }\n".repeat(4))]).len(), 4);
    }
}
