//! The methods to compute SHA-1, and which of them this CPU supports.
//!
//! Invariant: [`HashKind::best`] is always supported; `asm` runs on every x86-64.

use std::fmt;
use std::str::FromStr;

use super::simd;

/// A method to compute SHA-1, from the fastest to the one that runs everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashKind {
    /// Sixteen pieces at once by AVX-512; few pieces and single streams by the best of the others.
    Avx512,
    /// Eight pieces at once by AVX2; few pieces and single streams by the best of the others.
    Avx2,
    /// The CPU's SHA instructions, two pieces interleaved.
    ShaNi,
    /// The assembly block function of `sha1-asm`, one piece after the other.
    Asm,
}

impl HashKind {
    /// All kinds, from the fastest on.
    pub const ALL: [HashKind; 4] = [HashKind::Avx512, HashKind::Avx2, HashKind::ShaNi, HashKind::Asm];

    /// The name used on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HashKind::Avx512 => "avx512",
            HashKind::Avx2 => "avx2",
            HashKind::ShaNi => "sha_ni",
            HashKind::Asm => "asm",
        }
    }

    /// Whether this CPU has the instructions.
    #[must_use]
    pub fn is_supported(self) -> bool {
        match self {
            HashKind::Avx512 => simd::Avx512::detect().is_some(),
            HashKind::Avx2 => simd::Avx2::detect().is_some(),
            HashKind::ShaNi => simd::ShaNi::detect().is_some(),
            HashKind::Asm => true,
        }
    }

    /// The supported kinds, from the fastest on.
    pub fn supported() -> impl Iterator<Item = HashKind> {
        HashKind::ALL.into_iter().filter(|kind| kind.is_supported())
    }

    /// The fastest supported kind.
    #[must_use]
    pub fn best() -> HashKind {
        HashKind::supported().next().unwrap_or(HashKind::Asm)
    }
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that stands for no hashing method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown hashing method {0:?}: use avx512, avx2, sha_ni or asm")]
pub struct UnknownKind(pub String);

impl FromStr for HashKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<HashKind, UnknownKind> {
        HashKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// The CPU lacks the instructions of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this CPU does not support {kind}: use {}, its fastest method", HashKind::best())]
pub struct UnsupportedKind {
    /// The requested kind.
    pub kind: HashKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_to_their_kinds() {
        for kind in HashKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let unknown = "AVX512".parse::<HashKind>().unwrap_err();
        assert!(unknown.to_string().contains("avx512, avx2, sha_ni or asm"));
    }

    #[test]
    fn the_best_kind_is_a_supported_one() {
        assert!(HashKind::best().is_supported());
        assert_eq!(HashKind::supported().last(), Some(HashKind::Asm));
    }
}
