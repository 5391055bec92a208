//! The numbers of seeders and leechers of a transfer, as the name of its workload contains them.
//!
//! Invariant: every name that is written can be parsed, so reports of old records can be drawn.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeCounts {
    pub(crate) seeders: usize,
    pub(crate) leechers: usize,
}

impl fmt::Display for NodeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeCounts { seeders, leechers } = self;
        write!(f, "{} to {}", count_noun(*seeders, "seeder"), count_noun(*leechers, "leecher"))
    }
}

/// A number with its noun: `1 seeder`, `2 seeders`.
pub(crate) fn count_noun(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

impl NodeCounts {
    /// Parses the name of a workload.
    pub(crate) fn parse(workload: &str) -> Option<NodeCounts> {
        let (seeders, leechers) = workload.split_once(" to ")?;
        let count = |words: &str, one: &str| {
            let (count, noun) = words.split_once(' ')?;
            noun.starts_with(one).then(|| count.parse().ok())?
        };
        Some(NodeCounts { seeders: count(seeders, "seeder")?, leechers: count(leechers, "leecher")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_name_is_parsed_again() {
        for (seeders, leechers, name) in
            [(1, 1, "1 seeder to 1 leecher"), (3, 64, "3 seeders to 64 leechers")]
        {
            let shape = NodeCounts { seeders, leechers };
            assert_eq!(shape.to_string(), name);
            assert_eq!(NodeCounts::parse(name), Some(shape));
        }
        for other in ["compare", "upload of the file", "x seeders to 1 leecher", "1 seeder to 1 seeder"] {
            assert_eq!(NodeCounts::parse(other), None, "{other}");
        }
    }
}
