//! Every number of the driver, with its unit, its owner and its reason.

use crate::proto::limits::{CONSUMER_CONNECTIONS_MAX, SILENCE_TIMEOUT_MS};

/// Room behind the bytes of a piece: the next frame's head arrives with the same read.
pub(crate) const BUFFER_SLACK_BYTES: usize = 64;

/// Pieces that are verified together: a full set of lanes of the widest back end.
pub(crate) const VERIFY_BATCH: usize = 16;

/// Fewer landed pieces than [`VERIFY_BATCH`] wait for more, but no longer than this, in milliseconds: about what a set takes to
/// arrive on one worker of a fast network.
pub(crate) const VERIFY_WAIT_MS: u64 = 4;

/// Landed pieces that wait on one worker to be verified or written: a set for its turn to write, and one that gathers
/// meanwhile. With more of them receiving would run ahead, out of the caches.
pub(crate) const QUEUED_PER_WORKER_MAX: usize = 2 * VERIFY_BATCH;

/// Landed pieces that wait for verification, over all workers: while they are being hashed, others arrive.
pub(crate) const QUEUED_PIECES_MAX: usize = 4 * VERIFY_BATCH;

/// Receive buffers of a node (64 MiB in all): one for each connection that may be in the middle of a piece, and those
/// that have landed.
pub(crate) const RECEIVE_BUFFERS: usize = CONSUMER_CONNECTIONS_MAX + QUEUED_PIECES_MAX;

/// Histograms of the wait for pieces, for each download: workers beyond this share one.
pub(crate) const LATENCY_SLOTS: usize = 16;

/// Decimal digits that such a histogram keeps of a value: 1 %, for about 10 KiB a worker.
pub(crate) const LATENCY_DIGITS: u8 = 2;

/// Longest wait for a piece that is told from others, in microseconds: an hour.
pub(crate) const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Jobs that wait for one worker.
pub(crate) const WORKER_JOBS_MAX: usize = 1_024;

/// How often a download looks after time, in milliseconds.
pub(crate) const DRIVE_POLL_MS: u64 = 100;

/// A piece that the disk has not taken for this long is what a download waits for, in milliseconds.
pub(crate) const SLOW_WRITE_MS: u64 = 5_000;

/// How often a full disk is looked at again, in milliseconds.
pub(crate) const DISK_RETRY_MS: u64 = 1_000;

/// First guess at what a frame's head needs: a length and a `Piece` (two varints of at most 5 bytes).
pub(crate) const HEAD_READ_BYTES: usize = 15;

/// A provider reads the consumer's small frames in as few reads as it can.
pub(crate) const REQUESTS_READ_BYTES: usize = 4_096;

/// How long a stopping worker waits for its connections to end, in milliseconds.
pub(crate) const STOP_MS: u64 = 2_000;

/// How long to wait before accepting again when the system has no more file descriptors, in milliseconds.
pub(crate) const ACCEPT_RETRY_MS: u64 = 100;

/// How long a connection that broke the protocol is kept for the goodbye to be sent, in milliseconds: a peer that reads
/// has it by then.
pub(crate) const GOODBYE_MS: u64 = 500;

/// How often a consumer is told what was gained, in milliseconds: soon enough for it to ask at once, and seldom
/// enough for one frame to name many pieces.
pub(crate) const HAVE_EVERY_MS: u64 = DRIVE_POLL_MS;

/// Connections waiting to be accepted.
pub(crate) const LISTEN_BACKLOG: i32 = 1_024;

/// TCP_USER_TIMEOUT: sent bytes that nobody acknowledges for this long end the connection, in milliseconds: such a peer
/// counts as dead as one that sends nothing.
pub(crate) const USER_TIMEOUT_MS: u64 = SILENCE_TIMEOUT_MS;

/// A rate limit is applied to reads of at most this many bytes, and to sends of at least so many, unless they are more than
/// what it lets through in a second.
pub(crate) const LIMITED_READ_BYTES: usize = 32 * 1024;

