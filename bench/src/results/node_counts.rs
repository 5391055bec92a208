//! The numbers of seeders and leechers of a transfer, written and parsed as the name of its workload.
//!
//! Invariant: every written name can be parsed, since a report reads the counts from the names in the records.

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
    /// Parses the name of a workload; `None` if the name has another form.
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
            let counts = NodeCounts { seeders, leechers };
            assert_eq!(counts.to_string(), name);
            assert_eq!(NodeCounts::parse(name), Some(counts));
        }
        for other in ["compare", "upload of the file", "x seeders to 1 leecher", "1 seeder to 1 seeder"] {
            assert_eq!(NodeCounts::parse(other), None, "{other}");
        }
    }
}
