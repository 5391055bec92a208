//! Digests of pieces: one, or many at once in lanes.
//!
//! Invariant: every kind of hasher computes SHA-1; the kind only decides the speed.

use super::block::{self, PaddedTail, State};
use super::kind::{HashKind, UnsupportedKind};
use super::lanes::{self, BlockWork, LaneSet, SingleStream};
use super::simd::{Avx2, Avx512, ShaNi};
use crate::proto::units::Digest;

/// A hashing method that this CPU supports. Copies are free; threads share it.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    kind: HashKind,
    wide: LaneSet,
    single: SingleStream,
}

impl Hasher {
    /// A hasher of this kind.
    ///
    /// # Errors
    /// [`UnsupportedKind`] when the CPU lacks the instructions.
    pub fn new(kind: HashKind) -> Result<Hasher, UnsupportedKind> {
        let (wide, single) = match kind {
            HashKind::Avx512 => (Avx512::detect().map(LaneSet::Avx512), Some(SingleStream::best())),
            HashKind::Avx2 => (Avx2::detect().map(LaneSet::Avx2), Some(SingleStream::best())),
            HashKind::ShaNi => (Some(LaneSet::None), ShaNi::detect().map(SingleStream::ShaNi)),
            HashKind::Asm => (Some(LaneSet::None), Some(SingleStream::Asm)),
        };
        match (wide, single) {
            (Some(wide), Some(single)) => Ok(Hasher { kind, wide, single }),
            _ => Err(UnsupportedKind { kind }),
        }
    }

    /// The fastest hasher that this CPU supports.
    #[must_use]
    pub fn best() -> Hasher {
        Hasher::new(HashKind::best()).expect("the best kind is a supported one")
    }

    /// The hashing method.
    #[must_use]
    pub fn kind(self) -> HashKind {
        self.kind
    }

    /// SHA-1 of the bytes.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> Digest {
        let (blocks, rest) = block::split_blocks(bytes);
        let mut state = block::initial_state();
        self.single.compress(&mut state, blocks);
        self.finish_message(state, rest, bytes.len() as u64)
    }

    /// SHA-1 of each of the pieces, in their order. Pieces of equal length share lanes; others are hashed
    /// alone.
    #[must_use]
    pub fn digest_many(&self, pieces: &[&[u8]]) -> Vec<Digest> {
        let mut works: Vec<BlockWork<'_, 1>> = pieces
            .iter()
            .map(|piece| BlockWork { states: [block::initial_state()], blocks: block::split_blocks(piece).0 })
            .collect();
        self.absorb_all(&mut works);
        let ended = |(work, piece): (&BlockWork<'_, 1>, &&[u8])| {
            self.finish_message(work.states[0], block::split_blocks(piece).1, piece.len() as u64)
        };
        works.iter().zip(pieces).map(ended).collect()
    }

    /// The block function of single streams.
    pub(super) fn single(&self) -> SingleStream {
        self.single
    }

    /// Absorbs whole blocks, in lanes where that is faster.
    pub(super) fn absorb_all<const STATES: usize>(&self, works: &mut [BlockWork<'_, STATES>]) {
        lanes::absorb_works(self.wide, self.single, works);
    }

    /// Finishes a message of `message_bytes` in all; `rest` are its bytes after the last whole block.
    pub(super) fn finish_message(&self, mut state: State, rest: &[u8], message_bytes: u64) -> Digest {
        self.single.compress(&mut state, PaddedTail::new(rest, message_bytes).blocks());
        block::state_to_digest(state)
    }
}
