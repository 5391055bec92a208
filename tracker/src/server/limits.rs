//! The limits of the server, with unit and reason. Limits that clients must know are in
//! [`api`](crate::api::limits).

use crate::api::limits::REQUEST_MAX_BYTES;

/// Connections that wait to be accepted. The kernel's own limit is lower on old systems and then applies.
pub(super) const BACKLOG: i32 = 4_096;

/// Places for connections, as far as the limit of descriptors allows. See [`places`](super::places) for the shares below.
pub(super) const CONNECTIONS_MAX: usize = 65_536;

/// Descriptors that no connection gets: the data, the log, calls to nodes, and what the system libraries open.
pub(super) const DESCRIPTORS_RESERVED: usize = 64;

/// Connections without a session have at most this part of all places: a half.
pub(super) const STRANGERS_PART: usize = 2;

/// Sessions leave this part of all places to connections without a session, or no user could log in: an eighth.
pub(super) const STRANGERS_LEFT_PART: usize = 8;

/// Connections without a session from one address block: an eighth of all places.
pub(super) const STRANGERS_PER_BLOCK_PART: usize = 8;

/// Connections with a session from one address block: a quarter of all places.
pub(super) const SESSIONS_PER_BLOCK_PART: usize = 4;

/// Connections with sessions of one user: an eighth of all places.
pub(super) const SESSIONS_PER_USER_PART: usize = 8;

/// A connection that has completed no request ends after this long, in milliseconds.
pub(super) const FIRST_REQUEST_MS: u64 = 60_000;

/// A connection without a session ends this long after its last request, in milliseconds, while no other is open. The
/// time shrinks in proportion to the places that are free, down to [`STRANGER_SILENCE_MIN_MS`].
pub(super) const STRANGER_SILENCE_MAX_MS: u64 = 10 * 60 * 1_000;

/// See [`STRANGER_SILENCE_MAX_MS`].
pub(super) const STRANGER_SILENCE_MIN_MS: u64 = 5_000;

/// Silence after which the kernel asks whether a client's host is still there, in seconds.
pub(super) const KEEPALIVE_IDLE_S: u64 = 15;

/// Time between two such questions, in seconds.
pub(super) const KEEPALIVE_INTERVAL_S: u64 = 5;

/// A host that acknowledges nothing for this long, in milliseconds, is gone, and its connections end.
pub(super) const USER_TIMEOUT_MS: u64 = 40_000;

/// Bytes of one read.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Reads of one connection in a turn.
pub(super) const READS_PER_TURN: usize = 16;

/// Requests of one connection in a turn.
pub(super) const REQUESTS_PER_TURN: usize = 16;

/// A connection's buffers above this size, in bytes, are freed when they are empty.
pub(super) const KEPT_BUFFER_BYTES: usize = 4 * 1024;

/// Size of the largest buffer that is lent from connection to connection, in bytes: a turn's answers to
/// `get_peers` fit.
pub(super) const SPARE_BUFFER_BYTES: usize = 128 * 1024;

/// With this many unsent bytes, the next request of a connection waits.
pub(super) const UNSENT_PAUSE_BYTES: usize = 1024 * 1024;

/// The same for a client that is not logged in: its answers are short.
pub(super) const ANONYMOUS_PAUSE_BYTES: usize = 4 * 1024;

/// Bytes of requests held for all logged-in clients together. Beyond it only small requests are read, and one
/// large request at a time. With the two budgets below: 256 MiB.
pub(super) const INPUT_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of requests and answers held for all anonymous clients together. Beyond it the oldest partial
/// request is refused. A thousand clients fit with the longest request that they may send.
pub(super) const ANONYMOUS_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of answers held or reserved for all logged-in clients together. Beyond it large answers wait. More
/// than ten of the longest usual ones fit.
pub(super) const ANSWERS_MAX_BYTES: usize = 128 * 1024 * 1024;

/// A request of up to this size, in bytes, is always read: a ping or a login is far smaller.
pub(super) const SMALL_REQUEST_BYTES: usize = 4 * 1024;

/// Bytes of one piece in an answer, without its peers: its hash twice in hex, a chain state, and the same as
/// values.
pub(super) const ANSWER_PIECE_BYTES: usize = 256;

