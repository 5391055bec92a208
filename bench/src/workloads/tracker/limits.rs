//! The numbers of the load on a tracker.

/// Accounts, each with one session, that the connections share: logging in costs the tracker a slow hash each time.
pub(crate) const ACCOUNTS: usize = 16;

/// Pieces of the file that is looked up.
pub(crate) const FILE_PIECES: u32 = 64;

/// Requests that a connection has under way, at most, where the load waits for answers.
pub(crate) const PIPELINE_DEPTH: usize = 16;

/// Bytes read from a connection at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A request without an answer for this long, in milliseconds, is unanswered.
pub(crate) const ANSWER_TIMEOUT_MS: u64 = 30_000;

/// Events taken from the kernel at once.
pub(crate) const EVENTS: usize = 1_024;

/// Requests under way on one connection, at most, under a fixed rate; those due beyond it are sent late, and their latency
/// counts from when they were due all the same.
pub(crate) const IN_FLIGHT_MAX: usize = 4_096;

/// Open files that the harness needs besides its connections.
pub(crate) const FILES_EXTRA: u64 = 256;

/// Memory that a run's programs come to use, in bytes, touched before each round: the tracker with its accounts and
/// connections, and what the load keeps for its requests.
pub(crate) const ROUND_BYTES: u64 = 512 << 20;

/// While the next request is due later than this, in milliseconds, the load waits in the kernel; nearer ones are waited for
/// awake, since the kernel's own waits end up to a millisecond late.
pub(crate) const POLL_MIN_MS: u64 = 2;

/// Between samples of answers over time, in milliseconds.
pub(crate) const SERIES_EVERY_MS: u64 = 100;
