//! Every number of the driver, with its unit and its reason.

use crate::proto::codec::LENGTH_BYTES;
use crate::proto::limits::{CONSUMER_CONNECTIONS_MAX, FRAME_MAX_BYTES, SILENCE_TIMEOUT_MS};
use crate::proto::units::PIECE_BYTES;

// Receiving

/// Room behind the bytes of a piece: the next frame's head arrives with the same read.
pub(crate) const BUFFER_SLACK_BYTES: usize = 64;

/// Length of a receive buffer: a piece, and the head of the frame behind it.
pub(crate) const BUFFER_BYTES: usize = PIECE_BYTES as usize + BUFFER_SLACK_BYTES;

/// Most bytes read for a frame's head: a length and a `Piece` (two varints of at most 5 bytes).
pub(crate) const HEAD_READ_BYTES: usize = 15;

/// Longest head buffer that a connection keeps for later frames. Only `Opened` needs a longer one, which is shrunk afterwards.
pub(crate) const HEAD_KEPT_MAX_BYTES: usize = LENGTH_BYTES + FRAME_MAX_BYTES;

/// Bytes that a provider reads at once: many of a consumer's small frames.
pub(crate) const REQUESTS_READ_BYTES: usize = 4_096;

/// Receive buffers of a node (64 MiB in all): one for each connection that may be in the middle of a piece, and those of
/// queued pieces.
pub(crate) const RECEIVE_BUFFERS: usize = CONSUMER_CONNECTIONS_MAX + QUEUED_PIECES_MAX;

// Verifying and writing

/// Pieces that are verified together: a full set of lanes of the widest hash back end.
pub(crate) const VERIFY_BATCH: usize = 16;

/// How long fewer pieces than [`VERIFY_BATCH`] wait for more, in milliseconds: about the time in which a batch arrives at one
/// worker over a fast network.
pub(crate) const VERIFY_WAIT_MS: u64 = 4;

/// Pieces that wait at one worker to be verified or written: a batch that waits for its turn to write, and one that gathers
/// meanwhile. With more, the first would leave the core's caches.
pub(crate) const QUEUED_PER_WORKER_MAX: usize = 2 * VERIFY_BATCH;

/// Receive buffers for pieces that wait to be verified, over all workers: while they are hashed, others arrive.
pub(crate) const QUEUED_PIECES_MAX: usize = 4 * VERIFY_BATCH;

/// Latency histograms of each download: workers beyond this number share one.
pub(crate) const LATENCY_SLOTS: usize = 16;

/// Decimal digits that a latency histogram keeps of a value: 1 %, for about 10 KiB a worker.
pub(crate) const LATENCY_DIGITS: u8 = 2;

/// Longest latency that is recorded, in microseconds: an hour.
pub(crate) const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Bytes of pieces after which the kernel is asked to start writing them to disk.
pub(crate) const WRITEBACK_BYTES: u64 = 32 * 1024 * 1024;

/// Write-backs of one download that wait for a thread. They are advice: the flush writes what none started.
pub(crate) const WRITEBACKS_WAITING_MAX: usize = 4;

/// A write that takes this long is reported as what the download waits for, in milliseconds.
pub(crate) const SLOW_WRITE_MS: u64 = 5_000;

// Shares

/// How often the file of a share that no consumer fetches from is examined, in milliseconds.
pub(crate) const SOURCE_IDLE_CHECK_MS: u64 = 5_000;

/// How long a file stays open after its last consumer has gone, in milliseconds: consumers come back in seconds.
pub(crate) const SOURCE_IDLE_MS: u64 = 5_000;

/// How long a consumer waits for the file to be opened, in milliseconds: less than its own handshake timeout.
pub(crate) const OPEN_WAIT_MS: u64 = 4_000;

/// How long an examination takes before the file's filesystem counts as one that does not answer, in milliseconds: examining
/// all shares of a slow disk takes less.
pub(crate) const NO_ANSWER_MS: u64 = 5_000;

/// Least time from one verification of a shared file to the next, in milliseconds: consumers must not keep a disk busy by
/// claiming that pieces were wrong.
pub(crate) const VERIFY_AGAIN_MS: u64 = 10_000;

/// Pieces that are hashed again at once because a consumer claims that one was wrong: the last that it was sent, 256 MiB.
pub(crate) const VERIFIED_AGAIN_MAX: usize = 512;

/// Threads for looking at and opening files, for each filesystem: one that opens need not wait for one that looks at many.
pub(crate) const FILE_CALL_THREADS: usize = 2;

/// Threads that bring cold windows of shared files into memory, for each filesystem: two concurrent reads keep most disks busy.
pub(crate) const LOAD_THREADS: usize = 2;

/// Threads that hash shared files again, for each filesystem: disks read no faster for more.
pub(crate) const VERIFY_THREADS: usize = 1;

// Downloads, workers and connections

/// Downloads of one node: more than the client starts, so that the client's limit is the one that users meet.
pub(crate) const DOWNLOADS_MAX: usize = 1_024;

/// How often a download's own task polls the transfer, in milliseconds.
pub(crate) const DRIVE_POLL_MS: u64 = 100;

/// How often a failed or full disk is tried again, in milliseconds.
pub(crate) const DISK_RETRY_MS: u64 = 1_000;

/// Downloads to one filesystem whose earlier attempts are hashed at the same time, each with 8 MiB of buffers. Hashing uses all
/// lanes of a core, and disks read no faster for more.
pub(crate) const CHECKS_AT_ONCE: usize = 2;

