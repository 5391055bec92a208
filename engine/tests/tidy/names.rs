//! Rules and figures about the names of types and free functions, over the code that ships.
//!
//! A type is a `struct`, `enum`, `trait` or `union`; a free function is an `fn` at the left margin. A one-word type has
//! one capitalised word (`Piece`), a one-word function has no underscore. A shared name is one that more than one type
//! of the workspace has.

use std::collections::BTreeMap;
use std::fmt;

use crate::source::{Source, tokens};
use crate::tree::Finding;

/// Largest share of types with a one-word name, in percent.
const ONE_WORD_TYPES_MAX: usize = 25;

/// Largest share of free functions with a one-word name, in percent.
const ONE_WORD_FUNCTIONS_MAX: usize = 20;

/// Type names that may be defined more than once, each with its reason.
const SHARED_WITH_REASON: [(&str, &str); 0] = [];

/// A definition that the rules count.
#[derive(Clone, Copy)]
struct Definition<'a> {
    source: &'a Source,
    name: &'a str,
    at: usize,
}

impl Definition<'_> {
    fn finding(&self, what: String) -> Finding {
        Finding::new(&self.source.path, self.source.line(self.at), what)
    }
}

/// How many names there are, and how many of them say too little on their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NameFigures {
    types: usize,
    one_word_types: usize,
    shared_types: usize,
    functions: usize,
    one_word_functions: usize,
}

impl NameFigures {
    /// Counts the names in `sources`; a name counts as shared when another type in `sources` has it too.
    pub(crate) fn count(sources: &[Source]) -> NameFigures {
        let types = types_by_name(sources);
        let functions: Vec<&str> =
            sources.iter().flat_map(free_functions).map(|function| function.name).collect();
        let count_where = |holds: &dyn Fn(&str, usize) -> bool| {
            types
                .iter()
                .filter(|(name, places)| holds(name, places.len()))
                .map(|(_, places)| places.len())
                .sum()
        };
        NameFigures {
            types: count_where(&|_, _| true),
            one_word_types: count_where(&|name, _| is_one_word_type(name)),
            shared_types: count_where(&|_, places| places > 1),
            functions: functions.len(),
            one_word_functions: functions.iter().filter(|name| !name.contains('_')).count(),
        }
    }
}

impl fmt::Display for NameFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: usize, whole: usize| (part * 100).div_ceil(whole.max(1));
        write!(
            f,
            "{:5} types: {:3} % one word, {:3} % shared; {:5} free functions: {:3} % one word",
            self.types,
            percent(self.one_word_types, self.types),
            percent(self.shared_types, self.types),
            self.functions,
            percent(self.one_word_functions, self.functions),
        )
    }
}

/// One line of figures for the workspace and one for each of its members.
pub(crate) fn report(sources: &[Source], members: &[&str]) -> String {
    let mut lines = vec![format!("workspace {}", NameFigures::count(sources))];
    for member in members {
        let types = types_by_name(sources);
        let of_member = |definition: &&Definition<'_>| definition.source.member() == *member;
        let shared = types.values().filter(|places| places.len() > 1).flatten().filter(of_member).count();
        let functions: Vec<_> =
            sources.iter().filter(|source| source.member() == *member).flat_map(free_functions).collect();
        let own: Vec<_> = types.values().flatten().filter(of_member).collect();
        let figures = NameFigures {
            types: own.len(),
            one_word_types: own.iter().filter(|definition| is_one_word_type(definition.name)).count(),
            shared_types: shared,
            functions: functions.len(),
            one_word_functions: functions.iter().filter(|function| !function.name.contains('_')).count(),
        };
        lines.push(format!("{member:9} {figures}"));
    }
    lines.join("\n")
}

/// Every type name has one meaning in the workspace.
pub(crate) fn shared_types(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, places) in types_by_name(sources) {
        if SHARED_WITH_REASON.iter().any(|(allowed, _)| *allowed == name) {
            continue;
        }
        let Some((first, others)) = places.split_first() else { continue };
        findings.extend(others.iter().map(|other| {
            other.finding(format!(
                "`{name}` is also the name of a type in {}: rename one of them",
                first.source.path
            ))
        }));
    }
    findings
}

