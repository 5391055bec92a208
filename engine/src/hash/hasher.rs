//! Digests of pieces: one, or many at once in lanes.
//!
//! Invariant: what a hasher answers is SHA-1, whatever its kind; the kind decides the speed alone.

use super::block::{self, State, Tail};
use super::kind::{HashKind, Unsupported};
use super::lanes::{self, Single, Wide, Work};
use super::simd::{Avx2, Avx512, ShaNi};
use crate::proto::units::Digest;

/// A way of hashing that this CPU has. Copies are free; threads share it.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    kind: HashKind,
    wide: Wide,
    single: Single,
}

impl Hasher {
    /// A hasher of this kind.
    ///
    /// # Errors
    /// [`Unsupported`] when the CPU lacks the instructions.
    pub fn new(kind: HashKind) -> Result<Hasher, Unsupported> {
        let (wide, single) = match kind {
            HashKind::Avx512 => (Avx512::detect().map(Wide::Avx512), Some(Single::best())),
            HashKind::Avx2 => (Avx2::detect().map(Wide::Avx2), Some(Single::best())),
            HashKind::ShaNi => (Some(Wide::None), ShaNi::detect().map(Single::ShaNi)),
            HashKind::Asm => (Some(Wide::None), Some(Single::Asm)),
        };
        match (wide, single) {
            (Some(wide), Some(single)) => Ok(Hasher { kind, wide, single }),
            _ => Err(Unsupported { kind }),
        }
    }

    /// The fastest hasher that this CPU has.
    #[must_use]
    pub fn best() -> Hasher {
        Hasher::new(HashKind::best()).expect("the best kind is a supported one")
    }

    /// How this hasher works.
    #[must_use]
    pub fn kind(self) -> HashKind {
        self.kind
    }

    /// SHA-1 of the bytes.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> Digest {
        let (blocks, rest) = block::split(bytes);
        let mut state = block::initial();
        self.single.compress(&mut state, blocks);
        self.end(state, rest, bytes.len() as u64)
    }

    /// SHA-1 of each of the pieces, in their order. Pieces of equal length share lanes; others go by themselves.
    #[must_use]
    pub fn digest_many(&self, pieces: &[&[u8]]) -> Vec<Digest> {
        let mut works: Vec<Work<'_, 1>> = pieces
            .iter()
            .map(|piece| Work { states: [block::initial()], blocks: block::split(piece).0 })
            .collect();
        self.absorb(&mut works);
        let ended = |(work, piece): (&Work<'_, 1>, &&[u8])| {
            self.end(work.states[0], block::split(piece).1, piece.len() as u64)
        };
        works.iter().zip(pieces).map(ended).collect()
    }

    /// The block function of single streams.
    pub(super) fn single(&self) -> Single {
        self.single
    }

    /// Absorbs whole blocks, in lanes where they pay.
    pub(super) fn absorb<const STATES: usize>(&self, works: &mut [Work<'_, STATES>]) {
        lanes::absorb(self.wide, self.single, works);
    }

    /// Ends a message of `message_bytes` in all, `rest` being what fills no block.
    pub(super) fn end(&self, mut state: State, rest: &[u8], message_bytes: u64) -> Digest {
        self.single.compress(&mut state, Tail::new(rest, message_bytes).blocks());
        block::to_digest(state)
    }
}
