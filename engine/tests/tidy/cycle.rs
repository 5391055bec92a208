//! The search for cycles that the rules about modules and about methods share.

use std::collections::{BTreeMap, BTreeSet};

/// The shortest path of uses from `start` back to itself: each use, with the name that it leads to.
///
/// `uses` maps a name to the names that it uses, each with one use as evidence.
pub(crate) fn shortest_cycle<'a, T>(
    uses: &BTreeMap<&'a str, BTreeMap<&'a str, &'a T>>,
    start: &str,
) -> Option<Vec<(&'a T, &'a str)>> {
    let mut seen = BTreeSet::new();
    let mut paths = vec![(start, Vec::new())];
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for (at, path) in paths {
            for (next, evidence) in uses.get(at).into_iter().flatten() {
                let mut path = path.clone();
                path.push((*evidence, *next));
                if *next == start {
                    return Some(path);
                }
                if seen.insert(*next) {
                    longer.push((*next, path));
                }
            }
        }
        paths = longer;
    }
    None
}
