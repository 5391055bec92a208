//! Every limit, interval and timeout of the client, with its unit and reason.

/// Version of the protocol between node and front ends. Both come from one build, so any difference is refused.
pub(crate) const IPC_VERSION: u32 = 3;

/// Longest request of a front end, in bytes: a command with two paths of 4 KiB, JSON escapes and room to spare.
pub(crate) const IPC_REQUEST_MAX_BYTES: u64 = 256 * 1024;

/// Longest message of a node, in bytes: the list of a group with a hundred thousand files.
pub(crate) const IPC_MESSAGE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Front ends connected to one node; each has a thread.
pub(crate) const FRONT_ENDS_MAX: usize = 64;

/// How long a front end waits for a node that holds the lock but does not answer yet, in ms: it may be starting on a busy
/// machine. A free lock ends the wait.
pub(crate) const NODE_START_WAIT_MS: u64 = 20_000;

/// Pause between two attempts to reach a starting node, in ms.
pub(crate) const NODE_START_RETRY_MS: u64 = 50;

/// Notices queued for one prompt. When the queue is full, new ones are dropped.
pub(crate) const NOTICES_QUEUED: usize = 64;

/// Active downloads of one node; each has a thread that asks the trackers for peers.
pub(crate) const DOWNLOADS_MAX: usize = 64;

/// Shortest time between two progress events to a front end, in ms.
pub(crate) const PROGRESS_EVERY_MS: u64 = 250;

/// Interval of events of a stalled download, in ms. Writing them also detects that the front end left.
pub(crate) const HEARTBEAT_MS: u64 = 1_000;

/// Interval of progress lines to a pipe or a file, in ms.
pub(crate) const PLAIN_PROGRESS_EVERY_MS: u64 = 5_000;

/// Interval of progress lines of a waiting download to a pipe or a file, in ms. They repeat the same text.
pub(crate) const PLAIN_WAITING_EVERY_MS: u64 = 30_000;

/// Timeout for connecting to a tracker, in ms.
pub(crate) const TRACKER_CONNECT_TIMEOUT_MS: u64 = 3_000;

/// Timeout for a tracker's answer, in ms: a login may wait behind others, and for a leader.
pub(crate) const TRACKER_ANSWER_TIMEOUT_MS: u64 = 30_000;

/// First pause before a password is sent again to a tracker that was too busy for it, in ms. It doubles.
pub(crate) const LOGIN_RETRY_FIRST_MS: u64 = 500;

/// Number of such pauses: 15.5 s in all, longer than one more password waits for its turn.
pub(crate) const LOGIN_RETRIES: u32 = 5;

/// Timeout for the answer to `doctor`'s ping of a tracker, in ms.
pub(crate) const TRACKER_PING_TIMEOUT_MS: u64 = 5_000;

/// Size of one read from a tracker, in bytes.
pub(crate) const TRACKER_READ_BYTES: usize = 64 * 1024;

/// Longest answer of a tracker, in bytes: the list of a group with a hundred thousand files. 65,536 pieces with their chain
/// take 4 MiB.
pub(crate) const TRACKER_LINE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes a second at which a tracker's answer must arrive to extend `TRACKER_ANSWER_TIMEOUT_MS`.
pub(crate) const TRACKER_MIN_BYTES_PER_S: u64 = 64 * 1024;

/// Most pieces of a file of unstated length: 1 TiB, 40 MiB of hashes.
pub(crate) const PIECES_WITHOUT_SIZE_MAX: usize = 1 << 21;

/// Interval at which the trackers' time is saved, in seconds. After a boot, this node's time is behind by at most that.
pub(crate) const TRACKER_TIME_SAVE_EVERY_S: u64 = 5 * 60;

/// The number of the trackers' last change is saved again once it has grown by more than this: a node that was restarted notices
/// an older state unless fewer changes are lost.
pub(crate) const REVISION_SAVE_EVERY: u64 = 64;

/// Longest text of a tracker or peer that is printed, in bytes after escaping: a few sentences.
pub(crate) const PRINTABLE_MAX_BYTES: usize = 1_024;

/// Columns of a terminal that does not say how many it has.
pub(crate) const TERMINAL_COLUMNS_DEFAULT: u16 = 80;

/// First digits of a SHA-1 that a table shows when the terminal is too narrow for all 40.
pub(crate) const SHORT_SHA1_DIGITS: usize = 8;

/// Longest file read from the state directory, in bytes. The largest, the session, has at most 2 KiB.
pub(crate) const STATE_FILE_MAX_BYTES: u64 = 64 * 1024;