/// … and to reads of at least so many: below it a read costs more than it brings.
pub(crate) const LIMITED_READ_MIN_BYTES: usize = 128;

/// Reads are so short that all connections that this node may fetch by have had one in this time, in milliseconds: before a
/// wait for the limit looks like a disk that hangs (10 s), and before a peer finds nothing taken for `USER_TIMEOUT_MS`.
pub(crate) const LIMITED_ROUND_MS: u64 = 4_000;

/// A rate limit is applied to sends of at most what it lets through in this time, in milliseconds: all connections take turns, and
/// none waits for whole pieces of others.
pub(crate) const LIMITED_SEND_MS: u64 = 10;

/// So few connections send under a limit at the same time that each has its next portion within this time, in milliseconds: well
/// before consumers take them for stalled. Who does not take a portion in this time leaves its place to others.
pub(crate) const LIMITED_SLOT_MS: u64 = 1_000;

/// A connection that waits for such a place shows a sign of life so often, in milliseconds …
pub(crate) const TRICKLE_EVERY_MS: u64 = 1_000;

/// … of so many bytes of its piece: a hundred that wait take little of what any limit lets through.
pub(crate) const TRICKLE_BYTES: u64 = 16;

/// Bytes of pieces after which the kernel is asked to start writing them to disk.
pub(crate) const WRITEBACK_BYTES: u64 = 32 * 1024 * 1024;

/// Downloads that wait to be flushed: as many as a node can have at once, nearly always; others ask again.
pub(crate) const FLUSH_QUEUE_MAX: usize = 64;

/// Downloads under way on one node: more than the client lets begin, so that this is never what refuses one there.
pub(crate) const DOWNLOADS_MAX: usize = 1_024;

/// Downloads whose remains are hashed at the same time, each in 8 MiB of buffers: hashing uses all lanes of a core, and
/// disks read no faster for more.
pub(crate) const CHECKS_AT_ONCE: usize = 2;

/// Downloads whose holes are proven at the same time: that is hashing alone.
pub(crate) const HOLES_AT_ONCE: usize = 2;

/// Downloads that are finished at the same time: they wait for the disk, and one that is read over whole, which takes
/// minutes, is not to keep all others from their names.
pub(crate) const FINISHES_AT_ONCE: usize = 4;

/// Ranges that wait to be started on their way to the disk: the rest of the queue is for records.
pub(crate) const WRITEBACKS_WAITING_MAX: usize = FLUSH_QUEUE_MAX / 2;

/// Work of one kind that waits for a thread: that of every download.
pub(crate) const WORK_WAITING_MAX: usize = DOWNLOADS_MAX;

/// Shortest send that avoids the kernel's copy, in bytes: below it, pinning pages and a second completion cost more than a copy
/// (the kernel's documentation of MSG_ZEROCOPY says 10 KiB; that is for warm pages and large ones).
pub(crate) const ZERO_COPY_MIN_BYTES: u64 = 64 * 1024;

/// Most bytes that sends without a copy keep locked, however much the user may lock: as much as a hundred connections have
/// on their way on a fast network.
pub(crate) const ZERO_COPY_LOCKED_MAX: u64 = 64 * 1024 * 1024;

/// Which part of the memory that the user may lock is for sends without a copy: the limit is all processes' of that user.
pub(crate) const ZERO_COPY_LOCKED_SHARE: u64 = 2;

/// How long a peer is sent to the ordinary way after the kernel has copied what was meant for it, in milliseconds: a network
/// changes seldom, and whoever looks at packets (which takes copies) does not do so for ever.
pub(crate) const ZERO_COPY_RETRY_MS: u64 = 600_000;

/// Peers that are remembered so; the oldest is forgotten first, and tried again.
pub(crate) const ZERO_COPY_COPIED_PEERS: usize = 256;
