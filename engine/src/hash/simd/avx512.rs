//! SHA-1 of sixteen streams at once by AVX-512: word i of all streams is in one register, one stream a lane.
//!
//! With two states a stream (a piece's own digest and its link) one load, one transposition and one message
//! schedule serve both; sixteen words of schedule and ten of state still fit the 32 registers.
#![allow(unsafe_code, reason = "vector loads, and calls of functions compiled for AVX-512")]

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_loadu_si512, _mm512_rol_epi32,
    _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4,
    _mm512_storeu_si512, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::{ROUND_CONSTANTS, twenty_rounds};
use crate::hash::block::{Block, State};

/// Streams at once.
const LANES: usize = 16;

/// Prefetch distance in blocks. Sixteen streams are more than the CPU's prefetcher follows (`bench hash`: a
/// fifth faster than without; 4 to 16 are alike).
const PREFETCH_BLOCKS: usize = 8;

/// Truth tables of SHA-1's functions for the ternary instruction: b chooses between c and d; parity;
/// majority.
const CHOOSE: i32 = 0xCA;
const PARITY: i32 = 0x96;
const MAJORITY: i32 = 0xE8;

/// Proof that this CPU has AVX-512 F and BW.
#[derive(Clone, Copy, Debug)]
pub(in crate::hash) struct Avx512(());

impl Avx512 {
    /// Streams at once.
    pub(in crate::hash) const LANES: usize = LANES;

    /// The proof, if this CPU has them.
    pub(in crate::hash) fn detect() -> Option<Avx512> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")).then_some(Avx512(()))
    }

    /// Absorbs sixteen streams of equally many blocks, each into `STATES` states of its own.
    ///
    /// # Panics
    /// When the streams differ in length.
    pub(in crate::hash) fn compress<const STATES: usize>(
        self,
        states: &mut [[State; LANES]; STATES],
        streams: &[&[Block]; LANES],
    ) {
        assert!(streams.iter().all(|stream| stream.len() == streams[0].len()), "lanes end together");
        // SAFETY: `absorb_blocks` needs the features that `detect` found before it made this token, which has
        // no other source; a second way to make one would break this.
        unsafe { absorb_blocks(states, streams) }
    }
}

/// One word of all lanes each.
type Words<const N: usize> = [__m512i; N];

/// Absorbs all blocks of all streams.
#[target_feature(enable = "avx512f,avx512bw")]
fn absorb_blocks<const STATES: usize>(states: &mut [[State; LANES]; STATES], streams: &[&[Block]; LANES]) {
    let mut registers = states.map(|lanes| load_states(&lanes));
    for block in 0..streams[0].len() {
        let words = load_words(streams, block);
        absorb_block(&mut registers, words);
    }
    for (state, lanes) in registers.iter().zip(states) {
        store_states(state, lanes);
    }
}

/// The states of all lanes in registers, one word a register.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_states(lanes: &[State; LANES]) -> Words<5> {
    std::array::from_fn(|word| {
        let column = lanes.map(|state| state[word]);
        // SAFETY: the load reads 64 bytes of any alignment; a column is sixteen words of four.
        unsafe { _mm512_loadu_si512(column.as_ptr().cast()) }
    })
}

/// Writes registers back to the states of all lanes.
#[target_feature(enable = "avx512f,avx512bw")]
fn store_states(registers: &Words<5>, lanes: &mut [State; LANES]) {
    for (word, register) in registers.iter().enumerate() {
        let mut column = [0_u32; LANES];
        // SAFETY: the store writes 64 bytes of any alignment; a column is sixteen words of four.
        unsafe { _mm512_storeu_si512(column.as_mut_ptr().cast(), *register) };
        for (state, value) in lanes.iter_mut().zip(column) {
            state[word] = value;
        }
    }
}

