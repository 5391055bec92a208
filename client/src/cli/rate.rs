//! Parses rates such as `500K`, `10MiB` or `1.5 GB/s`, in bytes a second.

use std::num::NonZeroU64;

/// Digits of a fraction that are read; later ones are less than a byte, of the largest unit too.
const FRACTION_DIGITS_MAX: usize = 18;

/// Parses a rate. `K`, `M`, `G` (also lower case), `KiB`, `MiB` and `GiB` are powers of 1,024; `kB`, `KB`, `MB` and `GB` are
/// powers of 1,000; `B` or no unit is bytes. A final `/s` is allowed. A fraction of a byte is dropped.
///
/// # Errors
/// A message for users when the text is not a rate above zero.
pub(crate) fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let refuse =
        || format!("`{text}` is not a rate; write it as 500K, 10MiB or 1.5GB (bytes a second, more than 0)");
    let bare = text.trim();
    let bare = bare.strip_suffix("/s").unwrap_or(bare).trim();
    let digits = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
    let (number, unit) = bare.split_at(digits);
    let scale = unit_scale(unit.trim()).ok_or_else(refuse)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return Err(refuse());
    }
    let whole: u64 = whole.parse().map_err(|_| refuse())?;
    let bytes = whole.checked_mul(scale).ok_or_else(refuse)?;
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let numerator: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| refuse())? };
    let digits = u32::try_from(fraction.len()).expect("at most FRACTION_DIGITS_MAX digits");
    let part = numerator * u128::from(scale) / 10u128.pow(digits);
    let bytes = bytes.checked_add(u64::try_from(part).expect("less than the scale")).ok_or_else(refuse)?;
    NonZeroU64::new(bytes).ok_or_else(refuse)
}

fn unit_scale(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_parsed_with_their_units() {
        for (text, bytes) in [
            ("1", 1),
            ("500K", 500 << 10),
            ("10MiB", 10 << 20),
            ("10 MiB/s", 10 << 20),
            ("1GB", 1_000_000_000),
            ("1.5MB", 1_500_000),
            ("1.5K", 1_536),
            ("1.25M", 1_310_720),
            ("0.0009765625M", 1_024),
            ("1.9999999999999999999999GB", 1_999_999_999),
            ("2G", 2 << 30),
        ] {
            assert_eq!(parse_rate(text).map(NonZeroU64::get), Ok(bytes), "{text}");
        }
        for wrong in
            ["", "0", "M", "-1", "1.2.3M", "10 apples", "99999999999999999999", "18446744073709551615K"]
        {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
