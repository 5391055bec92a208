//! Units of the protocol: pieces, their indices and ranges, and SHA-1 values.
//!
//! Indices and counts have types of their own, so that one cannot be passed for the other. Only
//! [`geometry`](super::geometry) converts between pieces and bytes.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use super::hex::{self, HexDigits};

/// Length of every piece but the last, in bytes: the unit of hashing, requests and verification.
pub const PIECE_BYTES: u32 = 524_288;

/// A number of bytes for messages: `1.1 GiB`; whole bytes below 1 KiB.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let places = usize::from(bytes >= 1 << 10);
    humansize::format_size(bytes, humansize::BINARY.decimal_places(places).decimal_zeroes(places))
}

/// Index of a piece in its file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PieceIndex(pub u32);

/// A number of pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PieceCount(pub u32);

impl PieceIndex {
    /// The index as a position in a slice.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl PieceCount {
    /// The count as a length of a slice.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// All indices below this count, in order.
    pub fn indices(self) -> impl DoubleEndedIterator<Item = PieceIndex> + use<> {
        (0..self.0).map(PieceIndex)
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PieceCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of consecutive pieces: at least one, and never past index `u32::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceRange {
    first: PieceIndex,
    last: PieceIndex,
}

impl PieceRange {
    /// The run from `first` to `last`, both included; `None` when `last` is before `first`.
    #[must_use]
    pub fn new(first: PieceIndex, last: PieceIndex) -> Option<PieceRange> {
        (first <= last).then_some(PieceRange { first, last })
    }

    /// The run of `count` pieces from `first`; `None` when it is empty or its end passes `u32::MAX`.
    #[must_use]
    pub fn from_count(first: PieceIndex, count: PieceCount) -> Option<PieceRange> {
        let last = first.0.checked_add(count.0.checked_sub(1)?)?;
        Some(PieceRange { first, last: PieceIndex(last) })
    }

    /// A run of one piece.
    #[must_use]
    pub fn single(index: PieceIndex) -> PieceRange {
        PieceRange { first: index, last: index }
    }

    /// First piece of the run.
    #[must_use]
    pub fn first(self) -> PieceIndex {
        self.first
    }

    /// Last piece of the run, itself included.
    #[must_use]
    pub fn last(self) -> PieceIndex {
        self.last
    }

    /// Number of pieces, as `u64` because the run of all indices has 2^32.
    #[must_use]
    pub fn len(self) -> u64 {
        u64::from(self.last.0 - self.first.0) + 1
    }

    /// Always `false`: a run has at least one piece.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// The indices of the run, in order.
    pub fn indices(self) -> impl DoubleEndedIterator<Item = PieceIndex> + use<> {
        (self.first.0..=self.last.0).map(PieceIndex)
    }

    /// Joins ascending indices into the fewest runs.
    #[must_use]
    pub fn from_ascending(ascending: impl IntoIterator<Item = PieceIndex>) -> Vec<PieceRange> {
        let mut runs: Vec<PieceRange> = Vec::new();
        for index in ascending {
            match runs.last_mut() {
                Some(run) if run.last.0.checked_add(1) == Some(index.0) => run.last = index,
                _ => runs.push(PieceRange::single(index)),
            }
        }
        runs
    }
}

/// SHA-1 digest of a piece or of a whole file. Shown and parsed as 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Digest(pub [u8; 20]);

/// State of SHA-1 after a number of whole pieces: five words, big-endian. A link of the chain leads from one to the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ChainState(pub [u8; 20]);

impl ChainState {
    /// SHA-1's initial value (FIPS 180-4, section 5.3.1): the state before the first piece.
    pub const INITIAL: ChainState = ChainState([
        0x67, 0x45, 0x23, 0x01, 0xEF, 0xCD, 0xAB, 0x89, 0x98, 0xBA, 0xDC, 0xFE, 0x10, 0x32, 0x54, 0x76, 0xC3,
        0xD2, 0xE1, 0xF0,
    ]);
}

/// The text is not a SHA-1 value of 40 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-1 value: expected 40 hex digits")]
pub struct InvalidDigest;

/// The text form of both 20-byte values.
macro_rules! hex_form {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(HexDigits::of(&self.0).as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(HexDigits::of(&self.0).as_str())
            }
        }

        impl FromStr for $type {
            type Err = InvalidDigest;

            /// Accepts digits in either case.
            fn from_str(text: &str) -> Result<$type, InvalidDigest> {
                hex::parse_hex(text).map($type).ok_or(InvalidDigest)
            }
        }
    };
}

hex_form!(Digest);
hex_form!(ChainState);

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, last: u32) -> PieceRange {
        PieceRange::new(PieceIndex(first), PieceIndex(last)).unwrap()
    }

    #[test]
    fn empty_runs_and_runs_past_the_last_index_are_refused() {
        assert_eq!(PieceRange::new(PieceIndex(2), PieceIndex(1)), None);
        assert_eq!(PieceRange::from_count(PieceIndex(0), PieceCount(0)), None);
        assert_eq!(PieceRange::from_count(PieceIndex(u32::MAX), PieceCount(2)), None);
        assert_eq!(PieceRange::from_count(PieceIndex(u32::MAX), PieceCount(1)).map(PieceRange::len), Some(1));
        assert_eq!(range(0, u32::MAX).len(), 1 << 32);
    }

    #[test]
    fn indices_join_into_the_fewest_runs() {
        let runs = PieceRange::from_ascending([0, 1, 2, 5, 7, 8].map(PieceIndex));
        assert_eq!(runs, [range(0, 2), range(5, 5), range(7, 8)]);
        assert_eq!(PieceRange::from_ascending([]), []);
    }

    #[test]
    fn digests_parse_either_case_and_show_lower_case() {
        let text = "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709";
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text.to_lowercase());
        for wrong in [
            "",
            "da39",
            "zz39a3ee5e6b4b0d3255bfef95601890afd80709",
            "+a39a3ee5e6b4b0d3255bfef95601890afd80709",
        ] {
            assert_eq!(wrong.parse::<Digest>(), Err(InvalidDigest), "{wrong}");
        }
    }
}