/// The sixteen words of one block of all streams: loaded one stream a register, put in the machine's byte
/// order, and transposed to one word a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_words(streams: &[&[Block]; LANES], block: usize) -> Words<16> {
    let swap = _mm512_set4_epi32(0x0C0D_0E0F, 0x0809_0A0B, 0x0405_0607, 0x0001_0203);
    let mut rows = [_mm512_setzero_si512(); LANES];
    for (row, stream) in rows.iter_mut().zip(streams) {
        let ahead = stream.as_ptr().wrapping_add(block + PREFETCH_BLOCKS);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        // SAFETY: the load reads 64 bytes of any alignment, and a block has exactly 64; the index was
        // checked.
        let bytes = unsafe { _mm512_loadu_si512(stream[block].as_ptr().cast()) };
        *row = _mm512_shuffle_epi8(bytes, swap);
    }
    transpose_rows(rows)
}

/// Transposes 16 rows of 16 words: pairs of words, then of pairs, then of quarters of registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose_rows(rows: Words<16>) -> Words<16> {
    // Group g holds rows 4g to 4g + 3. After the two steps its register k has, in quarter q, word 4q + k of
    // those rows.
    let mut quads = [[_mm512_setzero_si512(); 4]; 4];
    for (quad, group) in quads.iter_mut().zip(rows.as_chunks::<4>().0) {
        let [a, b, c, d] = *group;
        let (low_ab, high_ab) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low_cd, high_cd) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *quad = [
            _mm512_unpacklo_epi64(low_ab, low_cd),
            _mm512_unpackhi_epi64(low_ab, low_cd),
            _mm512_unpacklo_epi64(high_ab, high_cd),
            _mm512_unpackhi_epi64(high_ab, high_cd),
        ];
    }
    let mut words = [_mm512_setzero_si512(); 16];
    for k in 0..4 {
        let [a, b, c, d] = [quads[0][k], quads[1][k], quads[2][k], quads[3][k]];
        let (even_ab, odd_ab) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xDD>(a, b));
        let (even_cd, odd_cd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xDD>(c, d));
        words[k] = _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd);
        words[4 + k] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
        words[8 + k] = _mm512_shuffle_i32x4::<0xDD>(even_ab, even_cd);
        words[12 + k] = _mm512_shuffle_i32x4::<0xDD>(odd_ab, odd_cd);
    }
    words
}

/// One round of one state; `word` includes the schedule's word and the round's constant.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn absorb_round<const FUNCTION: i32>(state: Words<5>, word: __m512i) -> Words<5> {
    let [a, b, c, d, e] = state;
    let mixed = _mm512_ternarylogic_epi32::<FUNCTION>(b, c, d);
    let sum = _mm512_add_epi32(_mm512_add_epi32(e, word), _mm512_add_epi32(mixed, _mm512_rol_epi32::<5>(a)));
    [sum, a, _mm512_rol_epi32::<30>(b), c, d]
}

/// Eighty rounds over one block of all streams.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn absorb_block<const STATES: usize>(states: &mut [Words<5>; STATES], mut w: Words<16>) {
    let mut now = *states;
    let [k0, k1, k2, k3] = ROUND_CONSTANTS.map(|constant| _mm512_set1_epi32(constant.cast_signed()));
    macro_rules! step {
        ($t:expr, $function:ident, $constant:ident) => {
            if $t >= 16 {
                let (newer, older) = (w[($t + 13) % 16], w[($t + 2) % 16]);
                let three = _mm512_ternarylogic_epi32::<PARITY>(newer, w[($t + 8) % 16], older);
                w[$t % 16] = _mm512_rol_epi32::<1>(_mm512_xor_si512(three, w[$t % 16]));
            }
            let word = _mm512_add_epi32(w[$t % 16], $constant);
            for state in &mut now {
                *state = absorb_round::<$function>(*state, word);
            }
        };
    }
    twenty_rounds!(step, 0, CHOOSE, k0);
    twenty_rounds!(step, 20, PARITY, k1);
    twenty_rounds!(step, 40, MAJORITY, k2);
    twenty_rounds!(step, 60, PARITY, k3);
    for (state, added) in states.iter_mut().zip(now) {
        for (word, added) in state.iter_mut().zip(added) {
            *word = _mm512_add_epi32(*word, added);
        }
    }
}
