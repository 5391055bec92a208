//! Rules about dependencies between modules: no cycles, and only the permitted arrows.
//!
//! ```text
//!   paths (what a file names) ──► graph (which module that is) ──► cycles, arrows (here)
//! ```
//!
//! A module is a file. Within a folder, each child stands for everything below it, and the folder's own file (`mod.rs`)
//! stands beside its children. A `pub use` of an item below is a re-export: it makes the folder depend on nothing, and
//! its users depend on the module of the item.

mod graph;
mod paths;

use std::collections::BTreeMap;

use crate::cycle::shortest_cycle;
use crate::source::Source;
use crate::tree::Finding;
use graph::{Edge, Graph};

/// Name of a folder's own file among its children.
const OWN_FILE: &str = "mod.rs";

/// The members of the workspace.
pub(crate) const MEMBERS: [&str; 4] = ["engine", "tracker", "client", "bench"];

/// Modules of its own crate that a module may use; a module that is not listed may use all.
const INNER_ARROWS: [(&str, &str, &[&str]); 6] = [
    ("engine", "proto", &[]),
    ("engine", "mem", &["lock"]),
    ("engine", "hash", &["proto"]),
    ("engine", "storage", &["abort", "lock", "mem", "proto"]),
    ("tracker", "state", &[]),
    // Users, groups and their policies have one definition, and the state keeps it.
    ("tracker", "api", &["state::id", "state::command", "state::limits"]),
];

/// Parts of another member that a member may use; a pair that is not listed may not be used.
const OUTER_ARROWS: [(&str, &str, &[&str]); 5] = [
    ("tracker", "engine", &["proto"]),
    ("client", "engine", &[]),
    ("client", "tracker", &["api"]),
    ("bench", "engine", &[]),
    ("bench", "tracker", &["api"]),
];

/// No module depends on itself through other modules.
pub(crate) fn cycles(sources: &[Source]) -> Vec<Finding> {
    MEMBERS.iter().flat_map(|member| cycles_of(&Graph::of(member, sources))).collect()
}

/// The arrows of one folder: from a child to a child, with one edge that made it.
type Arrows<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Edge>>;

fn cycles_of(graph: &Graph) -> Vec<Finding> {
    let mut folders: BTreeMap<&[String], Arrows<'_>> = BTreeMap::new();
    for edge in &graph.edges {
        let shared = edge.from.iter().zip(&edge.to).take_while(|(a, b)| a == b).count();
        let from = edge.from.get(shared).map_or(OWN_FILE, String::as_str);
        let to = edge.to.get(shared).map_or(OWN_FILE, String::as_str);
        let arrows = folders.entry(&edge.from[..shared]).or_default();
        arrows.entry(from).or_default().entry(to).or_insert(edge);
    }
    folders.values().filter_map(cycle_in).collect()
}

/// The first cycle among the children of a folder, with one use for each step.
fn cycle_in(arrows: &Arrows<'_>) -> Option<Finding> {
    arrows.keys().find_map(|start| {
        let round = shortest_cycle(arrows, start)?;
        let steps: Vec<String> = round.iter().map(|(edge, _)| edge.to_string()).collect();
        let (first, _) = round.first()?;
        Some(Finding::new(&first.path, first.line, format!("a cycle of modules: {}", steps.join("; "))))
    })
}

/// Modules use only the modules that the lists of arrows permit.
pub(crate) fn arrows(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in MEMBERS {
        let graph = Graph::of(member, sources);
        findings.extend(graph.edges.iter().filter_map(|edge| inner_fault(member, edge)));
        findings.extend(graph.outer.iter().filter_map(|edge| outer_fault(member, edge)));
    }
    findings
}

fn inner_fault(member: &str, edge: &Edge) -> Option<Finding> {
    let top = edge.from.first()?;
    let (_, _, allowed) = INNER_ARROWS.iter().find(|(of, from, _)| *of == member && from == top)?;
    let to = edge.to.join("::");
    let fits = |path: &str| to == path || to.starts_with(&format!("{path}::"));
    if edge.to.first() == Some(top) || allowed.iter().any(|path| fits(path)) {
        return None;
    }
    let to = if to.is_empty() { "root" } else { to.as_str() };
    let what = format!("{member}'s {top} may not use {member}'s {to}; it may use: {}", list(allowed));
    Some(Finding::new(&edge.path, edge.line, what))
}

