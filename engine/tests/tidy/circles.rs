//! The rule against hidden circles: one type's methods spread over files that call each other through `self`.
//!
//! Such files look like a layering and are none: no `use` shows that each needs the other. The rule reads every `impl`
//! of a type in a crate, takes `self.name(` and `Self::name(` as a use of the file that defines `name`, and wants these
//! uses to point one way. Calls through fields (`self.queue.push()`) are calls of another type and do not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::cycle::shortest_cycle;
use crate::source::{Source, Token, reads, tokens};
use crate::tree::Finding;

/// Types whose methods may call each other across files, each with its reason.
const CIRCLES_WITH_REASON: [(&str, &str); 0] = [];

/// A call of a type's method through `self`.
struct SelfCall<'a> {
    source: &'a Source,
    method: &'a str,
    at: usize,
}

/// What the `impl` blocks of one type define and call, file by file.
#[derive(Default)]
struct TypeMethods<'a> {
    /// Files that define a method of this name.
    defined: BTreeMap<&'a str, BTreeSet<&'a str>>,
    calls: Vec<SelfCall<'a>>,
}

/// Files of one type's methods, each with the files that it calls into and the first such call.
type FileCalls<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a SelfCall<'a>>>;

/// No type's methods call each other to and fro between files.
pub(crate) fn hidden_circles(sources: &[Source]) -> Vec<Finding> {
    let mut types: BTreeMap<(&str, &str), TypeMethods<'_>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.contains("/src/")) {
        read_impls(source, &mut types);
    }
    types
        .iter()
        .filter(|((_, name), _)| CIRCLES_WITH_REASON.iter().all(|(allowed, _)| allowed != name))
        .filter_map(|((_, name), methods)| find_circle(name, methods))
        .collect()
}

fn read_impls<'a>(source: &'a Source, types: &mut BTreeMap<(&'a str, &'a str), TypeMethods<'a>>) {
    let tokens = tokens(&source.shipped);
    let mut at = 0;
    while at < tokens.len() {
        let Some((name, body)) = impl_at(&tokens, at) else {
            at += 1;
            continue;
        };
        let end = block_end(&tokens, body);
        let methods = types.entry((source.member(), name)).or_default();
        for place in body..end {
            if tokens[place].text == "fn" {
                methods.defined.entry(tokens[place + 1].text).or_default().insert(&source.path);
            }
            let is_call = reads(&tokens, place, &["self", "."]) || reads(&tokens, place, &["Self", "::"]);
            if is_call && tokens.get(place + 3).is_some_and(|token| token.text == "(") {
                methods.calls.push(SelfCall { source, method: tokens[place + 2].text, at: tokens[place].at });
            }
        }
        at = end;
    }
}

/// The type's name and the place of the opening brace, if an `impl` block starts at token `at`.
fn impl_at<'a>(tokens: &[Token<'a>], at: usize) -> Option<(&'a str, usize)> {
    let starts_item = at == 0 || matches!(tokens[at - 1].text, "}" | ";" | "]" | "{" | "unsafe");
    if tokens[at].text != "impl" || !starts_item {
        return None;
    }
    let (mut name, mut depth) = (None, 0_usize);
    for (place, token) in tokens.iter().enumerate().skip(at + 1) {
        match token.text {
            "<" => depth += 1,
            ">" if tokens[place - 1].text != "-" => depth = depth.saturating_sub(1),
            "where" if depth == 0 => {
                let body = tokens[place..].iter().position(|token| token.text == "{")?;
                return Some((name?, place + body));
            }
            "{" => return Some((name?, place)),
            ";" => return None,
            // The last name outside of generics wins: the type behind `for`, the end of a path.
            text if depth == 0 && text.starts_with(|c: char| c.is_ascii_uppercase()) => name = Some(text),
            _ => {}
        }
    }
    None
}

/// The place behind the brace that closes the one at `open`.
fn block_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return place + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

fn find_circle(name: &str, methods: &TypeMethods<'_>) -> Option<Finding> {
    let mut files: FileCalls<'_> = BTreeMap::new();
    for call in &methods.calls {
        let from = call.source.path.as_str();
        let defined = methods.defined.get(call.method).filter(|defined| !defined.contains(from));
        for to in defined.into_iter().flatten() {
            files.entry(from).or_default().entry(to).or_insert(call);
        }
    }
    files.keys().find_map(|start| {
        let circle = shortest_cycle(&files, start)?;
        let (first, _) = circle.first()?;
        let steps: Vec<String> = circle
            .iter()
            .map(|(call, to)| {
                format!("{}:{} calls `{}` of {to}", call.source.path, call.source.line(call.at), call.method)
            })
            .collect();
        let what = format!(
            "the methods of `{name}` call each other between files: {}; move a part into a type of its own",
            steps.join("; ")
        );
        Some(Finding::new(&first.source.path, first.source.line(first.at), what))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(a: &str, b: &str) -> Vec<Finding> {
        hidden_circles(&[Source::new("x/src/a.rs", a), Source::new("x/src/a/b.rs", b)])
    }

    #[test]
    fn calls_to_and_fro_are_found() {
        let a = "struct Loop; impl Loop { fn turn(&mut self) { self.step(); } fn end(&self) {} }";
        let b = "use super::Loop;\nimpl Loop {\n fn step(&self) { self.end() } }";
        let found = circles(a, b);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("`step`") && found[0].what.contains("`end`"), "{}", found[0]);
        let b = "impl<T: Fn() -> u8> Trait<T> for super::Loop where T: Copy { fn step(&self) { Self::end(self) } }";
        assert_eq!(circles(a, b).len(), 1, "through a trait, generics and `Self`");
    }

    #[test]
    fn one_way_is_allowed() {
        let a = "struct Loop; impl Loop { fn turn(&mut self) { self.step(); self.queue.end(); } fn end(&self) {} }";
        assert_eq!(circles(a, "impl Loop { fn step(&self) { self.other.end(); end() } }"), []);
        assert_eq!(circles(a, "impl Other { fn step(&self) { self.end() } fn end(&self) {} }"), []);
        let both = "impl Loop { fn step(&self) { self.own() } fn own(&self) { self.step() } }";
        assert_eq!(circles(a, both), [], "within one file");
    }
}
