//! The dependency graph of a crate: the paths that its files name, resolved to modules.
//!
//! Invariant: a path of an edge names a module that exists; the empty path is the crate's root.

use std::collections::BTreeMap;
use std::fmt;

use super::MEMBERS;
use super::paths::{self, NamedPath};
use crate::source::Source;

/// Largest number of re-exports that are followed for one path.
const REEXPORTS_MAX: u32 = 8;

/// One use of another module.
#[derive(Debug)]
pub(super) struct Edge {
    /// Path of the module that uses; of an outer edge too.
    pub(super) from: Vec<String>,
    /// Path of the module that is used; in an outer edge, the path as written, from the other crate's name on.
    pub(super) to: Vec<String>,
    /// The file of the use.
    pub(super) path: String,
    /// Its line.
    pub(super) line: usize,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &[String]| if path.is_empty() { "the root".to_owned() } else { path.join("::") };
        write!(f, "{} uses {} ({}:{})", name(&self.from), name(&self.to), self.path, self.line)
    }
}

/// The uses within a crate, and of the other members.
pub(super) struct Graph {
    /// From module to other module of the same crate.
    pub(super) edges: Vec<Edge>,
    /// From a module to another member of the workspace.
    pub(super) outer: Vec<Edge>,
}

/// The modules of a crate, and the names that their `use` statements bring into them, as paths from the root.
type Modules = BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>;

impl Graph {
    /// Reads what ships of the crate in the folder `member`.
    pub(super) fn of(member: &str, sources: &[Source]) -> Graph {
        let prefix = format!("{member}/src/");
        let files: Vec<(Vec<String>, &Source, Vec<NamedPath>)> = sources
            .iter()
            .filter(|source| source.member() == member && !source.is_test())
            .filter_map(|source| {
                Some((module_path(source.path.strip_prefix(&prefix)?), source, paths::of(source)))
            })
            .collect();
        let mut modules = Modules::new();
        for (module, ..) in &files {
            // A folder without a file of its own is a module all the same.
            (0..=module.len()).for_each(|n| _ = modules.entry(module[..n].to_vec()).or_default());
        }
        for (module, _, paths) in &files {
            let names: Vec<(String, Vec<String>)> = paths
                .iter()
                .filter_map(|path| Some((path.name.clone()?, from_root(&modules, module, &path.segments)?)))
                .collect();
            modules.entry(module.clone()).or_default().extend(names);
        }
        let mut graph = Graph { edges: Vec::new(), outer: Vec::new() };
        for (module, source, paths) in files {
            for path in paths {
                graph.add(&modules, &module, source, &path);
            }
        }
        graph
    }

    fn add(&mut self, modules: &Modules, module: &[String], source: &Source, path: &NamedPath) {
        let edge = |to| Edge { from: module.to_vec(), to, path: source.path.clone(), line: path.line };
        let Some(full) = from_root(modules, module, &path.segments) else {
            if path.segments.first().is_some_and(|first| MEMBERS.contains(&first.as_str())) {
                self.outer.push(edge(path.segments.clone()));
            }
            return;
        };
        let target = follow(modules, &full, REEXPORTS_MAX);
        let is_reexport = path.is_public && target.starts_with(module);
        if target != module && !is_reexport {
            self.edges.push(edge(target));
        }
    }
}

/// `a::b` of `a/b.rs` and of `a/b/mod.rs`; nothing of `lib.rs` and `main.rs`.
fn module_path(file: &str) -> Vec<String> {
    let mut path: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") || file == "lib.rs" || file == "main.rs" {
        path.pop();
    }
    path
}

/// A path as written in `module`, from the crate's root on; `None` when it leads out of the crate.
fn from_root(modules: &Modules, module: &[String], segments: &[String]) -> Option<Vec<String>> {
    let (first, rest) = segments.split_first()?;
    let mut base = module.to_vec();
    let mut rest = rest;
    match first.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop();
            while let Some(("super", after)) = rest.split_first().map(|(next, after)| (next.as_str(), after))
            {
                base.pop();
                rest = after;
            }
        }
        name => {
            base.push(name.to_owned());
            if !modules.contains_key(&base) {
                return None;
            }
        }
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The module that a path from the root means, through re-exports.
fn follow(modules: &Modules, path: &[String], reexports: u32) -> Vec<String> {
    let depth = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n])).unwrap_or(0);
    let module = &path[..depth];
    let reexport = path.get(depth).and_then(|name| modules.get(module)?.get(name));
    match reexport {
        Some(reexport) if reexports > 0 => {
            let mut onward = reexport.clone();
            onward.extend_from_slice(&path[depth + 1..]);
            follow(modules, &onward, reexports - 1)
        }
        _ => module.to_vec(),
    }
}