/// Downloads to one filesystem whose zero pieces are checked at the same time. The check only hashes and never reads the disk.
pub(crate) const ZERO_PIECE_CHECKS_AT_ONCE: usize = 2;

/// Downloads to one filesystem whose last steps run at the same time. They wait for the disk, and one that reads a whole file
/// for minutes must not delay all others.
pub(crate) const FINISHES_AT_ONCE: usize = 4;

/// Partial files of one filesystem that are examined at the same time.
pub(crate) const EXAMINATIONS_AT_ONCE: usize = 1;

/// Downloads to one filesystem that are flushed at the same time: a disk writes no faster for more.
pub(crate) const FLUSHES_AT_ONCE: usize = 1;

/// How long a stopping node waits for checks, and for last records, in milliseconds. A disk writes 1 GiB in this time, which
/// is what a download has unrecorded at most; a filesystem that takes longer may never answer.
pub(crate) const STOP_WORK_MS: u64 = 15_000;

/// How often the partial file of each download is examined, in milliseconds: seldom enough to cost nothing, and soon enough
/// that little is fetched in vain.
pub(crate) const EXAMINE_EVERY_MS: u64 = 2_000;

/// Jobs that wait for one worker.
pub(crate) const WORKER_JOBS_MAX: usize = 1_024;

/// How long a stopping worker waits for its connections to end, in milliseconds.
pub(crate) const STOP_MS: u64 = 2_000;

/// How often a stopping worker checks whether its connections have ended, in milliseconds.
pub(crate) const STOP_POLL_MS: u64 = 1;

/// Connections that wait to be accepted.
pub(crate) const LISTEN_BACKLOG: i32 = 1_024;

/// How long to wait before accepting again when the system has no more file descriptors, in milliseconds.
pub(crate) const ACCEPT_RETRY_MS: u64 = 100;

/// How long a connection is kept for the goodbye after a protocol violation, in milliseconds: a peer that reads has it by then.
pub(crate) const GOODBYE_MS: u64 = 500;

/// Consumers of other versions of the protocol that are logged: unknown peers must not fill the log.
pub(crate) const OTHER_VERSIONS_LOGGED: usize = 64;

/// How often a consumer is told of gained pieces, in milliseconds: soon enough to request them at once, and seldom enough for
/// one frame to name many.
pub(crate) const HAVE_EVERY_MS: u64 = DRIVE_POLL_MS;

/// TCP_USER_TIMEOUT in milliseconds: a peer that acknowledges nothing for this long is as dead as one that sends nothing.
pub(crate) const USER_TIMEOUT_MS: u64 = SILENCE_TIMEOUT_MS;

// Rate limits

/// Under a limit: maximum bytes of a read. Also the minimum bytes of a send, unless the limit allows fewer in a second.
pub(crate) const LIMITED_READ_BYTES: usize = 32 * 1024;

/// Under a limit, least bytes of a read: a shorter one costs more than it brings.
pub(crate) const LIMITED_READ_MIN_BYTES: usize = 128;

/// Under a limit, reads are short enough that every connection of this node gets one within this time, in milliseconds. It
/// is shorter than the stall after which a wait looks like a hanging disk, and than `USER_TIMEOUT_MS` of the peers.
pub(crate) const LIMITED_ROUND_MS: u64 = 4_000;

/// Under a limit, a send has at most the bytes that the limit allows in this time, in milliseconds (see
/// [`LIMITED_READ_BYTES`] for the minimum): connections take turns, and none waits for whole pieces of others.
pub(crate) const LIMITED_SEND_MS: u64 = 10;

/// Under a limit, there are so few send slots that each holder has its next portion within this time, in milliseconds: well
/// before a consumer takes the provider for stalled. A peer that does not take a portion in this time loses its slot.
pub(crate) const LIMITED_SLOT_MS: u64 = 1_000;

/// How often a connection that waits for a send slot trickles bytes, in milliseconds.
pub(crate) const TRICKLE_EVERY_MS: u64 = 1_000;

/// Bytes of a piece that a waiting connection sends at a time: a hundred such connections use little of a usual limit.
pub(crate) const TRICKLE_BYTES: u64 = 16;

// Zero-copy sends

/// Shortest zero-copy send, in bytes: below it, pinning pages and a second completion cost more than a copy (the kernel's
/// documentation of MSG_ZEROCOPY says 10 KiB; that is for warm pages and large ones).
pub(crate) const ZERO_COPY_MIN_BYTES: u64 = 64 * 1024;

/// Most bytes that zero-copy sends keep locked, however much the user may lock: those that a hundred connections have in
/// flight on a fast network.
pub(crate) const ZERO_COPY_LOCKED_MAX: u64 = 64 * 1024 * 1024;

/// Zero-copy sends lock at most the user's lockable memory divided by this; the user's other processes need the rest.
pub(crate) const ZERO_COPY_LOCKED_DIVISOR: u64 = 2;

/// How long a peer is excluded from zero-copy sends after the kernel has copied for it, in milliseconds: networks change
/// seldom, and packet captures, which make the kernel copy, end.
pub(crate) const ZERO_COPY_RETRY_MS: u64 = 600_000;

/// Excluded peers that are remembered; the oldest is dropped first.
pub(crate) const ZERO_COPY_COPIED_PEERS: usize = 256;