/// Bytes of one peer of one piece in an answer: an IPv6 address and a port as text, and its place in the
/// list.
pub(super) const ANSWER_PEER_BYTES: usize = 64;

/// Bytes of one piece where the joined hashes of all pieces stand in for the hash of the file: as a value and
/// as hex.
pub(super) const JOINED_PIECE_BYTES: usize = 64;

/// Bytes of one entry in a list of groups, files or users: as a value and as text, with its name twice in
/// both.
pub(super) const LIST_ENTRY_BYTES: usize = 512;

/// Rows of the state that are read for one page of a list: about a millisecond.
pub(super) const LIST_PAGE_ROWS: usize = 1_000;

/// Files of a list that are read at once, before their seeders.
pub(super) const LIST_BATCH_FILES: usize = 64;

/// Estimated size of one element of an answer, in bytes, to decide whether the answer is a large body.
pub(super) const ELEMENT_BYTES: usize = 64;

/// While answers wait for room, a client must take [`DRAIN_WINDOW_BYTES`] of its answers in this many
/// milliseconds, or one part in [`DRAIN_WINDOWS`] of them if that is more; else its connection is closed.
pub(super) const DRAIN_WINDOW_MS: u64 = 10_000;

/// See [`DRAIN_WINDOW_MS`]: together 6.4 KiB/s, less than the slowest lines in use.
pub(super) const DRAIN_WINDOW_BYTES: u64 = 64 * 1024;

/// See [`DRAIN_WINDOW_MS`].
pub(super) const DRAIN_WINDOWS: u64 = 4;

/// A partial request that has not grown for this long, in milliseconds, ends its connection.
pub(super) const REQUEST_STALL_MS: u64 = 10_000;

/// An answer of which the client has taken nothing for this long, in milliseconds, ends its connection.
pub(super) const ANSWER_STALL_MS: u64 = 60_000;

/// How long input is drained before a connection is closed, in milliseconds: a reset could discard the last
/// answer.
pub(super) const DRAIN_MS: u64 = 1_000;

/// Connections accepted in one round of the loop. Each gets a turn before others can displace it.
pub(super) const ACCEPTS_PER_ROUND: usize = 256;

/// Lines at `info` and above that one place in the code writes to the log in a window; more are counted.
pub(super) const LOG_LINES_PER_WINDOW: u64 = 10;

/// See [`LOG_LINES_PER_WINDOW`], in milliseconds.
pub(super) const LOG_WINDOW_MS: u64 = 60_000;

/// Pause before the next connections are accepted, in milliseconds.
pub(super) const ACCEPT_PAUSE_MS: u64 = 1;

/// Pause after a failed accept, in milliseconds: no event announces that descriptors are free again.
pub(super) const ACCEPT_RETRY_MS: u64 = 100;

/// A difference of the system's clock above this, in seconds, is a leap, which is not followed at once.
pub(super) const CLOCK_LEAP_S: u64 = 60;

/// A leap that the clock has kept for this long, in milliseconds, is followed: 24 hours, in which the operator can set it right.
pub(super) const CLOCK_LEAP_TRUSTED_MS: u64 = 24 * 3_600 * 1_000;

/// For this long after its start, in milliseconds, a tracker deletes no expired session: its clock may be wrong.
pub(super) const SESSIONS_KEPT_MS: u64 = 3_600 * 1_000;

/// Interval between sweeps of leases and expired rows, in milliseconds.
pub(super) const SWEEP_MS: u64 = 30_000;

/// Events of one poll.
pub(super) const EVENTS: usize = 1_024;

/// Threads that hash passwords. Each takes a core, and 19 MiB that it keeps from its first hash on:
/// allocating that much for each hash would fragment the heap.
pub(super) const PASSWORD_THREADS: usize = 2;

/// Passwords of each [class](super::password_queue::PasswordClass) that wait for a thread; more are answered with `busy`.
pub(super) const PASSWORDS_WAITING: usize = 64;

/// Nodes that are called back at the same time, each by a thread that waits for [`ADDRESS_CHECK_MS`] at most.
pub(super) const ADDRESS_CHECK_THREADS: usize = 4;

