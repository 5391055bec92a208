//! The numbers of what a run is made of.

/// Memory of processes is looked at this often, in milliseconds: often enough for a peak of a run of half a second, and
/// too seldom to disturb it.
pub(crate) const MEMORY_SAMPLE_MS: u64 = 25;

/// A look at the memory of many processes takes long: the next one waits at least this many times as long as the last took.
pub(crate) const SAMPLE_PAUSE_FACTOR: u32 = 19;

/// A process that was asked to end is killed after this time, in milliseconds.
pub(crate) const END_MS: u64 = 5_000;

/// A program has this long to say that it is ready, in milliseconds: a tracker on a slow disk syncs before it does.
pub(crate) const READY_MS: u64 = 30_000;

/// Of a failed program's words, the last bytes that are shown.
pub(crate) const LAST_OUTPUT_BYTES: u64 = 600;

/// Anonymous memory that a transfer needs besides the file's pages, in bytes: buffers and the rest of every node.
pub(crate) const WARM_EXTRA_BYTES: u64 = 256 << 20;

/// Length of a write that warms pages of files, in bytes: a piece, since what is measured writes pieces.
pub(crate) const WARM_WRITE_BYTES: usize = 512 << 10;

/// Of the memory that is free, the part that is touched at most, in percent: the rest keeps the source cached.
pub(crate) const WARM_MAX_PERCENT: u64 = 60;

/// A file is written and read in steps of this many bytes.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// Part of the source that may still be cached when a cold round begins.
pub(crate) const COLD_CACHED_MAX: f64 = 0.01;

/// Time in which nodes that were started again are to be known as seeders again, in milliseconds.
pub(crate) const SEEDERS_BACK_MS: u64 = 30_000;

/// A round may take this long, in seconds …
pub(crate) const ROUND_MAX_S: u64 = 60;

/// … and the time in which all bytes come at this rate, in bytes a second; then its receivers are killed.
pub(crate) const ROUND_SLOWEST_BYTES_PER_S: u64 = 16 << 20;

/// Most processes that are taken for the descendants of one.
pub(crate) const DESCENDANTS_MAX: usize = 4_096;
