//! Byte counts as typed: `4096`, `512K`, `256M`, `2GiB`.
//!
//! Invariant: a [`ByteSize`] is at least one byte.

use std::fmt;
use std::str::FromStr;

/// Units, smallest first. Each is 1,024 of the one before, starting with 1,024 bytes.
const UNITS: [char; 4] = ['K', 'M', 'G', 'T'];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(u64);

impl ByteSize {
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadSize {
    /// Not digits with an optional unit.
    Form,
    /// Does not fit 64 bits.
    TooLarge,
    Zero,
}

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadSize::Form => "a size is a whole number of bytes, or one with K, M, G or T, such as 256M",
            BadSize::TooLarge => "does not fit 64 bits: use a smaller size",
            BadSize::Zero => "a size is at least one byte",
        })
    }
}

impl std::error::Error for BadSize {}

impl FromStr for ByteSize {
    type Err = BadSize;

    /// Units are powers of 1,024, in either case, with or without `iB`.
    fn from_str(text: &str) -> Result<ByteSize, BadSize> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let suffix = text[digits.len()..].to_ascii_uppercase();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadSize::Form);
        }
        let letter = suffix.strip_suffix("IB").unwrap_or(&suffix);
        let power = match UNITS.iter().position(|unit| letter == unit.to_string()) {
            Some(position) => position + 1,
            None if suffix.is_empty() => 0,
            None => return Err(BadSize::Form),
        };
        let count: u64 = digits.parse().map_err(|_| BadSize::TooLarge)?;
        let bytes =
            (0..power).try_fold(count, |bytes, _| bytes.checked_mul(1_024)).ok_or(BadSize::TooLarge)?;
        if bytes == 0 { Err(BadSize::Zero) } else { Ok(ByteSize(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<u64, BadSize> {
        text.parse().map(ByteSize::bytes)
    }

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parsed("1"), Ok(1));
        assert_eq!(parsed("512K"), Ok(524_288));
        assert_eq!(parsed("256m"), Ok(256 << 20));
        assert_eq!(parsed("2GiB"), Ok(2 << 30));
        assert_eq!(parsed("1T"), Ok(1 << 40));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "M", "-1", "+1", "1.5G", "1 G", "1X", "1MB", "1MM", "iB", "1iB", "0x10", "１"] {
            assert_eq!(parsed(text), Err(BadSize::Form), "{text}");
        }
        assert_eq!(parsed("0"), Err(BadSize::Zero));
        assert_eq!(parsed("0G"), Err(BadSize::Zero));
        assert_eq!(parsed("16777216T"), Err(BadSize::TooLarge));
        assert_eq!(parsed("18446744073709551616"), Err(BadSize::TooLarge));
    }
}
