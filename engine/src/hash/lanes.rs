//! Decides which pieces are absorbed together: the only place that chooses between lanes and single streams.
//!
//! ```text
//!   works ─► runs of equally many blocks ─┬─ a full set, or nearly ─► 16 or 8 lanes
//!                                         ├─ two, one state each ───► SHA-NI, interleaved
//!                                         └─ the rest ──────────────► one after the other
//! ```
//!
//! Invariant: only whole blocks are absorbed here. Remaining bytes and padding are up to the caller.

use super::block::{Block, State};
use super::limits::{AVX2_MIN_PIECES, AVX512_MIN_PIECES, MIN_PIECES_WITHOUT_SHA_NI};
use super::simd::{Avx2, Avx512, ShaNi};

/// The block function of single streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum SingleStream {
    /// SHA instructions.
    ShaNi(ShaNi),
    /// `sha1-asm`.
    Asm,
}

impl SingleStream {
    /// The faster one that this CPU supports.
    pub(super) fn best() -> SingleStream {
        ShaNi::detect().map_or(SingleStream::Asm, SingleStream::ShaNi)
    }

    /// Absorbs the blocks in order.
    pub(super) fn compress(self, state: &mut State, blocks: &[Block]) {
        match self {
            SingleStream::ShaNi(sha_ni) => sha_ni.compress(state, blocks),
            SingleStream::Asm => sha1_asm::compress(state, blocks),
        }
    }

    /// Absorbs the same blocks into one or two states.
    fn compress_all<const STATES: usize>(self, states: &mut [State; STATES], blocks: &[Block]) {
        match (self, states.as_mut_slice()) {
            (SingleStream::ShaNi(sha_ni), [digest, link]) => {
                let mut both = [*digest, *link];
                sha_ni.compress_both(&mut both, blocks);
                [*digest, *link] = both;
            }
            (_, states) => states.iter_mut().for_each(|state| self.compress(state, blocks)),
        }
    }
}

/// The block function of many streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum LaneSet {
    /// Sixteen at once.
    Avx512(Avx512),
    /// Eight at once.
    Avx2(Avx2),
    /// No lanes: single streams only.
    None,
}

/// The whole blocks of one piece, to be absorbed into one state (its digest) or two (its digest and link).
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockWork<'a, const STATES: usize> {
    /// The states, before and after.
    pub(super) states: [State; STATES],
    pub(super) blocks: &'a [Block],
}

/// Absorbs the blocks of all works, grouped so that lanes are full.
pub(super) fn absorb_works<const STATES: usize>(
    wide: LaneSet,
    single: SingleStream,
    works: &mut [BlockWork<'_, STATES>],
) {
    let mut order: Vec<&mut BlockWork<'_, STATES>> = works.iter_mut().collect();
    order.sort_by_key(|work| work.blocks.len());
    for run in order.chunk_by_mut(|a, b| a.blocks.len() == b.blocks.len()) {
        absorb_run(wide, single, run);
    }
}

/// Absorbs works of equally many blocks.
fn absorb_run<const STATES: usize>(
    wide: LaneSet,
    single: SingleStream,
    run: &mut [&mut BlockWork<'_, STATES>],
) {
    let (lanes, usual_min) = match wide {
        LaneSet::Avx512(_) => (Avx512::LANES, AVX512_MIN_PIECES),
        LaneSet::Avx2(_) => (Avx2::LANES, AVX2_MIN_PIECES),
        LaneSet::None => return absorb_singly(single, run),
    };
    let min = if matches!(single, SingleStream::Asm) { MIN_PIECES_WITHOUT_SHA_NI } else { usual_min };
    let min = min[STATES - 1];
    for set in run.chunks_mut(lanes) {
        match wide {
            _ if set.len() < min => absorb_singly(single, set),
            LaneSet::Avx512(avx512) => absorb_set(set, |states, streams| avx512.compress(states, streams)),
            LaneSet::Avx2(avx2) => absorb_set(set, |states, streams| avx2.compress(states, streams)),
            LaneSet::None => {}
        }
    }
}

/// Absorbs up to a set of lanes. Unused lanes repeat the first work, whose blocks are loaded anyway.
fn absorb_set<const STATES: usize, const LANES: usize>(
    set: &mut [&mut BlockWork<'_, STATES>],
    compress: impl FnOnce(&mut [[State; LANES]; STATES], &[&[Block]; LANES]),
) {
    let of_lane = |lane: usize| if lane < set.len() { lane } else { 0 };
    let streams: [&[Block]; LANES] = std::array::from_fn(|lane| set[of_lane(lane)].blocks);
    let mut states: [[State; LANES]; STATES] =
        std::array::from_fn(|state| std::array::from_fn(|lane| set[of_lane(lane)].states[state]));
    compress(&mut states, &streams);
    for (lane, work) in set.iter_mut().enumerate() {
        work.states = std::array::from_fn(|state| states[state][lane]);
    }
}

/// Absorbs works of equally many blocks without lanes: two at once where that is faster.
fn absorb_singly<const STATES: usize>(single: SingleStream, run: &mut [&mut BlockWork<'_, STATES>]) {
    for pair in run.chunks_mut(2) {
        match (single, pair) {
            // Interleave only works of one state: two states already fill the instructions' latency, and four
            // would not fit the registers.
            (SingleStream::ShaNi(sha_ni), [first, second]) if STATES == 1 => {
                let mut states = [first.states[0], second.states[0]];
                sha_ni.compress_two(&mut states, [first.blocks, second.blocks]);
                [first.states[0], second.states[0]] = states;
            }
            (_, pair) => pair.iter_mut().for_each(|work| single.compress_all(&mut work.states, work.blocks)),
        }
    }
}
