//! Offsets and lengths of pieces in a file: the only module that rounds bytes to pieces.
//!
//! A file of n pieces is longer than n - 1 pieces, and at most n pieces long. A file of 0 bytes has no piece.

use std::ops::Range;

use super::limits::FILE_PIECES_MAX;
use super::units::{PIECE_BYTES, PieceCount, PieceIndex, PieceRange};

/// Longest file, in bytes: its bit field still fits an `Opened`.
pub const MAX_FILE_BYTES: u64 = FILE_PIECES_MAX as u64 * PIECE_BYTES as u64;

/// Layout of one file in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    length: u64,
}

/// The length is more than a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes are more than the {MAX_FILE_BYTES} bytes that a file may have")]
pub struct FileTooLong {
    /// The refused length, in bytes.
    pub length: u64,
}

impl Geometry {
    /// The layout of a file of `length` bytes.
    ///
    /// # Errors
    /// [`FileTooLong`] past [`MAX_FILE_BYTES`].
    pub fn new(length: u64) -> Result<Geometry, FileTooLong> {
        if length > MAX_FILE_BYTES { Err(FileTooLong { length }) } else { Ok(Geometry { length }) }
    }

    /// The longest file of `pieces` pieces: assumed while the length is not known.
    #[must_use]
    pub fn longest(pieces: PieceCount) -> Geometry {
        assert!(pieces.0 <= FILE_PIECES_MAX, "a manifest bounds the number of pieces");
        Geometry { length: u64::from(pieces.0) * u64::from(PIECE_BYTES) }
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn length(self) -> u64 {
        self.length
    }

    /// Number of pieces; 0 for the empty file.
    #[must_use]
    pub fn pieces(self) -> PieceCount {
        let count = self.length.div_ceil(u64::from(PIECE_BYTES));
        PieceCount(u32::try_from(count).expect("`new` and `longest` bound the count"))
    }

    /// The last piece; `None` for the empty file.
    #[must_use]
    pub fn last(self) -> Option<PieceIndex> {
        self.pieces().0.checked_sub(1).map(PieceIndex)
    }

    /// Whether `index` is a piece of this file.
    #[must_use]
    pub fn contains(self, index: PieceIndex) -> bool {
        index.0 < self.pieces().0
    }

    /// Whether all pieces of the run are in this file.
    #[must_use]
    pub fn contains_range(self, range: PieceRange) -> bool {
        self.contains(range.last())
    }

    /// Offset of a piece from the start of the file, in bytes.
    #[must_use]
    pub fn offset(self, index: PieceIndex) -> u64 {
        u64::from(index.0) * u64::from(PIECE_BYTES)
    }

    /// Length of a piece in bytes: [`PIECE_BYTES`] for all but the last.
    ///
    /// # Panics
    /// When the file has no such piece. Callers check untrusted indices with [`Geometry::contains`].
    #[must_use]
    pub fn piece_len(self, index: PieceIndex) -> u32 {
        assert!(self.contains(index), "piece {index} of a file of {} pieces", self.pieces());
        let rest = self.length - self.offset(index);
        u32::try_from(rest.min(u64::from(PIECE_BYTES))).expect("at most a piece")
    }

    /// End of a piece, in bytes from the start of the file.
    ///
    /// # Panics
    /// As [`Geometry::piece_len`].
    #[must_use]
    pub fn end(self, index: PieceIndex) -> u64 {
        self.offset(index) + u64::from(self.piece_len(index))
    }

    /// The bytes of the file that a run of pieces covers.
    ///
    /// # Panics
    /// As [`Geometry::piece_len`].
    #[must_use]
    pub fn bytes(self, run: PieceRange) -> Range<u64> {
        self.offset(run.first())..self.end(run.last())
    }

    /// Whether a file of `length` bytes has as many pieces as this one: all that can be checked when the uploader gave no
    /// length.
    #[must_use]
    pub fn same_pieces(self, length: u64) -> bool {
        Geometry::new(length).is_ok_and(|other| other.pieces() == self.pieces())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = PIECE_BYTES as u64;

    /// Sizes that are easy to round wrong, each with its number of pieces and the length of its last piece.
    const INTERESTING: [(u64, u32, Option<u32>); 12] = [
        (0, 0, None),                                  // empty
        (1, 1, Some(1)),                               // the shortest piece
        (PIECE - 1, 1, Some(PIECE_BYTES - 1)),         // one short of a piece
        (PIECE, 1, Some(PIECE_BYTES)),                 // exactly one
        (PIECE + 1, 2, Some(1)),                       // the shortest second piece
        ((2 << 30) - 1, 4_096, Some(PIECE_BYTES - 1)), // around i32
        (2 << 30, 4_096, Some(PIECE_BYTES)),
        ((2 << 30) + 1, 4_097, Some(1)),
        ((4 << 30) - 1, 8_192, Some(PIECE_BYTES - 1)), // around u32
        (4 << 30, 8_192, Some(PIECE_BYTES)),
        ((4 << 30) + 1, 8_193, Some(1)),
        (MAX_FILE_BYTES, FILE_PIECES_MAX, Some(PIECE_BYTES)), // the longest file
    ];

    #[test]
    fn files_divide_into_pieces() {
        for (length, pieces, last_len) in INTERESTING {
            let geometry = Geometry::new(length).unwrap();
            assert_eq!(geometry.pieces(), PieceCount(pieces), "{length}");
            assert_eq!(geometry.last().map(|last| geometry.piece_len(last)), last_len, "{length}");
            if let Some(last) = geometry.last() {
                assert_eq!(geometry.end(last), length);
                let all = PieceRange::new(PieceIndex(0), last).unwrap();
                assert_eq!(geometry.bytes(all), 0..length);
                assert_eq!(geometry.bytes(PieceRange::single(last)), geometry.offset(last)..length);
            }
        }
        assert_eq!(Geometry::new(MAX_FILE_BYTES + 1), Err(FileTooLong { length: MAX_FILE_BYTES + 1 }));
    }

    #[test]
    fn a_length_is_plausible_when_it_has_the_same_number_of_pieces() {
        let two = Geometry::longest(PieceCount(2));
        assert!(!two.same_pieces(PIECE));
        assert!(two.same_pieces(PIECE + 1));
        assert!(two.same_pieces(2 * PIECE));
        assert!(!two.same_pieces(2 * PIECE + 1));
    }
}
