//! The numbers of records.

/// Decimal digits that a histogram of latencies keeps of each value.
pub(crate) const LATENCY_DIGITS: u8 = 3;

/// Latencies from here on count as this much, in nanoseconds: an hour.
pub(crate) const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// Runs that may begin within one second in one folder, each with a name of its own.
pub(crate) const RUNS_A_SECOND_MAX: u32 = 100;

/// Points that a series keeps; of more, every second is dropped until they fit.
pub(crate) const SERIES_MAX_POINTS: usize = 2_000;

/// Longest file of records that is read back, in bytes.
pub(crate) const RECORDS_FILE_MAX_BYTES: u64 = 64 << 20;

/// Runs that are read back from one folder, the latest of them.
pub(crate) const RUNS_READ_MAX: usize = 200;
