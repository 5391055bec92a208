//! Page cache eviction for long downloads: only the most recent gigabytes stay cached, so that one huge file
//! does not displace everything that other programs have there.
//!
//! ```text
//!   written ──► recorded ──► next record ──► dropped from the cache
//!               └── other leechers may still ask for it
//! ```
//!
//! Only recorded pieces are dropped, since those are on the disk. A file that fits well into memory stays
//! cached: it will be shared next.

use super::limits::CACHED_MEMORY_SHARE;
use super::memory;
use crate::proto::units::{PieceIndex, PieceRange};

/// The pieces of one download that may leave the page cache.
#[derive(Debug)]
pub struct CacheEviction {
    is_long: bool,
    last_recorded: Vec<PieceIndex>,
}

impl CacheEviction {
    /// For a file of `length` bytes, judged by the memory that this program may use.
    #[must_use]
    pub fn new(length: u64) -> CacheEviction {
        CacheEviction::with_memory(length, memory::usable_memory_bytes())
    }

    fn with_memory(length: u64, memory: u64) -> CacheEviction {
        CacheEviction { is_long: length > memory / CACHED_MEMORY_SHARE, last_recorded: Vec::new() }
    }

    /// Remembers the pieces of a new record, ascending, and returns the ranges of the previous one, which may
    /// be dropped.
    pub fn evictable_after_record(&mut self, pieces: Vec<PieceIndex>) -> Vec<PieceRange> {
        if !self.is_long {
            return Vec::new();
        }
        PieceRange::from_ascending(std::mem::replace(&mut self.last_recorded, pieces))
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
    fn a_long_file_is_dropped_one_record_later() {
        let mut behind = CacheEviction::with_memory(5 * GIB, 8 * GIB);
        assert_eq!(behind.evictable_after_record(pieces(&[1, 2, 7])), []);
        assert_eq!(
            behind.evictable_after_record(pieces(&[3])),
            PieceRange::from_ascending(pieces(&[1, 2, 7]))
        );
        assert_eq!(behind.evictable_after_record(Vec::new()), [PieceRange::single(PieceIndex(3))]);
    }

    #[test]
    fn a_file_of_half_the_memory_stays_cached() {
        let mut behind = CacheEviction::with_memory(4 * GIB, 8 * GIB);
        behind.evictable_after_record(pieces(&[1]));
        assert_eq!(behind.evictable_after_record(pieces(&[2])), []);
        assert!(behind.last_recorded.is_empty(), "a short file's pieces are not stored");
    }

    #[test]
    fn usable_memory_is_positive() {
        assert!(!CacheEviction::new(1).is_long);
        assert!(CacheEviction::new(u64::MAX).is_long);
    }
}
