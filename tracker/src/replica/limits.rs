//! Every number of the replica, with its unit and its reason.

/// Longest log entry, in bytes. A leader must send one within a heartbeat, so one slow link never costs it its office.
pub const ENTRY_MAX_BYTES: usize = crate::state::limits::ROW_MAX_BYTES;

/// Room in an entry for what stands around its commands: log id and punctuation, in bytes.
const ENTRY_FRAME_BYTES: usize = 1_024;

/// Most bytes of commands in one entry.
pub(super) const BATCH_MAX_BYTES: usize = ENTRY_MAX_BYTES - ENTRY_FRAME_BYTES;

/// Most commands in one entry: bounds what one transaction applies.
pub(super) const ENTRY_MAX_COMMANDS: usize = 512;

/// Longest reply of one log read, and so of one replication message, in bytes.
pub(super) const LOG_READ_MAX_BYTES: usize = 1024 * 1024;

/// Commands that may wait for the log: far more than one entry takes, so that the disk is never idle under load.
pub(super) const WAITING_MAX_COMMANDS: usize = 4_096;

/// Commands that can be under way at once: those that wait, those of the entry being written, and one that did not fit it.
pub const UNDERWAY_MAX_COMMANDS: usize = WAITING_MAX_COMMANDS + ENTRY_MAX_COMMANDS + 1;

/// Bytes of commands that may wait for the log. Beyond it a write is refused as busy.
pub(super) const WAITING_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Cache of the database, in bytes. Rows beyond it are read from the file, through the page cache.
pub(super) const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A snapshot is noted after this many entries. It costs one row: the tables themselves are the snapshot.
pub(super) const SNAPSHOT_EVERY_ENTRIES: u64 = 512;

/// Entries kept behind a snapshot, for a follower that lags a little. With [`SNAPSHOT_EVERY_ENTRIES`] and the longest
/// entries this bounds the log to 256 MiB.
pub(super) const LOG_KEEP_ENTRIES: u64 = 512;

/// Entries by which a follower may lag before it gets a snapshot instead: more than are kept would be impossible.
pub(super) const LAG_MAX_ENTRIES: u64 = 1_024;

/// Entries purged together, so that purging is no transaction of its own for each entry.
pub(super) const PURGE_BATCH_ENTRIES: u64 = 64;

/// Most entries in one replication message; with [`LOG_READ_MAX_BYTES`] the lower one counts.
pub(super) const PAYLOAD_MAX_ENTRIES: u64 = 64;

/// A leader's sign of life, in milliseconds.
pub(super) const HEARTBEAT_MS: u64 = 150;

/// A follower without a sign of life waits at least this long before it stands for election, in milliseconds.
pub(super) const ELECTION_MIN_MS: u64 = 400;

/// And at most this long.
pub(super) const ELECTION_MAX_MS: u64 = 800;

/// Longest a snapshot may take to be installed, in milliseconds: 1 GiB on a slow disk.
pub(super) const INSTALL_MS: u64 = 60_000;

/// Longest a lone node may take from its start to its first answer once its log is open, in milliseconds.
pub(super) const READY_MS: u64 = 30_000;

/// Writes are refused while the filesystem has less free space than this, in bytes. One entry in flight, its rows
/// and the pages that a copy-on-write tree rewrites around them stay far below it.
pub const SPACE_FLOOR_BYTES: u64 = 8 * 1024 * 1024;

/// After a failed write the log is opened anew at this interval, in milliseconds, until it takes writes again.
pub(super) const REOPEN_MS: u64 = 500;

/// Threads on which the log is written and synced: the appender, the applier, and one for a snapshot.
pub(super) const BLOCKING_THREADS: usize = 3;

/// Longest row of a snapshot stream, key and value each, in bytes: what a row may have, and a key's parts.
pub(super) const SNAPSHOT_PART_MAX_BYTES: u32 = 512 * 1024;

/// How long another tracker's line may take to answer at a founding, in milliseconds.
pub const PROBE_MS: u64 = 1_000;

/// Longest answer read from what listens on another tracker's line, in bytes.
pub(super) const PROBE_ANSWER_MAX_BYTES: usize = 4_096;
