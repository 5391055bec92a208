//! A set of pieces of one file, one bit a piece.
//!
//! Bits past the last piece are zero, and `count` is the number of set bits. The bit field of a 1 TiB file has 256 KiB.

use super::units::{PieceCount, PieceIndex, PieceRange};

const WORD_BITS: u32 = u64::BITS;

/// A set of pieces of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    words: Vec<u64>,
    pieces: PieceCount,
    count: u32,
}

/// Why bytes are not a bit field of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBitfield {
    /// The number of bytes does not fit the number of pieces.
    #[error("a bit field of {bytes} bytes does not fit {pieces} pieces")]
    Length {
        /// Bytes received.
        bytes: usize,
        /// Pieces of the file.
        pieces: PieceCount,
    },
    /// A bit is set past the last piece.
    #[error("a bit is set past the last piece")]
    PastEnd,
}

impl Bitfield {
    /// The set without any piece.
    #[must_use]
    pub fn empty(pieces: PieceCount) -> Bitfield {
        let words = pieces.0.div_ceil(WORD_BITS) as usize;
        Bitfield { words: vec![0; words], pieces, count: 0 }
    }

    /// The set of all pieces.
    #[must_use]
    pub fn full(pieces: PieceCount) -> Bitfield {
        let mut all = Bitfield::empty(pieces);
        all.words.fill(u64::MAX);
        let used = pieces.0 % WORD_BITS;
        if used != 0 {
            *all.words.last_mut().expect("a remainder needs a word") = (1 << used) - 1;
        }
        all.count = pieces.0;
        all
    }

    /// Reads the wire form: piece 0 is the lowest bit of the first byte.
    ///
    /// # Errors
    /// [`BadBitfield`] when the bytes are not a bit field of `pieces` pieces.
    pub fn from_bytes(bytes: &[u8], pieces: PieceCount) -> Result<Bitfield, BadBitfield> {
        if bytes.len() != pieces.0.div_ceil(8) as usize {
            return Err(BadBitfield::Length { bytes: bytes.len(), pieces });
        }
        let mut field = Bitfield::empty(pieces);
        for (word, bytes) in field.words.iter_mut().zip(bytes.chunks(8)) {
            let mut full = [0; 8];
            full[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(full);
        }
        let used = pieces.0 % WORD_BITS;
        if used != 0 && field.words.last().is_some_and(|last| last >> used != 0) {
            return Err(BadBitfield::PastEnd);
        }
        field.count = field.words.iter().map(|word| word.count_ones()).sum();
        assert!(field.count <= pieces.0, "bits past the last piece are refused above");
        Ok(field)
    }

    /// The wire form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.pieces.0.div_ceil(8) as usize);
        bytes
    }

    /// Number of pieces of the file.
    #[must_use]
    pub fn pieces(&self) -> PieceCount {
        self.pieces
    }

    /// Number of pieces in the set.
    #[must_use]
    pub fn count(&self) -> PieceCount {
        PieceCount(self.count)
    }

