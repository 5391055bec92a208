//! Bytes as hexadecimal digits and back, without `std::fmt`: a tracker converts hundreds of values for each answer.
//!
//! Digits are written in lower case and read in either case.

/// Longest value, in bytes: a key.
const BYTES_MAX: usize = 32;

/// The digits of a value, two a byte, without an allocation.
pub struct HexDigits {
    text: [u8; 2 * BYTES_MAX],
    length: usize,
}

impl HexDigits {
    /// The digits of at most 32 bytes.
    ///
    /// # Panics
    /// When there are more.
    #[must_use]
    pub fn of(bytes: &[u8]) -> HexDigits {
        assert!(bytes.len() <= BYTES_MAX, "{} bytes are longer than a key", bytes.len());
        let mut text = [0; 2 * BYTES_MAX];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        }
        HexDigits { text, length: 2 * bytes.len() }
    }

    /// The digits as text.
    ///
    /// # Panics
    /// Never: digits are ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).expect("digits are ASCII")
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

/// Parses exactly two digits for each byte.
#[must_use]
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit_value(*high)? << 4 | digit_value(*low)?;
    }
    Some(bytes)
}

fn digit_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_standard_library_and_come_back(bytes: [u8; 32]) {
            let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let digits = HexDigits::of(&bytes);
            prop_assert_eq!(digits.as_str(), &expected);
            prop_assert_eq!(parse_hex(&expected), Some(bytes));
            prop_assert_eq!(parse_hex(&expected.to_uppercase()), Some(bytes));
        }
    }

    #[test]
    fn text_that_is_not_hex_is_refused() {
        assert_eq!(HexDigits::of(&[]).as_str(), "");
        for wrong in ["", "a", "abc", "0g", "+1", " 1", "éé", "0102"] {
            assert_eq!(parse_hex::<1>(wrong), None, "{wrong}");
        }
    }
}
