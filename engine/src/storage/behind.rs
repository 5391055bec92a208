//! What a long download leaves in the page cache: its last gigabytes, so that one huge file does not push out everything
//! that the machine's other programs have there.
//!
//! ```text
//!   written ──► recorded ──► the record after that ──► dropped from the cache
//!               └── still asked for by other leechers ──┘
//! ```
//!
//! Only what a record claims is dropped: it is on the disk. A file that fits well into memory is kept whole, since it will
//! be shared next.

use super::limits::CACHED_MEMORY_SHARE;
use super::memory;
use crate::proto::units::{PieceIndex, PieceRange};

/// Which pieces of one download may leave the page cache.
#[derive(Debug)]
pub struct Behind {
    is_long: bool,
    recorded: Vec<PieceIndex>,
}

impl Behind {
    /// For a file of this length, in bytes, in the memory that this program may use.
    #[must_use]
    pub fn new(length: u64) -> Behind {
        Behind::with_memory(length, memory::usable_bytes())
    }

    fn with_memory(length: u64, memory: u64) -> Behind {
        Behind { is_long: length > memory / CACHED_MEMORY_SHARE, recorded: Vec::new() }
    }

    /// Another record claims these pieces, ascending. Gives those of the record before, which may go now.
    pub fn recorded(&mut self, pieces: Vec<PieceIndex>) -> Vec<PieceRange> {
        if !self.is_long {
            return Vec::new();
        }
        PieceRange::joined(std::mem::replace(&mut self.recorded, pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn pieces(indices: &[u32]) -> Vec<PieceIndex> {
        indices.iter().map(|index| PieceIndex(*index)).collect()
    }

    #[test]
    fn a_long_file_stays_for_one_record_more() {
        let mut behind = Behind::with_memory(5 * GIB, 8 * GIB);
        assert_eq!(behind.recorded(pieces(&[1, 2, 7])), []);
        assert_eq!(behind.recorded(pieces(&[3])), PieceRange::joined(pieces(&[1, 2, 7])));
        assert_eq!(behind.recorded(Vec::new()), [PieceRange::single(PieceIndex(3))]);
    }

    #[test]
    fn a_file_of_half_the_memory_stays() {
        let mut behind = Behind::with_memory(4 * GIB, 8 * GIB);
        behind.recorded(pieces(&[1]));
        assert_eq!(behind.recorded(pieces(&[2])), []);
        assert!(behind.recorded.is_empty(), "nothing is remembered for nothing");
    }

    #[test]
    fn a_machine_has_memory() {
        assert!(!Behind::new(1).is_long);
        assert!(Behind::new(u64::MAX).is_long);
    }
}
