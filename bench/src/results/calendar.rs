//! UTC dates for the names of runs.

const DAY_S: u64 = 86_400;

/// Formats as `2026-11-22T17-40-05`, which sorts by time and is a valid file name everywhere.
pub(crate) fn format_timestamp(unix_s: u64) -> String {
    let (year, month, day) = civil_date(unix_s / DAY_S);
    let second = unix_s % DAY_S;
    format!("{year:04}-{month:02}-{day:02}T{:02}-{:02}-{:02}", second / 3_600, second / 60 % 60, second % 60)
}

/// Year, month and day that lie `days` after 1 January 1970, computed in eras of 400 years that begin in March (Howard
/// Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_have_their_dates() {
        assert_eq!(format_timestamp(0), "1970-01-01T00-00-00");
        assert_eq!(format_timestamp(951_782_399), "2000-02-28T23-59-59");
        assert_eq!(format_timestamp(951_782_400), "2000-02-29T00-00-00");
        assert_eq!(format_timestamp(1_795_369_205), "2026-11-22T17-40-05");
    }
}
