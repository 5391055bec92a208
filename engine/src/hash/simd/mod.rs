//! Second fence for unsafe code: block functions in vector code, which absorb many blocks into one or many
//! states.
//!
//! ```text
//!   Avx512 (16 lanes) ─┐
//!   Avx2    (8 lanes) ─┼─ detect() returns the token; the token's methods are safe
//!   ShaNi (1 or 2)    ─┘
//! ```
//!
//! Invariants. A token exists only on a CPU that has the instructions of its kind, because `detect` is its
//! only source; so its methods may call functions that are compiled for those instructions. Blocks are `[u8;
//! 64]`, so a vector load of a block, of any alignment, stays within it. Nothing here knows of padding,
//! pieces or files.
//!
//! Code that runs once a block consists of loops and of functions with the features of their kernel, without
//! closures: the compiler may leave a closure uninlined where it crosses a function without those features
//! (`array::map`). The state then goes through memory once a block, on the path that limits the sequential
//! pass.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("hashing needs x86-64: its lanes are AVX-512, AVX2 and SHA-NI");

mod avx2;
mod avx512;
mod sha_ni;

pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;
pub(super) use sha_ni::ShaNi;

/// SHA-1's round constants (FIPS 180-4, section 4.2.1), one for each twenty rounds.
const ROUND_CONSTANTS: [u32; 4] = [0x5A82_7999, 0x6ED9_EBA1, 0x8F1B_BCDC, 0xCA62_C1D6];

/// Runs `$step!(t, function, constant)` for twenty rounds from `$first` on. Written out instead of looped, so
/// that every index into the schedule is a constant and the schedule stays in registers.
macro_rules! twenty_rounds {
    ($step:ident, $first:expr, $function:ident, $constant:ident) => {
        twenty_rounds!(@ $step, $first, $function, $constant: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
    };
    (@ $step:ident, $first:expr, $function:ident, $constant:ident: $($round:literal)*) => {
        $($step!($first + $round, $function, $constant);)*
    };
}
use twenty_rounds;
