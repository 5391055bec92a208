//! How many take part in a transfer, as the name of its workload says it.
//!
//! Invariant: what is written is read back, so that a report can be drawn from records of any age.

use std::fmt;

/// Numbers of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeCounts {
    /// Who has the file.
    pub(crate) seeders: usize,
    /// Who fetches it.
    pub(crate) leechers: usize,
}

impl fmt::Display for NodeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeCounts { seeders, leechers } = self;
        write!(f, "{} to {}", count_noun(*seeders, "seeder"), count_noun(*leechers, "leecher"))
    }
}

/// A number and its noun.
pub(crate) fn count_noun(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

impl NodeCounts {
    /// Of a workload's name, if it says one.
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
    fn what_is_written_is_read() {
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
