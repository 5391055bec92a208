//! The rule that numbers in documents equal the constants they quote.
//!
//! A hidden mark behind the number names the constant: `at most 64 pieces <!-- const: engine REQUEST_MAX_PIECES = 64
//! pieces -->`. The rule evaluates the constant, compares it with the mark, and wants the mark's words in the line before
//! the mark.

use std::collections::BTreeSet;

use crate::source::{Source, Token, reads, tokens};
use crate::tree::{Document, Finding, Tree};

/// Beginning and end of a mark.
const MARK: (&str, &str) = ("<!-- const:", "-->");

/// Largest depth of constants that name constants.
const DEPTH_MAX: u32 = 8;

/// Every marked number in a document equals its constant.
pub(crate) fn quotes(tree: &Tree) -> Vec<Finding> {
    tree.documents
        .iter()
        .filter(|document| document.path.ends_with(".md"))
        .flat_map(|document| quotes_of(document, &tree.sources))
        .collect()
}

fn quotes_of(document: &Document, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in document.text.lines().enumerate() {
        let mut at = 0;
        while let Some(start) = text[at..].find(MARK.0).map(|n| at + n) {
            let end = text[start..].find(MARK.1).map_or(text.len(), |n| start + n);
            if let Err(fault) = check(&text[..start], &text[start + MARK.0.len()..end], sources) {
                findings.push(Finding::new(&document.path, line + 1, fault));
            }
            at = end;
        }
    }
    findings
}

/// Checks one mark, `engine NAME = 64 KiB`, that stands behind `before`.
fn check(before: &str, mark: &str, sources: &[Source]) -> Result<(), String> {
    let form = || format!("`{}` is no mark of a constant: <!-- const: CRATE NAME = VALUE -->", mark.trim());
    let (constant, said) = mark.split_once('=').ok_or_else(form)?;
    let (member, name) = constant.trim().split_once(' ').ok_or_else(form)?;
    let said = said.trim();
    let value = value_of(member, name.trim(), sources, DEPTH_MAX)?;
    let claimed = amount(said, name.trim()).ok_or_else(form)?;
    if claimed != value {
        return Err(format!("{member}'s {name} is {value}, the mark says {said}"));
    }
    if !before.contains(said) {
        return Err(format!("the line does not say `{said}` before its mark"));
    }
    Ok(())
}

/// The number that `64 KiB`, `65,536` or `10 s` stands for, in the unit that the constant's name ends in.
fn amount(said: &str, name: &str) -> Option<u128> {
    let (number, unit) = said.split_once(' ').unwrap_or((said, ""));
    let number: u128 = number.replace(',', "").parse().ok()?;
    let thousands = if name.ends_with("_MS") { 1_000 } else { 1 };
    let factor = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "s" => thousands,
        "min" | "minutes" => 60 * thousands,
        "days" => 24 * 60 * 60 * thousands,
        _ => 1,
    };
    number.checked_mul(factor)
}

/// The value of a crate's constant.
fn value_of(member: &str, name: &str, sources: &[Source], depth: u32) -> Result<u128, String> {
    let mut values = BTreeSet::new();
    for source in sources.iter().filter(|source| source.member() == member) {
        let tokens = tokens(&source.shipped);
        for at in (0..tokens.len()).filter(|at| reads(&tokens, *at, &["const", name, ":"])) {
            let rest = &tokens[at..];
            let start = rest.iter().position(|token| token.text == "=").map_or(rest.len(), |n| n + 1);
            let end =
                rest.iter().skip(start).position(|token| token.text == ";").map_or(rest.len(), |n| start + n);
            let constants = |name: &str| value_of(member, name, sources, depth.checked_sub(1)?).ok();
            let mut sum = Sum { tokens: &rest[start..end], at: 0, constants: &constants };
            let value = sum.shift().filter(|_| sum.at == sum.tokens.len());
            values.insert(value.ok_or_else(|| format!("cannot evaluate {member}'s {name}"))?);
        }
    }
    match values.len() {
        1 => values.pop_first().ok_or_else(String::new),
        0 => Err(format!("{member} has no constant {name}")),
        _ => Err(format!("{member} has several constants {name}, with different values")),
    }
}

/// A constant's expression: whole numbers, other constants, `* / + - <<`, parentheses, and casts, which are skipped.
struct Sum<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    constants: &'a dyn Fn(&str) -> Option<u128>,
}

impl Sum<'_> {
    fn takes(&mut self, texts: &[&str]) -> bool {
        let fits = reads(self.tokens, self.at, texts);
        self.at += if fits { texts.len() } else { 0 };
        fits
    }

    fn shift(&mut self) -> Option<u128> {
        let mut value = self.sum()?;
        while self.takes(&["<", "<"]) {
            value = value.checked_shl(u32::try_from(self.sum()?).ok()?)?;
        }
        Some(value)
    }

    fn sum(&mut self) -> Option<u128> {
        let mut value = self.product()?;
        loop {
            value = if self.takes(&["+"]) {
                value.checked_add(self.product()?)?
            } else if self.takes(&["-"]) {
                value.checked_sub(self.product()?)?
            } else {
                return Some(value);
            };
        }
    }

    fn product(&mut self) -> Option<u128> {
        let mut value = self.atom()?;
        loop {
            value = if self.takes(&["*"]) {
                value.checked_mul(self.atom()?)?
            } else if self.takes(&["/"]) {
                value.checked_div(self.atom()?)?
            } else {
                return Some(value);
            };
        }
    }

    fn atom(&mut self) -> Option<u128> {
        let value = if self.takes(&["("]) {
            let value = self.shift()?;
            self.takes(&[")"]).then_some(value)?
        } else {
            let mut name = self.tokens.get(self.at)?.text;
            self.at += 1;
            while self.takes(&["::"]) {
                name = self.tokens.get(self.at)?.text;
                self.at += 1;
            }
            number(name).or_else(|| (self.constants)(name))?
        };
        while self.takes(&["as"]) {
            self.at += 1;
        }
        Some(value)
    }
}

/// A whole number as Rust writes it, with its underscores and its type's name.
fn number(text: &str) -> Option<u128> {
    let digits = text.split(['u', 'i']).next()?.replace('_', "");
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(line: &str) -> usize {
        let code = "pub const A: u64 = 64 * 1024;\nconst B: usize = (limits::A as usize + 1_000u64) << 1; // A\n\
                    const C_MS: u64 = 10_000;\nconst D: &str = \"x\";";
        let document = Document { path: "docs/a.md".to_owned(), text: line.to_owned() };
        quotes_of(&document, &[Source::new("engine/src/limits.rs", code)]).len()
    }

    #[test]
    fn true_quotes_pass() {
        for line in [
            "at most 64 KiB <!-- const: engine A = 64 KiB --> a frame",
            "| 133,072 <!-- const: engine B = 133,072 --> | 10 s <!-- const: engine C_MS = 10 s --> |",
            "no mark at all",
        ] {
            assert_eq!(faults(line), 0, "{line}");
        }
    }

    #[test]
    fn false_quotes_are_found() {
        for line in [
            "at most 63 KiB <!-- const: engine A = 63 KiB -->",
            "at most 63 KiB <!-- const: engine A = 64 KiB -->",
            "10 <!-- const: engine C_MS = 10 -->",
            "1 <!-- const: engine GONE = 1 -->",
            "1 <!-- const: tracker A = 1 -->",
            "1 <!-- const: engine D = 1 -->",
            "1 <!-- const: nonsense -->",
        ] {
            assert_eq!(faults(line), 1, "{line}");
        }
    }
}
