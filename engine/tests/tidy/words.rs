//! Rules about words: those that have no place in this repository, and those that do not say what they mean.

use crate::source::{Source, tokens};
use crate::tree::{Document, Finding};

/// What has no place in this repository: how it came about, and hosts that packages are fetched from. Written in two
/// halves, so that this file does not break its own rule.
const FOREIGN_WORDS: [(&str, &str); 9] = [
    ("work", "shop"),
    ("the lead ", "engineer"),
    ("sub-", "helper"),
    ("issue ", "#"),
    ("/work/", "wt"),
    ("/work/", "shared"),
    ("crates", ".io"),
    ("pypi", ".org"),
    ("static.rust", "-lang"),
];

/// Pronouns that hide what a sentence is about. The sentence names the peer, the client, the file or the value instead.
const RIDDLES: [&str; 6] = ["nobody", "whoever", "whatever", "whichever", "somebody", "whosoever"];

/// Metaphors that stood for a term of the field, each with that term.
const METAPHORS: [(&str, &str); 9] = [
    ("bell", "shutdown or wake-up"),
    ("desk", "requests"),
    ("door", "connection"),
    ("former", "replaced"),
    ("outlook", "retry policy"),
    ("comeback", "recovery"),
    ("keeper", "announcer"),
    ("pulse", "heartbeat"),
    ("wish", "options or request"),
];

/// Files that must spell the listed words out, each with its reason.
const SPELLED_WITH_REASON: [(&str, &str); 1] = [("engine/tests/tidy/words.rs", "holds the lists")];

/// The tree says nothing about how it came about.
pub(crate) fn foreign_words(path: &str, text: &str) -> Vec<Finding> {
    find_in_lines(path, text, |line| {
        let found = FOREIGN_WORDS
            .iter()
            .map(|(half, other)| format!("{half}{other}"))
            .filter(|word| line.contains(word.as_str()));
        found.map(|word| format!("`{word}` has no place here")).collect()
    })
}

/// Prose, messages and names say what they are about.
pub(crate) fn riddles(path: &str, text: &str) -> Vec<Finding> {
    if is_exempt(path) {
        return Vec::new();
    }
    find_in_lines(path, text, |line| {
        let words = line.split(|c: char| !c.is_alphanumeric());
        words
            .filter(|word| RIDDLES.contains(word))
            .map(|word| {
                format!("`{word}` hides the subject: name the peer, client, file or value that is meant")
            })
            .collect()
    })
}

/// Modules, types, functions and fields are named by the terms of the field.
pub(crate) fn metaphors(source: &Source) -> Vec<Finding> {
    if is_exempt(&source.path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut check = |line: usize, name: &str| {
        for word in name_words(name) {
            let singular = word.strip_suffix('s').unwrap_or(&word);
            if let Some((metaphor, term)) =
                METAPHORS.iter().find(|(metaphor, _)| [word.as_str(), singular].contains(metaphor))
            {
                findings.push(Finding::new(
                    &source.path,
                    line,
                    format!("`{name}` is named by the metaphor `{metaphor}`; the term is {term}"),
                ));
            }
        }
    };
    for part in source.path.trim_end_matches(".rs").split('/') {
        check(0, part);
    }
    for token in tokens(&source.code) {
        check(source.line(token.at), token.text);
    }
    findings
}

/// The words of `snake_case` or `CamelCase`, in lower case.
pub(crate) fn name_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("never empty").extend(c.to_lowercase());
        }
    }
    words
}

/// Applies the word rules to a document.
pub(crate) fn of_document(document: &Document) -> Vec<Finding> {
    [foreign_words(&document.path, &document.text), riddles(&document.path, &document.text)].concat()
}

/// Applies the word rules to a source file.
pub(crate) fn of_source(source: &Source) -> Vec<Finding> {
    [foreign_words(&source.path, &source.text), riddles(&source.path, &source.text), metaphors(source)]
        .concat()
}

fn is_exempt(path: &str) -> bool {
    SPELLED_WITH_REASON.iter().any(|(exempt, _)| *exempt == path)
}

fn find_in_lines(path: &str, text: &str, find: impl Fn(&str) -> Vec<String>) -> Vec<Finding> {
    text.lines()
        .enumerate()
        .flat_map(|(line, text)| {
            find(&text.to_lowercase()).into_iter().map(move |what| Finding::new(path, line + 1, what))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_found() {
        assert_eq!(foreign_words("README.md", "Report an issue; the lead time is short."), []);
        for (half, other) in FOREIGN_WORDS {
            assert_eq!(foreign_words("README.md", &format!("a\nsee {half}{other}5")).len(), 1);
        }
    }

    #[test]
    fn riddles_are_found_as_words() {
        assert_eq!(riddles("README.md", "The peer that asks. A whateverish name."), []);
        for word in RIDDLES {
            assert_eq!(riddles("x/src/a.rs", &format!("//! A.\n// {word}'s turn")).len(), 1);
        }
        assert_eq!(riddles("x/src/a.rs", "fn nobody_asks() {} // Whoever").len(), 2);
    }

    #[test]
    fn metaphors_are_found_in_names_alone() {
        let source = |path: &str, text: &str| metaphors(&Source::new(path, text)).len();
        assert_eq!(source("x/src/a.rs", "// The door is a metaphor.\nfn perform() { indoors(\"bell\") }"), 0);
        assert_eq!(source("x/src/a.rs", "struct FrontDoor { bell: u8 }\nfn wish_list() {}"), 3);
        assert_eq!(source("x/src/desk.rs", ""), 1);
    }
}