/// Most names say what they mean without the module around them.
pub(crate) fn one_word_names(sources: &[Source]) -> Vec<Finding> {
    let figures = NameFigures::count(sources);
    let mut findings = Vec::new();
    if figures.one_word_types * 100 > ONE_WORD_TYPES_MAX * figures.types {
        let what = format!("more than {ONE_WORD_TYPES_MAX} % of the types have a one-word name: {figures}");
        findings.push(Finding::new("", 0, what));
    }
    if figures.one_word_functions * 100 > ONE_WORD_FUNCTIONS_MAX * figures.functions {
        let what = format!(
            "more than {ONE_WORD_FUNCTIONS_MAX} % of the free functions have a one-word name: {figures}"
        );
        findings.push(Finding::new("", 0, what));
    }
    findings
}

fn is_one_word_type(name: &str) -> bool {
    name.chars().filter(char::is_ascii_uppercase).count() == 1
}

fn types_by_name(sources: &[Source]) -> BTreeMap<&str, Vec<Definition<'_>>> {
    let mut types: BTreeMap<&str, Vec<Definition<'_>>> = BTreeMap::new();
    for source in sources.iter().filter(|source| is_in_src(source)) {
        for pair in tokens(&source.shipped).windows(2) {
            let is_name = pair[1].text.starts_with(|c: char| c.is_ascii_uppercase());
            if matches!(pair[0].text, "struct" | "enum" | "trait" | "union") && is_name {
                let definition = Definition { source, name: pair[1].text, at: pair[1].at };
                types.entry(definition.name).or_default().push(definition);
            }
        }
    }
    types
}

fn free_functions(source: &Source) -> Vec<Definition<'_>> {
    if !is_in_src(source) {
        return Vec::new();
    }
    let starts_in_margin = |at: usize| {
        let line_start = source.shipped[..at].rfind('\n').map_or(0, |newline| newline + 1);
        !source.shipped[line_start..].starts_with(' ')
    };
    tokens(&source.shipped)
        .windows(2)
        .filter(|pair| pair[0].text == "fn" && starts_in_margin(pair[0].at))
        .map(|pair| Definition { source, name: pair[1].text, at: pair[1].at })
        .collect()
}

fn is_in_src(source: &Source) -> bool {
    source.path.contains("/src/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(path, text)).collect()
    }

    #[test]
    fn names_are_counted_in_shipped_code() {
        let sources = sources(&[
            (
                "a/src/x.rs",
                "struct Job; enum SendJob {}\nfn run() {\n    fn inner() {}\n}\npub(crate) fn run_job() {}",
            ),
            ("b/src/y.rs", "trait Job {\n    fn go(&self);\n}\n#[cfg(test)] mod tests { struct Tested; }"),
            ("b/tests/z.rs", "struct Job; fn look() {}"),
        ]);
        let expected =
            NameFigures { types: 3, one_word_types: 2, shared_types: 2, functions: 2, one_word_functions: 1 };
        assert_eq!(NameFigures::count(&sources), expected);
    }

    #[test]
    fn shared_names_are_found() {
        let two = [("a/src/x.rs", "struct Job;"), ("b/src/y.rs", "//! B.\nenum Job {}")];
        let found = shared_types(&sources(&two));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("b/src/y.rs", 2));
        assert_eq!(shared_types(&sources(&two[..1])), []);
    }

    #[test]
    fn too_many_one_word_names_are_found() {
        let few = "struct Piece; struct SendJob; struct ReadJob; struct PieceCount;";
        assert_eq!(one_word_names(&sources(&[("a/src/x.rs", few)])), []);
        assert_eq!(one_word_names(&sources(&[("a/src/x.rs", "struct Piece;\nfn look() {}")])).len(), 2);
    }
}
