//! Every number of the client, with its unit and its reason.

/// Version of the lines that node and front ends exchange: both come from one build, so any difference is refused.
pub(crate) const IPC_VERSION: u32 = 1;

/// Longest line that a front end may send, in bytes: a command with two paths of 4 KiB, JSON escapes and room to spare.
pub(crate) const IPC_REQUEST_MAX_BYTES: u64 = 256 * 1024;

/// Longest line that a node answers, in bytes: the list of a group with a hundred thousand files.
pub(crate) const IPC_MESSAGE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Front ends that one node serves at the same time: each has a thread.
pub(crate) const FRONT_ENDS_MAX: usize = 64;

/// How long a front end waits for a node that holds the lock and does not answer yet, in ms: it is starting, on a machine that
/// may have much else to do. A lock that is free ends the wait at once.
pub(crate) const NODE_START_WAIT_MS: u64 = 20_000;

/// Pause between two tries to reach a node that is starting, in ms.
pub(crate) const NODE_START_RETRY_MS: u64 = 50;

/// Notices that wait for one watching prompt; the newest are dropped when it does not read.
pub(crate) const NOTICES_QUEUED: usize = 64;

/// Downloads of one node that are under way: each has a thread that keeps it supplied with peers.
pub(crate) const DOWNLOADS_MAX: usize = 64;

/// A progress event reaches a front end at most this often, in ms.
pub(crate) const PROGRESS_EVERY_MS: u64 = 250;

/// A front end hears of a download that does not move this often, in ms, so that its going away is noticed.
pub(crate) const HEARTBEAT_MS: u64 = 1_000;

/// Plain progress lines (to a pipe or a file) come this often, in ms.
pub(crate) const PLAIN_PROGRESS_EVERY_MS: u64 = 5_000;

/// Plain progress lines of a download that waits come this often, in ms: nothing in them changes.
pub(crate) const PLAIN_WAITING_EVERY_MS: u64 = 30_000;

/// A tracker must accept a connection in this time, in ms.
pub(crate) const TRACKER_CONNECT_TIMEOUT_MS: u64 = 3_000;

/// A tracker must answer in this time, in ms: its longest delay of a login is 8 s, its wait for a leader 2 s.
pub(crate) const TRACKER_ANSWER_TIMEOUT_MS: u64 = 30_000;

/// Whoever only wants to know whether a tracker is there waits this long for its answer, in ms.
pub(crate) const TRACKER_PING_TIMEOUT_MS: u64 = 5_000;

/// Bytes read from a tracker at once.
pub(crate) const TRACKER_READ_BYTES: usize = 64 * 1024;

/// Longest line that is taken from a tracker, in bytes: as a node's own answers, the list of a group with a hundred
/// thousand files; 65,536 pieces with their chain take 4 MiB.
pub(crate) const TRACKER_LINE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Slowest tracker that is heard out, in bytes a second: what arrives at least as fast extends `TRACKER_ANSWER_TIMEOUT_MS`.
pub(crate) const TRACKER_MIN_BYTES_PER_S: u64 = 64 * 1024;

/// Most pieces of a file whose length its uploader did not say: 1 TiB, 40 MiB of hashes.
pub(crate) const PIECES_WITHOUT_SIZE_MAX: usize = 1 << 21;

/// Largest difference between a tracker's clock and ours that is believed, in seconds: a year. Clocks are off by less.
pub(crate) const CLOCK_OFFSET_MAX_S: u64 = 365 * 24 * 3_600;

/// Longest remote text that is shown, in bytes once it is escaped: a few sentences.
pub(crate) const PRINTABLE_MAX_BYTES: usize = 1_024;

/// Longest file that is read from the state directory, in bytes: the largest, the session, has at most 2 KiB.
pub(crate) const STATE_FILE_MAX_BYTES: u64 = 64 * 1024;

/// Longest record of a share or a download, in bytes: two names of 255 bytes, a path of 4 KiB, JSON escapes, a fault; and all of
/// that twice, while one download takes the place of another.
pub(crate) const RECORD_MAX_BYTES: u64 = 128 * 1024;

/// Shares of one node, of all its users together: each is a record that is read at the start.
pub(crate) const SHARES_MAX: usize = 16_384;

/// Records of downloads of one node: those under way, and those that are paused, failed, or another user's.
pub(crate) const DOWNLOAD_RECORDS_MAX: usize = 1_024;

/// Records in a folder beyond those that may be kept: the old and the new one of a share are there together for a moment,
/// at most one such pair for each thread that makes them.
pub(crate) const RECORDS_BEING_WRITTEN_MAX: usize = FRONT_ENDS_MAX + DOWNLOADS_MAX;

/// First pause before the node looks again for a source that was missing or a destination that could not be written, in
/// ms; it doubles …
pub(crate) const RECHECK_FIRST_MS: u64 = 2_000;

/// … up to this, in ms: each look opens every such file.
pub(crate) const RECHECK_MAX_MS: u64 = 16_000;

/// The node tells the trackers this often, in ms, that it is there: a third of the 30 s that a lease lasts.
pub(crate) const PING_EVERY_MS: u64 = 10_000;

/// First pause before a lost tracker is tried again by the node itself, in ms; it doubles …
pub(crate) const RECONNECT_FIRST_MS: u64 = 500;

/// … up to this, in ms.
pub(crate) const RECONNECT_MAX_MS: u64 = 15_000;

/// How often the parts of a long upload are sent from the first one on, when the trackers have forgotten those before.
pub(crate) const LISTING_ATTEMPTS: u32 = 3;

/// How often a file's description is asked for from its first part on, when the file becomes another meanwhile.
pub(crate) const DESCRIBE_ATTEMPTS: u32 = 3;

/// First pause before a download asks for peers again, in ms; it doubles …
pub(crate) const PEERS_FIRST_MS: u64 = 1_000;

/// … up to this, in ms.
pub(crate) const PEERS_MAX_MS: u64 = 30_000;

/// Gained pieces are announced at most this often, in ms.
pub(crate) const ANNOUNCE_EVERY_MS: u64 = 1_000;

/// How often the keeper of a download looks whether anything is due, in ms; its end is noticed at once.
pub(crate) const ANNOUNCER_TICK_MS: u64 = 500;

/// A command that waits for a tracker asks again this often, in ms.
pub(crate) const TRACKER_RETRY_MS: u64 = 500;

/// Seconds that a download on the command line may stay paused or without progress, unless `--wait` says otherwise.
pub(crate) const WAIT_DEFAULT_S: u64 = 60;

/// Lines of history that the prompt keeps.
pub(crate) const HISTORY_LINES: usize = 1_000;

/// Longest password file, in bytes: a password has at most 1,024 bytes, and a line end follows.
pub(crate) const PASSWORD_FILE_MAX_BYTES: u64 = 4_096;

/// A download's command waits at most this long, in ms, for the trackers to be told that it is complete.
pub(crate) const COMPLETION_ANNOUNCE_WAIT_MS: u64 = 2_000;

/// A front end must take what it is told in this time, in ms; one that does not (stopped, or stuck) counts as gone.
pub(crate) const IPC_WRITE_TIMEOUT_MS: u64 = 10_000;
