//! SHA-1 of eight streams at once by AVX2: word i of all streams is in one register, one stream a lane.
//!
//! The schedule does not fit the sixteen registers, so it is on the stack. A second state over the same
//! streams still saves its loads, its transposition and its arithmetic.
#![allow(unsafe_code, reason = "vector loads, and calls of functions compiled for AVX2")]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_or_si256,
    _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use super::{ROUND_CONSTANTS, twenty_rounds};
use crate::hash::block::{Block, State};

/// Streams at once.
const LANES: usize = 8;

/// Proof that this CPU has AVX2.
#[derive(Clone, Copy, Debug)]
pub(in crate::hash) struct Avx2(());

impl Avx2 {
    /// Streams at once.
    pub(in crate::hash) const LANES: usize = LANES;

    /// The proof, if this CPU has AVX2.
    pub(in crate::hash) fn detect() -> Option<Avx2> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }

    /// Absorbs eight streams of equally many blocks, each into `STATES` states of its own.
    ///
    /// # Panics
    /// When the streams differ in length.
    pub(in crate::hash) fn compress<const STATES: usize>(
        self,
        states: &mut [[State; LANES]; STATES],
        streams: &[&[Block]; LANES],
    ) {
        assert!(streams.iter().all(|stream| stream.len() == streams[0].len()), "lanes end together");
        // SAFETY: `absorb_blocks` needs the feature that `detect` found before it made this token, which has
        // no other source; a second way to make one would break this.
        unsafe { absorb_blocks(states, streams) }
    }
}

/// One word of all lanes each.
type Words<const N: usize> = [__m256i; N];

/// Absorbs all blocks of all streams.
#[target_feature(enable = "avx2")]
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
#[target_feature(enable = "avx2")]
fn load_states(lanes: &[State; LANES]) -> Words<5> {
    std::array::from_fn(|word| {
        let column = lanes.map(|state| state[word]);
        // SAFETY: the load reads 32 bytes of any alignment; a column is eight words of four.
        unsafe { _mm256_loadu_si256(column.as_ptr().cast()) }
    })
}

/// Writes registers back to the states of all lanes.
#[target_feature(enable = "avx2")]
fn store_states(registers: &Words<5>, lanes: &mut [State; LANES]) {
    for (word, register) in registers.iter().enumerate() {
        let mut column = [0_u32; LANES];
        // SAFETY: the store writes 32 bytes of any alignment; a column is eight words of four.
        unsafe { _mm256_storeu_si256(column.as_mut_ptr().cast(), *register) };
        for (state, value) in lanes.iter_mut().zip(column) {
            state[word] = value;
        }
    }
}

/// The sixteen words of one block of all streams, one word a register, in the machine's byte order.
#[inline]
#[target_feature(enable = "avx2")]
fn load_words(streams: &[&[Block]; LANES], block: usize) -> Words<16> {
    let (low, high) = (0x0405_0607_0001_0203, 0x0C0D_0E0F_0809_0A0B);
    let swap = _mm256_set_epi64x(high, low, high, low);
    let mut words = [_mm256_setzero_si256(); 16];
    for half in 0..2 {
        let mut rows = [_mm256_setzero_si256(); LANES];
        for (row, stream) in rows.iter_mut().zip(streams) {
            let (halves, _) = stream[block].as_chunks::<32>();
            // SAFETY: the load reads 32 bytes of any alignment, and half a block has exactly 32.
            let bytes = unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) };
            *row = _mm256_shuffle_epi8(bytes, swap);
        }
        words[8 * half..8 * half + 8].copy_from_slice(&transpose_rows(rows));
    }
    words
}

/// Transposes 8 rows of 8 words: pairs of words, then of pairs, then of halves of registers.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_rows(rows: Words<8>) -> Words<8> {
    // Group g holds rows 4g to 4g + 3. After the two steps its register k has, in half h, word 4h + k of
    // those rows.
    let mut quads = [[_mm256_setzero_si256(); 4]; 2];
    for (quad, group) in quads.iter_mut().zip(rows.as_chunks::<4>().0) {
        let [a, b, c, d] = *group;
        let (low_ab, high_ab) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (low_cd, high_cd) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        *quad = [
            _mm256_unpacklo_epi64(low_ab, low_cd),
            _mm256_unpackhi_epi64(low_ab, low_cd),
            _mm256_unpacklo_epi64(high_ab, high_cd),
            _mm256_unpackhi_epi64(high_ab, high_cd),
        ];
    }
    let mut words = [_mm256_setzero_si256(); 8];
    for k in 0..4 {
        words[k] = _mm256_permute2x128_si256::<0x20>(quads[0][k], quads[1][k]);
        words[4 + k] = _mm256_permute2x128_si256::<0x31>(quads[0][k], quads[1][k]);
    }
    words
}

/// Every word rotated left by `LEFT` bits; `RIGHT` is the rest to 32.
#[inline]
#[target_feature(enable = "avx2")]
fn rotate_left<const LEFT: i32, const RIGHT: i32>(words: __m256i) -> __m256i {
    const { assert!(LEFT + RIGHT == 32, "a rotation loses no bit") };
    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(words), _mm256_srli_epi32::<RIGHT>(words))
}

/// Bits of c where b is set, of d elsewhere.
#[inline]
#[target_feature(enable = "avx2")]
fn choose(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d)))
}

/// Bits that are set in an odd number of the three.
#[inline]
#[target_feature(enable = "avx2")]
fn parity(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(b, _mm256_xor_si256(c, d))
}

/// Bits that are set in at least two of the three.
#[inline]
#[target_feature(enable = "avx2")]
fn majority(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_and_si256(b, c), _mm256_and_si256(d, _mm256_or_si256(b, c)))
}

/// Eighty rounds over one block of all streams.
#[inline]
#[target_feature(enable = "avx2")]
fn absorb_block<const STATES: usize>(states: &mut [Words<5>; STATES], mut w: Words<16>) {
    let mut now = *states;
    let [k0, k1, k2, k3] = ROUND_CONSTANTS.map(|constant| _mm256_set1_epi32(constant.cast_signed()));
    macro_rules! step {
        ($t:expr, $function:ident, $constant:ident) => {
            if $t >= 16 {
                let newer = _mm256_xor_si256(w[($t + 13) % 16], w[($t + 8) % 16]);
                let older = _mm256_xor_si256(w[($t + 2) % 16], w[$t % 16]);
                w[$t % 16] = rotate_left::<1, 31>(_mm256_xor_si256(newer, older));
            }
            let word = _mm256_add_epi32(w[$t % 16], $constant);
            for state in &mut now {
                let [a, b, c, d, e] = *state;
                let mixed = _mm256_add_epi32($function(b, c, d), rotate_left::<5, 27>(a));
                let sum = _mm256_add_epi32(_mm256_add_epi32(e, word), mixed);
                *state = [sum, a, rotate_left::<30, 2>(b), c, d];
            }
        };
    }
    twenty_rounds!(step, 0, choose, k0);
    twenty_rounds!(step, 20, parity, k1);
    twenty_rounds!(step, 40, majority, k2);
    twenty_rounds!(step, 60, parity, k3);
    for (state, added) in states.iter_mut().zip(now) {
        for (word, added) in state.iter_mut().zip(added) {
            *word = _mm256_add_epi32(*word, added);
        }
    }
}
