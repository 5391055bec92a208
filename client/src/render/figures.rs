//! Formats sizes, rates, durations and counts.

use std::time::Duration;

pub(crate) use engine::proto::units::format_size;

/// `1.1 GiB/s`.
pub(crate) fn format_rate(bytes_a_second: u64) -> String {
    format!("{}/s", format_size(bytes_a_second))
}

/// `0.4s`, `55s`, `2m 05s`, `1h 03m`, `2d 04h`.
pub(crate) fn format_span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", span.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Display name of an I/O back end.
pub(crate) fn backend_label(name: &str) -> &str {
    if name == "uring" { "io_uring" } else { name }
}

/// Display name of a SHA-1 implementation.
pub(crate) fn hash_label(name: &str) -> &str {
    match name {
        "avx512" => "AVX-512",
        "avx2" => "AVX2",
        "sha_ni" => "SHA-NI",
        "asm" => "sha1-asm",
        other => other,
    }
}

/// `20,000`.
pub(crate) fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Remaining time at this rate, in whole seconds; `None` at rate 0.
pub(crate) fn format_eta(rest_bytes: u64, bytes_a_second: u64) -> Option<String> {
    if bytes_a_second == 0 {
        return None;
    }
    let seconds = rest_bytes.div_ceil(bytes_a_second);
    Some(if seconds < 60 { format!("{seconds}s") } else { format_span(Duration::from_secs(seconds)) })
}

/// Whole percent, rounded down: 100 only when all is done.
pub(crate) fn whole_percent(done: u64, whole: u64) -> u64 {
    if done >= whole {
        return 100;
    }
    u64::try_from(u128::from(done) * 100 / u128::from(whole))
        .expect("less than 100, since less than all is done")
}

/// Mean bytes a second; 0 for an empty span.
pub(crate) fn mean_rate(bytes: u64, span: Duration) -> u64 {
    let micros = span.as_micros();
    if micros == 0 {
        return 0;
    }
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_thousands_separators() {
        for (number, wanted) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (20_000, "20,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(format_count(number), wanted);
        }
    }

    #[test]
    fn sizes_rates_and_durations_are_formatted() {
        assert_eq!(format_size(0), "0 B");
        assert_eq!(format_size(1_023), "1023 B");
        assert_eq!(format_size(524_288), "512.0 KiB");
        assert_eq!(format_rate(1_181_116_006), "1.1 GiB/s");
        let spans = [
            (400, "0.4s"),
            (55_000, "55s"),
            (125_000, "2m 05s"),
            (3_780_000, "1h 03m"),
            (187_200_000, "2d 04h"),
        ];
        for (ms, wanted) in spans {
            assert_eq!(format_span(Duration::from_millis(ms)), wanted);
        }
    }

    #[test]
    fn incomplete_is_never_100_percent() {
        assert_eq!(whole_percent(0, 0), 100);
        assert_eq!(whole_percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(whole_percent(38, 100), 38);
        assert_eq!(whole_percent(0, 1), 0);
    }

    #[test]
    fn remaining_time_and_mean_rate_are_computed() {
        assert_eq!(format_eta(100, 0), None);
        assert_eq!(format_eta(55, 1).as_deref(), Some("55s"));
        assert_eq!(format_eta(125, 1).as_deref(), Some("2m 05s"));
        assert_eq!(mean_rate(1_000, Duration::from_millis(500)), 2_000);
        assert_eq!(mean_rate(1_000, Duration::ZERO), 0);
    }
}
