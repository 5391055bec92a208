//! Checks the rules of CONTRIBUTING.md that a scan of the text can check, over every crate and document of the repository.
//!
//! ```text
//!   tree (files, read once) ──► source (code without comments, literals, tests) ──► tokens
//!     │                              ├──► shape    headers, drawings, length, names, panics, leftovers
//!     │                              ├──► fences   unsafe and its notes, clocks
//!     │                              ├──► names    shared and one-word names, figures
//!     │                              ├──► modules  cycles, arrows ──────────┐
//!     │                              └──► circles  calls through `self` ────┴──► cycle
//!     ├──► documents   links, manifests; constants (quoted numbers)
//!     └──► words       riddles, metaphors, words that have no place
//! ```
//!
//! Each rule is a function from source files or documents to findings, and has a test in which it finds something.
//! A place that breaks a rule for a good reason has an entry in that rule's list of exceptions.

mod circles;
mod constants;
mod cycle;
mod documents;
mod fences;
mod modules;
mod names;
mod shape;
mod source;
mod tree;
mod words;

use modules::MEMBERS;
use tree::{Finding, Tree};

/// Fails with all findings, one a line.
fn hold(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// Applies a rule for one source file to all source files.
fn hold_everywhere(rule: fn(&source::Source) -> Vec<Finding>) {
    hold(&Tree::get().sources.iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn the_scan_finds_the_crates() {
    for member in MEMBERS {
        assert!(
            Tree::get().sources.iter().any(|source| source.path.starts_with(&format!("{member}/src/"))),
            "no source of {member}: the scan looks in the wrong place"
        );
    }
}

#[test]
fn every_file_opens_with_a_header() {
    hold_everywhere(shape::header);
}

#[test]
fn every_folder_has_a_drawing() {
    hold(&shape::drawings(&Tree::get().sources));
}

#[test]
fn no_file_is_too_long() {
    hold_everywhere(shape::length);
}

#[test]
fn no_empty_names() {
    hold_everywhere(shape::names);
}

#[test]
fn nothing_is_left_over() {
    hold_everywhere(shape::leftovers);
}

#[test]
fn panics_are_rare() {
    hold(&shape::panics(&Tree::get().sources));
}

#[test]
fn unsafe_stays_in_its_fences() {
    hold_everywhere(fences::unsafe_code);
}

#[test]
fn every_unsafe_is_argued() {
    hold_everywhere(fences::safety_notes);
}

#[test]
fn only_a_clock_reads_the_clock() {
    hold_everywhere(fences::clocks);
}

#[test]
fn no_module_cycles() {
    hold(&modules::cycles(&Tree::get().sources));
}

#[test]
fn arrows_point_down() {
    hold(&modules::arrows(&Tree::get().sources));
}

#[test]
fn versions_stand_in_the_root_manifest() {
    hold(&Tree::get().documents.iter().flat_map(documents::versions).collect::<Vec<_>>());
}

#[test]
fn links_lead_somewhere() {
    hold(&documents::links(&Tree::get().documents));
}

#[test]
fn prose_quotes_constants_truly() {
    hold(&constants::quotes(Tree::get()));
}

#[test]
fn words_say_what_they_mean() {
    let tree = Tree::get();
    hold(&tree.documents.iter().flat_map(words::of_document).collect::<Vec<_>>());
    hold(&tree.sources.iter().flat_map(words::of_source).collect::<Vec<_>>());
}

#[test]
fn every_type_name_has_one_meaning() {
    hold(&names::shared_types(&Tree::get().sources));
}

#[test]
fn most_names_stand_alone() {
    hold(&names::one_word_names(&Tree::get().sources));
}

/// Prints the figures that `scripts/names.sh` shows.
#[test]
fn name_figures() {
    println!("{}", names::report(&Tree::get().sources, &MEMBERS));
}

#[test]
fn no_hidden_circles() {
    hold(&circles::hidden_circles(&Tree::get().sources));
}
