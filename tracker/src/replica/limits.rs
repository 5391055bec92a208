//! The limits of the replica, each with its unit and its reason.

/// Longest log entry, in bytes. A leader must send one within a heartbeat, also over a slow link.
pub const ENTRY_MAX_BYTES: usize = crate::state::limits::ROW_MAX_BYTES;

/// Room in an entry for everything but its commands (log id, punctuation), in bytes.
const ENTRY_FRAME_BYTES: usize = 1_024;

/// Most bytes of commands in one entry.
pub(super) const BATCH_MAX_BYTES: usize = ENTRY_MAX_BYTES - ENTRY_FRAME_BYTES;

/// Most commands in one entry. Bounds what one transaction applies.
pub(super) const ENTRY_MAX_COMMANDS: usize = 512;

/// Longest result of one log read, and so of one replication message, in bytes.
pub(super) const LOG_READ_MAX_BYTES: usize = 1024 * 1024;

/// Most commands that wait for the log. Far more than one entry takes, so the disk is never idle under load.
pub(super) const WAITING_MAX_COMMANDS: usize = 4_096;

/// Most commands between proposal and outcome: those that wait, those of the entry being written, and one that did not fit it.
pub const UNDERWAY_MAX_COMMANDS: usize = WAITING_MAX_COMMANDS + ENTRY_MAX_COMMANDS + 1;

/// Most bytes of commands that wait for the log. Beyond it a write is refused as busy.
pub(super) const WAITING_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Cache of the database, in bytes. Other rows are read from the file, through the page cache.
pub(super) const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Size of a block of the log's file, in bytes: the database's page. The granularity of checksums and of copies.
pub(super) const BLOCK_BYTES: usize = 4_096;

/// A smaller log file is never compacted, in bytes.
pub(super) const COMPACT_MIN_BYTES: u64 = 16 * 1024 * 1024;

/// A snapshot is recorded after this many entries. It costs one row, since the tables themselves are the snapshot.
pub(super) const SNAPSHOT_EVERY_ENTRIES: u64 = 512;

/// Entries kept before a snapshot, for a follower that lags a little. With [`SNAPSHOT_EVERY_ENTRIES`] and the longest
/// entries this bounds the log to 256 MiB.
pub(super) const LOG_KEEP_ENTRIES: u64 = 512;

/// A follower that lags more entries than this gets a snapshot. Must not exceed what is kept.
pub(super) const LAG_MAX_ENTRIES: u64 = 1_024;

/// Entries purged in one transaction.
pub(super) const PURGE_BATCH_ENTRIES: u64 = 64;

/// Most entries in one replication message, besides [`LOG_READ_MAX_BYTES`].
pub(super) const PAYLOAD_MAX_ENTRIES: u64 = 64;

/// Interval of a leader's heartbeats, in milliseconds.
pub(super) const HEARTBEAT_MS: u64 = 150;

/// A follower without heartbeats waits at least this long before an election, in milliseconds.
pub(super) const ELECTION_MIN_MS: u64 = 400;

/// A follower without heartbeats waits at most this long before an election, in milliseconds.
pub(super) const ELECTION_MAX_MS: u64 = 800;

/// Longest installation of a snapshot, in milliseconds: 1 GiB on a slow disk.
pub(super) const INSTALL_MS: u64 = 60_000;

/// Longest time from opening the log to leading it, for a single tracker, in milliseconds.
pub(super) const READY_MS: u64 = 30_000;

/// Writes are refused while the filesystem has fewer free bytes than this. One entry, its rows and the pages that the
/// copy-on-write tree rewrites for them take far less.
pub const SPACE_FLOOR_BYTES: u64 = 8 * 1024 * 1024;

/// Changes that free space, logins and logouts are made until the filesystem has fewer free bytes than this.
pub const SPACE_RESERVE_BYTES: u64 = 2 * 1024 * 1024;

/// Interval at which the free space and the log's place are looked at without a change, in milliseconds.
pub(super) const OBSTACLE_CHECK_MS: u64 = 5_000;

/// After a failed write the log is reopened at this interval until it accepts writes, in milliseconds.
pub(super) const REOPEN_MS: u64 = 500;

/// Threads that write and sync the log: one each for appending, applying and a snapshot.
pub(super) const BLOCKING_THREADS: usize = 3;

/// Longest key or value in a snapshot stream, in bytes. No row is longer.
pub(super) const SNAPSHOT_PART_MAX_BYTES: u32 = 512 * 1024;

/// Time for another tracker's line to answer a probe, in milliseconds.
pub const PROBE_MS: u64 = 1_000;

/// Longest answer to a probe that is read, in bytes.
pub(super) const PROBE_ANSWER_MAX_BYTES: usize = 4_096;

// A follower that lags no more than this finds all entries that it lacks.
const _: () = assert!(LAG_MAX_ENTRIES <= SNAPSHOT_EVERY_ENTRIES + LOG_KEEP_ENTRIES);
// The space floor has room for the longest entry many times over.
const _: () = assert!(16 * ENTRY_MAX_BYTES as u64 <= SPACE_FLOOR_BYTES);
// So has the reserve, for entries that remove rows.
const _: () = assert!(8 * ENTRY_MAX_BYTES as u64 <= SPACE_RESERVE_BYTES);