fn outer_fault(member: &str, edge: &Edge) -> Option<Finding> {
    let [other, inside @ ..] = edge.to.as_slice() else { return None };
    if other == member {
        return None;
    }
    let arrow = OUTER_ARROWS.iter().find(|(from, to, _)| *from == member && to == other);
    let what = match (arrow, inside.first()) {
        (None, _) => format!("{member} may not use {other} at all"),
        (Some((_, _, [])), _) => return None,
        (Some((_, _, permitted)), Some(path)) if permitted.contains(&path.as_str()) => return None,
        (Some((_, _, permitted)), _) => format!("{member} may use of {other} only: {}", list(permitted)),
    };
    Some(Finding::new(&edge.path, edge.line, what))
}

fn list(permitted: &[&str]) -> String {
    if permitted.is_empty() { "nothing of ours".to_owned() } else { permitted.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(path, text)).collect()
    }

    #[test]
    fn cycles_between_siblings_are_found() {
        let good = [
            ("client/src/lib.rs", "mod a; mod b; pub use a::A;"),
            ("client/src/a.rs", "use crate::b::B;"),
            ("client/src/b.rs", "use std::fmt; fn b() {} #[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert_eq!(cycles(&sources(&good)), []);
        let mut bad = good;
        bad[2].1 = "fn b() { crate::a::a() }";
        let found = cycles(&sources(&bad));
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("a uses b") && found[0].what.contains("b uses a"), "{}", found[0]);
        bad[2].1 = "use super::{A, fmt};";
        assert_eq!(cycles(&sources(&bad)).len(), 1, "through the signpost in lib.rs");
    }

    #[test]
    fn cycles_between_a_folder_and_its_file_are_found() {
        let folder = |own: &str, child: &str| {
            cycles(&sources(&[
                ("client/src/lib.rs", "mod a;"),
                ("client/src/a/mod.rs", own),
                ("client/src/a/b.rs", child),
            ]))
        };
        assert_eq!(folder("mod b; pub use b::B; struct A;", "use super::A; struct B;"), []);
        assert_eq!(folder("mod b; use b::B; struct A;", "struct B;"), []);
        assert_eq!(folder("mod b; use b::B; struct A;", "use super::A; struct B;").len(), 1);
        assert_eq!(folder("mod b; struct A(b::B);", "struct B(super::A);").len(), 1);
    }

    #[test]
    fn long_cycles_are_found_between_whole_folders() {
        let found = cycles(&sources(&[
            ("engine/src/lib.rs", "mod a; mod b; mod c;"),
            ("engine/src/a/mod.rs", "mod x;"),
            ("engine/src/a/x.rs", "use crate::b::{self, B};"),
            ("engine/src/b.rs", "use super::c::y::Y;"),
            ("engine/src/c/mod.rs", "pub mod y;"),
            ("engine/src/c/y.rs", "fn y() -> crate::a::A {}"),
        ]));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn arrows_that_point_up_are_found() {
        let inside = |file: &str, text: &str| {
            let mut files = vec![
                ("engine/src/lib.rs", "pub mod proto; mod mem; mod storage; mod driver;"),
                ("engine/src/proto/mod.rs", ""),
                ("engine/src/mem/mod.rs", ""),
                ("engine/src/storage/mod.rs", ""),
                ("engine/src/driver.rs", ""),
            ];
            files.push((file, text));
            arrows(&sources(&files)).len()
        };
        assert_eq!(inside("engine/src/storage/a.rs", "use crate::{mem::A, proto::B}; use super::C;"), 0);
        assert_eq!(inside("engine/src/storage/a.rs", "use crate::driver::A;"), 1);
        assert_eq!(inside("engine/src/proto/a.rs", "use crate::mem::A;"), 1);
        assert_eq!(inside("client/src/a.rs", "use tracker::api::{A, B}; use engine::Engine;"), 0);
        assert_eq!(inside("client/src/a.rs", "fn a(x: tracker::state::A) {}"), 1);
        assert_eq!(inside("client/src/a.rs", "use tracker::{api, state::B};"), 1);
        assert_eq!(inside("tracker/src/a.rs", "use engine::proto::units::Digest;"), 0);
        assert_eq!(inside("tracker/src/a.rs", "use client::node::Node;"), 1);
    }
}