    /// Whether every piece is in the set.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == self.pieces.0
    }

    /// Whether the piece is in the set; `false` for a piece that the file does not have.
    #[must_use]
    pub fn has(&self, index: PieceIndex) -> bool {
        index.0 < self.pieces.0 && self.words[word_of(index)] & bit_of(index) != 0
    }

    /// Adds a piece. Returns whether it was new.
    ///
    /// # Panics
    /// When the file has no such piece.
    pub fn insert(&mut self, index: PieceIndex) -> bool {
        assert!(index.0 < self.pieces.0, "piece {index} of {}", self.pieces);
        let word = &mut self.words[word_of(index)];
        let new = *word & bit_of(index) == 0;
        *word |= bit_of(index);
        self.count += u32::from(new);
        new
    }

    /// Adds a run of pieces, 64 at a time, and calls `new` with each that was not in the set.
    ///
    /// # Panics
    /// When the file does not have all of them.
    pub fn insert_range(&mut self, range: PieceRange, mut new: impl FnMut(PieceIndex)) {
        let (first, last) = (range.first(), range.last());
        assert!(last.0 < self.pieces.0, "pieces up to {last} of {}", self.pieces);
        for at in word_of(first)..=word_of(last) {
            let from = if at == word_of(first) { first.0 % WORD_BITS } else { 0 };
            let to = if at == word_of(last) { last.0 % WORD_BITS } else { WORD_BITS - 1 };
            let asked = (u64::MAX << from) & (u64::MAX >> (WORD_BITS - 1 - to));
            let mut added = asked & !self.words[at];
            self.words[at] |= added;
            self.count += added.count_ones();
            let start = u32::try_from(at).expect("a word holds 64 of at most 2^32 pieces") * WORD_BITS;
            while added != 0 {
                new(PieceIndex(start + added.trailing_zeros()));
                added &= added - 1;
            }
        }
        assert!(self.count <= self.pieces.0, "each piece is counted once");
    }

    /// Removes a piece. Returns whether it was in the set.
    pub fn remove(&mut self, index: PieceIndex) -> bool {
        let was = self.has(index);
        if was {
            self.words[word_of(index)] &= !bit_of(index);
            self.count -= 1;
        }
        was
    }

    /// The first piece at or after `from` that is in both sets.
    ///
    /// # Panics
    /// When the sets have different numbers of pieces.
    #[must_use]
    pub fn next_common(&self, other: &Bitfield, from: PieceIndex) -> Option<PieceIndex> {
        assert_eq!(self.pieces, other.pieces, "sets of two files");
        let first = word_of(from);
        let mut mask = u64::MAX << (from.0 % WORD_BITS);
        for (at, (a, b)) in self.words.iter().zip(&other.words).enumerate().skip(first) {
            let common = a & b & mask;
            if common != 0 {
                let word = u32::try_from(at).expect("a word holds 64 of at most 2^32 pieces");
                return Some(PieceIndex(word * WORD_BITS + common.trailing_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }

    /// The pieces in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().zip(0u32..).flat_map(|(&word, at)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                (bit < WORD_BITS).then(|| {
                    rest &= rest - 1;
                    PieceIndex(at * WORD_BITS + bit)
                })
            })
        })
    }

    /// The pieces in the set as runs, ascending.
    #[must_use]
    pub fn ranges(&self) -> Vec<PieceRange> {
        PieceRange::from_ascending(self.iter())
    }
}

fn word_of(index: PieceIndex) -> usize {
    (index.0 / WORD_BITS) as usize
}

fn bit_of(index: PieceIndex) -> u64 {
    1 << (index.0 % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bit_field_behaves_like_a_set(pieces in 1u32..300, steps in proptest::collection::vec((any::<bool>(), 0u32..300), 0..200)) {
            let mut field = Bitfield::empty(PieceCount(pieces));
            let mut model = BTreeSet::new();
            for (add, index) in steps {
                let index = PieceIndex(index % pieces);
                if add {
                    prop_assert_eq!(field.insert(index), model.insert(index));
                } else {
                    prop_assert_eq!(field.remove(index), model.remove(&index));
                }
            }
            prop_assert_eq!(field.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(field.count().as_usize(), model.len());
            let all = Bitfield::full(PieceCount(pieces));
            for from in (0..pieces).map(PieceIndex) {
                prop_assert_eq!(field.next_common(&all, from), model.range(from..).next().copied());
            }
            prop_assert_eq!(Bitfield::from_bytes(&field.to_bytes(), PieceCount(pieces)), Ok(field));
        }
    }

    proptest! {
        #[test]
        fn a_run_adds_the_same_as_its_pieces_one_by_one(
            pieces in 1u32..400,
            before in proptest::collection::vec(0u32..400, 0..100),
            runs in proptest::collection::vec((0u32..400, 0u32..400), 1..5),
        ) {
            let mut field = Bitfield::empty(PieceCount(pieces));
            before.iter().for_each(|index| _ = field.insert(PieceIndex(index % pieces)));
            let mut one_by_one = field.clone();
            for (a, b) in runs.into_iter().map(|(a, b)| (a % pieces, b % pieces)) {
                let run = PieceRange::new(PieceIndex(a.min(b)), PieceIndex(a.max(b))).unwrap();
                let mut added = Vec::new();
                field.insert_range(run, |index| added.push(index));
                let expected: Vec<_> = run.indices().filter(|index| one_by_one.insert(*index)).collect();
                prop_assert_eq!(added, expected);
                prop_assert_eq!(&field, &one_by_one);
            }
        }
    }

    #[test]
    fn a_full_set_has_every_piece_and_no_more() {
        for pieces in [0, 1, 8, 63, 64, 65, 300].map(PieceCount) {
            let full = Bitfield::full(pieces);
            assert!(full.is_full());
            assert_eq!(full.iter().count(), pieces.as_usize());
            assert_eq!(Bitfield::from_bytes(&full.to_bytes(), pieces), Ok(full));
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let pieces = PieceCount(9);
        assert_eq!(Bitfield::from_bytes(&[0], pieces), Err(BadBitfield::Length { bytes: 1, pieces }));
        assert_eq!(Bitfield::from_bytes(&[0, 2], pieces), Err(BadBitfield::PastEnd));
        assert!(!Bitfield::full(pieces).has(PieceIndex(9)));
    }
}