/// Longest record of a share or a download, in bytes: two names of 255 bytes, a path of 4 KiB, JSON escapes and an error;
/// twice, since a download that replaces another one records both.
pub(crate) const RECORD_MAX_BYTES: u64 = 128 * 1024;

/// Shares of one node, over all its users. Each is a record that is read at the start.
pub(crate) const SHARES_MAX: usize = 16_384;

/// Download records of one node: active, paused and failed ones, over all its users.
pub(crate) const DOWNLOAD_RECORDS_MAX: usize = 1_024;

/// Complete downloads that `show_downloads` lists: the latest of this process. Each keeps its figures in memory.
pub(crate) const COMPLETE_DOWNLOADS_MAX: usize = 256;

/// Records in a folder beyond the limits above. While a share's record is replaced, the old and the new one both exist, for
/// each thread that writes one.
pub(crate) const RECORDS_BEING_WRITTEN_MAX: usize = FRONT_ENDS_MAX + DOWNLOADS_MAX;

/// First pause before a missing source or an unwritable destination is checked again, in ms. It doubles up to
/// `RECHECK_MAX_MS`.
pub(crate) const RECHECK_FIRST_MS: u64 = 2_000;

/// Longest pause between such checks, in ms. Each check opens every such file.
pub(crate) const RECHECK_MAX_MS: u64 = 16_000;

/// Interval of the node's pings to the trackers, in ms: a third of the 30 s lease.
pub(crate) const PING_EVERY_MS: u64 = 10_000;

/// How long a node that ends waits until the trackers know it, in ms.
pub(crate) const GOODBYE_WAIT_MS: u64 = 2_000;

/// First pause before the node reconnects to a tracker by itself, in ms. It doubles up to `RECONNECT_MAX_MS`.
pub(crate) const RECONNECT_FIRST_MS: u64 = 500;

/// Longest such pause, in ms.
pub(crate) const RECONNECT_MAX_MS: u64 = 15_000;

/// Attempts to list a long upload from its first part, when the trackers forget earlier parts.
pub(crate) const LISTING_ATTEMPTS: u32 = 3;

/// Attempts to fetch a file's description from its first part, when the file is replaced meanwhile.
pub(crate) const DESCRIBE_ATTEMPTS: u32 = 3;

/// First pause before a download asks for peers again, in ms. It doubles up to `PEERS_MAX_MS`.
pub(crate) const PEERS_FIRST_MS: u64 = 1_000;

/// Longest such pause, in ms.
pub(crate) const PEERS_MAX_MS: u64 = 30_000;

/// Shortest time between two announcements of gained pieces, in ms.
pub(crate) const ANNOUNCE_EVERY_MS: u64 = 1_000;

/// Interval at which a download's announcer checks what is due, in ms. The end of the download wakes it at once.
pub(crate) const ANNOUNCER_TICK_MS: u64 = 500;

/// Interval at which a command that waits for a tracker retries, in ms.
pub(crate) const TRACKER_RETRY_MS: u64 = 500;

/// Default of `--wait`: seconds that a download on the command line may stay paused or without progress.
pub(crate) const WAIT_DEFAULT_S: u64 = 60;

/// How long a completion at the prompt waits for names of groups and files, in ms: hardly noticed by a typist.
pub(crate) const COMPLETION_WAIT_MS: u64 = 300;

/// How long such names are used without asking again, in ms.
pub(crate) const COMPLETION_FRESH_MS: u64 = 3_000;

/// Lines kept in the prompt's history.
pub(crate) const HISTORY_LINES: usize = 1_000;

/// Bytes read from a password file: a password has at most 1,024 bytes and a line end.
pub(crate) const PASSWORD_FILE_MAX_BYTES: u64 = 4_096;

/// How long a download's command waits for the completion to reach the trackers, in ms.
pub(crate) const COMPLETION_ANNOUNCE_WAIT_MS: u64 = 2_000;

/// Timeout for a write to a front end, in ms. A front end that does not read (stopped or stuck) counts as gone.
pub(crate) const IPC_WRITE_TIMEOUT_MS: u64 = 10_000;

/// A longer pause between two checks of a download means that the client's process was stopped, in ms.
pub(crate) const PROCESS_STOPPED_MS: u64 = 5_000;

/// File descriptors that `doctor` recommends: connections to peers in both directions, files and front ends.
pub(crate) const DESCRIPTORS_WANTED: u64 = 2_048;

/// Lockable memory that `doctor` recommends, in bytes. Below it few sends can avoid the kernel's copy.
pub(crate) const LOCKED_MEMORY_WANTED_BYTES: u64 = 8 << 20;
