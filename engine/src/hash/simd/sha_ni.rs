//! SHA-1 by the CPU's SHA instructions: one stream, two streams interleaved, or two states over one stream.
//!
//! One instruction does four rounds, but its result takes several cycles; a second state fills them. Two
//! states over the same blocks also share the loads and the message schedule.
#![allow(unsafe_code, reason = "vector loads, and calls of functions compiled for SHA instructions")]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32,
    _mm_shuffle_epi8, _mm_xor_si128,
};

use crate::hash::block::{Block, State};

/// Proof that this CPU has SHA, SSSE3 and SSE4.1 instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::hash) struct ShaNi(());

impl ShaNi {
    /// The proof, if this CPU has them.
    pub(in crate::hash) fn detect() -> Option<ShaNi> {
        let found = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        found.then_some(ShaNi(()))
    }

    /// Absorbs the blocks in order.
    pub(in crate::hash) fn compress(self, state: &mut State, blocks: &[Block]) {
        // SAFETY: `absorb_blocks` needs the features that `detect` found before it made this token, which has
        // no other source; a second way to make one would break this.
        let [after] = unsafe { absorb_blocks::<1, 1>([*state], [blocks]) };
        *state = after;
    }

    /// Absorbs two streams of equally many blocks, each into its own state.
    ///
    /// # Panics
    /// When one stream is longer.
    pub(in crate::hash) fn compress_two(self, states: &mut [State; 2], streams: [&[Block]; 2]) {
        assert_eq!(streams[0].len(), streams[1].len(), "interleaved streams end together");
        // SAFETY: as in `compress`: the token is the proof of the features.
        *states = unsafe { absorb_blocks::<2, 2>(*states, streams) };
    }

    /// Absorbs one stream into two states, with one load and one schedule for both.
    pub(in crate::hash) fn compress_both(self, states: &mut [State; 2], blocks: &[Block]) {
        // SAFETY: as in `compress`: the token is the proof of the features.
        *states = unsafe { absorb_blocks::<2, 1>(*states, [blocks]) };
    }
}

/// A state in the instructions' layout: four words in one register, the fifth in the top of another.
#[derive(Clone, Copy)]
struct StateRegisters {
    abcd: __m128i,
    e: __m128i,
}

/// Absorbs `STREAMS` streams of equal length into `STATES` states: state i takes stream i, or the only one.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn absorb_blocks<const STATES: usize, const STREAMS: usize>(
    states: [State; STATES],
    streams: [&[Block]; STREAMS],
) -> [State; STATES] {
    let mut registers = states.map(|state| load_state(state));
    for block in 0..streams[0].len() {
        let mut words = [[_mm_setzero_si128(); 4]; STREAMS];
        for (words, stream) in words.iter_mut().zip(streams) {
            *words = load_words(&stream[block]);
        }
        absorb_block(&mut registers, words);
    }
    registers.map(|state| store_state(state))
}

/// A state's words in registers.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load_state(state: State) -> StateRegisters {
    let [a, b, c, d, e] = state.map(u32::cast_signed);
    StateRegisters { abcd: _mm_set_epi32(a, b, c, d), e: _mm_set_epi32(e, 0, 0, 0) }
}

/// The words of a state in registers.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn store_state(state: StateRegisters) -> State {
    let a = _mm_extract_epi32::<3>(state.abcd);
    let b = _mm_extract_epi32::<2>(state.abcd);
    let c = _mm_extract_epi32::<1>(state.abcd);
    let d = _mm_extract_epi32::<0>(state.abcd);
    [a, b, c, d, _mm_extract_epi32::<3>(state.e)].map(i32::cast_unsigned)
}

/// The sixteen big-endian words of a block, four to a register, the first on top.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load_words(block: &Block) -> [__m128i; 4] {
    let reversed = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0A0B_0C0D_0E0F);
    let mut words = [_mm_setzero_si128(); 4];
    for (word, quarter) in words.iter_mut().zip(block.as_chunks::<16>().0) {
        // SAFETY: the load reads 16 bytes of any alignment, and a quarter of a block has exactly 16.
        let bytes = unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) };
        *word = _mm_shuffle_epi8(bytes, reversed);
    }
    words
}

/// Eighty rounds over one block a stream.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn absorb_block<const STATES: usize, const STREAMS: usize>(
    states: &mut [StateRegisters; STATES],
    mut words: [[__m128i; 4]; STREAMS],
) {
    let before = *states;
    let mut now = before;
    // The state four rounds ago, whose first word gives the fifth word of the next four rounds.
    let mut earlier = before;
    macro_rules! four_rounds {
        ($quad:expr, $function:literal) => {
            if $quad >= 4 {
                for w in &mut words {
                    let mixed = _mm_xor_si128(
                        _mm_sha1msg1_epu32(w[$quad % 4], w[($quad + 1) % 4]),
                        w[($quad + 2) % 4],
                    );
                    w[$quad % 4] = _mm_sha1msg2_epu32(mixed, w[($quad + 3) % 4]);
                }
            }
            for i in 0..STATES {
                let w = words[i % STREAMS][$quad % 4];
                let e = if $quad == 0 {
                    _mm_add_epi32(now[i].e, w)
                } else {
                    _mm_sha1nexte_epu32(earlier[i].abcd, w)
                };
                earlier[i].abcd = now[i].abcd;
                now[i].abcd = _mm_sha1rnds4_epu32::<$function>(now[i].abcd, e);
            }
        };
    }
    macro_rules! twenty_rounds {
        ($first:expr, $function:literal) => {
            four_rounds!($first, $function);
            four_rounds!($first + 1, $function);
            four_rounds!($first + 2, $function);
            four_rounds!($first + 3, $function);
            four_rounds!($first + 4, $function);
        };
    }
    twenty_rounds!(0, 0);
    twenty_rounds!(5, 1);
    twenty_rounds!(10, 2);
    twenty_rounds!(15, 3);
    for (i, state) in states.iter_mut().enumerate() {
        state.abcd = _mm_add_epi32(now[i].abcd, before[i].abcd);
        state.e = _mm_sha1nexte_epu32(earlier[i].abcd, before[i].e);
    }
}