/// Calls that wait for a thread; more are answered with `busy`.
pub(super) const ADDRESS_CHECKS_WAITING: usize = 16;

/// Time for one call, in milliseconds: shorter than clients wait for an answer, also behind other calls.
pub(super) const ADDRESS_CHECK_MS: u64 = 5_000;

/// Longest frame that a called node may send, in bytes: a greeting and a proof are shorter.
pub(super) const ADDRESS_CHECK_FRAME_BYTES: usize = 256;

/// Calls for one user in [`ADDRESS_CHECKS_WINDOW_MS`]: some nodes that start, and a few runs of `doctor`.
pub(super) const ADDRESS_CHECKS_PER_WINDOW: u32 = 20;

/// See [`ADDRESS_CHECKS_PER_WINDOW`].
pub(super) const ADDRESS_CHECKS_WINDOW_MS: u64 = 60_000;

/// Threads that parse, build and render large bodies.
pub(super) const BODY_THREADS: usize = 1;

/// Large bodies that wait for a thread; more wait with their connections.
pub(super) const BODIES_WAITING: usize = 16;

/// Longer requests, in bytes, are parsed by a worker thread, and longer answers rendered there.
pub(super) const LARGE_BODY_BYTES: usize = 64 * 1024;

/// Password attempts that one address block may begin at once and have fail: a room full of people who mistype.
pub(super) const BLOCK_ATTEMPTS_MAX: u64 = 64;

/// One more attempt is allowed to an address block after this long, in milliseconds.
pub(super) const BLOCK_ATTEMPT_EVERY_MS: u64 = 2_000;

/// The same for one user at one address block.
pub(super) const USER_ATTEMPTS_MAX: u64 = 10;

/// See [`USER_ATTEMPTS_MAX`], in milliseconds: at most 8,640 guesses a day.
pub(super) const USER_ATTEMPT_EVERY_MS: u64 = 10_000;

/// Users and addresses whose attempts are counted; beyond it those that expire first are dropped.
pub(super) const THROTTLED_MAX: usize = 16_384;

/// Addresses of users that are remembered; beyond it the oldest are dropped.
pub(super) const KNOWN_LOGINS_MAX: usize = 16_384;

/// A ticket is reused for this long after it was signed, in seconds: it is valid for 8 more minutes then.
pub(super) const TICKET_AGAIN_S: u64 = 60;

/// Tickets kept for reuse: at about 600 bytes each, 10 MB. Beyond it the older half is dropped.
pub(super) const TICKETS_KEPT: usize = 16_384;

const _: () =
    assert!(TICKET_AGAIN_S < engine::proto::limits::TICKET_LIFE_S, "most of a ticket's life is left");

/// Rows of the state's current view that are cached: at about 250 bytes each, 16 MB. Beyond it the cache is
/// cleared.
pub(super) const KNOWN_ROWS_MAX: usize = 65_536;

/// Number of cached rows that a file without its seeders counts as: it takes about 900 bytes.
pub(super) const KNOWN_FILE_ROWS: usize = 4;

/// Shortest time between two attempts to get a new view of the state after a failed read, in milliseconds.
pub(super) const VIEW_RETRY_MS: u64 = 100;

/// A state that cannot be read is logged once, and again after this long without a failed read, in
/// milliseconds.
pub(super) const READ_AGAIN_MS: u64 = 60_000;

/// Peers that a classic answer chooses from, best first: each piece may look at all of them.
pub(super) const CLASSIC_CANDIDATES_MAX: usize = 512;

/// Peers named in one classic answer, over all its pieces: at about 25 bytes each, 10 MB.
pub(super) const CLASSIC_PEERS_MAX: usize = 400_000;

/// Peers that are named for each piece at least, if it has as many.
pub(super) const CLASSIC_PEERS_MIN: usize = 4;

const _: () = assert!(INPUT_MAX_BYTES >= 4 * REQUEST_MAX_BYTES, "several large requests fit at once");

/// Outcomes of commands that may wait for the loop: as many as the replica can have in flight.
pub(super) const OUTCOMES_WAITING: usize = crate::replica::limits::UNDERWAY_MAX_COMMANDS;
