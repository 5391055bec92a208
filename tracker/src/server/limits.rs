//! Every number of the server, with its unit and its reason. Those that clients meet stand in [`api`](crate::api::limits).

use crate::api::limits::REQUEST_MAX_BYTES;

/// Connections waiting to be accepted: the kernel's own ceiling is lower on old systems and then holds.
pub(super) const BACKLOG: i32 = 4_096;

/// Connections open at once; beyond it new ones wait in the backlog.
pub(super) const CONNECTIONS_MAX: usize = 65_536;

/// Bytes that one read takes, and so a connection's share of one turn of the loop.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Reads of one connection before others have their turn.
pub(super) const READS_PER_TURN: usize = 16;

/// Requests of one connection before others have their turn.
pub(super) const REQUESTS_PER_TURN: usize = 16;

/// With more than this waiting to be sent, in bytes, a connection's next request waits too.
pub(super) const UNSENT_PAUSE_BYTES: usize = 1024 * 1024;

/// The same for those who are not logged in: their answers are short, and so is what is kept for each.
pub(super) const ANONYMOUS_PAUSE_BYTES: usize = 4 * 1024;

/// Bytes of requests that those who are logged in may have under way together; beyond it only small ones are read, and one
/// large one at a time. With the two budgets below: 256 MiB.
pub(super) const INPUT_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that strangers may have under way together, requests and answers; beyond it the oldest half request ends. A thousand
/// strangers fit with the longest request that they may send.
pub(super) const ANONYMOUS_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of members' answers, built or begun, that may wait for their clients together; beyond it large ones are begun later. Over
/// ten of the longest usual ones fit.
pub(super) const ANSWERS_MAX_BYTES: usize = 128 * 1024 * 1024;

/// A request that does not grow above this, in bytes, is read whatever others hold: a ping or a login is far smaller.
pub(super) const SMALL_REQUEST_BYTES: usize = 4 * 1024;

/// What one piece comes to in an answer, in bytes, without its peers: twice its hash in hex, a chain state, and the same as values.
pub(super) const ANSWER_PIECE_BYTES: usize = 256;

/// What a peer that is named for one piece comes to in an answer, in bytes: an IPv6 address and a port as text, and its place in
/// the list.
pub(super) const ANSWER_PEER_BYTES: usize = 64;

/// What one piece comes to, in bytes, where all hashes joined stand for a file's: as a value and as hex.
pub(super) const JOINED_PIECE_BYTES: usize = 64;

/// What one entry of a list of groups, files or users comes to in an answer, in bytes: as a value and as text, its name twice in
/// both.
pub(super) const LIST_ENTRY_BYTES: usize = 512;

/// Rows of the state that are read for a list before others have their turn: about a millisecond.
pub(super) const LIST_PAGE_ROWS: usize = 1_000;

/// Files of a list that are read together, before those who have each of them.
pub(super) const LIST_BATCH_FILES: usize = 64;

/// An element of an answer is about as long as this, in bytes, when it is asked whether the answer is a large body.
pub(super) const ELEMENT_BYTES: usize = 64;

/// While answers wait for room, a client takes [`DRAIN_WINDOW_BYTES`] of its own in this many milliseconds, or one part in
/// [`DRAIN_WINDOWS`] of what there is for it where that is more, or is dropped.
pub(super) const DRAIN_WINDOW_MS: u64 = 10_000;

/// See [`DRAIN_WINDOW_MS`]: together 6.4 KiB/s, less than the slowest lines in use give.
pub(super) const DRAIN_WINDOW_BYTES: u64 = 64 * 1024;

/// See [`DRAIN_WINDOW_MS`].
pub(super) const DRAIN_WINDOWS: u64 = 4;

/// A request that came to a stop half-way for this long, in milliseconds, ends its connection.
pub(super) const REQUEST_STALL_MS: u64 = 10_000;

/// An answer of which the client took no byte for this long, in milliseconds, ends its connection.
pub(super) const ANSWER_STALL_MS: u64 = 60_000;

/// How long input is drained before a connection is dropped, in milliseconds, so that no reset eats the answer.
pub(super) const DRAIN_MS: u64 = 1_000;

/// Pause after a failed accept, in milliseconds: the want of descriptors is not announced when it ends.
pub(super) const ACCEPT_RETRY_MS: u64 = 100;

/// How often leases and expired rows are swept, in milliseconds.
pub(super) const SWEEP_MS: u64 = 30_000;

/// Events taken from the kernel at once.
pub(super) const EVENTS: usize = 1_024;

/// Password hashes computed at once: each takes a core, and 19 MiB that its thread keeps from its first hash on, since memory of
/// that size which comes and goes leaves holes that the allocator never gives back.
pub(super) const PASSWORD_THREADS: usize = 2;

/// Passwords waiting for their hash; beyond it the answer is `busy`.
pub(super) const PASSWORDS_WAITING: usize = 64;

/// Of those waiting, from one place (see [`place`](super::throttle::place)) whatever others do: a room full of people.
pub(super) const PASSWORDS_PER_PLACE: usize = 8;

/// While fewer than this wait, one place may have more: nobody is kept out by it, for as many stay free for others.
pub(super) const PASSWORDS_SHARED: usize = PASSWORDS_WAITING / 2;

/// Threads that parse and render large bodies.
pub(super) const BODY_THREADS: usize = 1;

/// Large bodies handed to those threads; beyond it they wait with their connections.
pub(super) const BODIES_WAITING: usize = 16;

/// Requests longer than this, in bytes, are parsed off the loop, and answers rendered there.
pub(super) const LARGE_BODY_BYTES: usize = 64 * 1024;

/// Failed logins that cost nothing: people mistype.
pub(super) const FREE_FAILURES: u32 = 3;

/// The delay of the first failure that costs, in milliseconds; it doubles with each more.
pub(super) const FIRST_DELAY_MS: u64 = 250;

/// The longest delay of an answer, in milliseconds.
pub(super) const DELAY_MAX_MS: u64 = 8_000;

/// Failures are forgotten after this long without another, in milliseconds.
pub(super) const FAILURE_MEMORY_MS: u64 = 15 * 60 * 1_000;

/// Users and addresses whose failures are counted; beyond it the oldest are forgotten.
pub(super) const THROTTLED_MAX: usize = 16_384;

/// A ticket is given again for this long after it was signed, in seconds: it is good for 8 minutes more then.
pub(super) const TICKET_AGAIN_S: u64 = 60;

/// Tickets that are kept to be given again; at about 600 bytes each, 10 MB. Beyond it the elder half is forgotten.
pub(super) const TICKETS_KEPT: usize = 16_384;

const _: () =
    assert!(TICKET_AGAIN_S < engine::proto::limits::TICKET_LIFE_S, "most of a ticket's life is left");

/// Rows of the state that are kept as values while they are what stands; at about 250 bytes each, 16 MB. Beyond it all are
/// read anew.
pub(super) const KNOWN_ROWS_MAX: usize = 65_536;

/// What a file without those who have it counts as, in such rows: it is about 900 bytes.
pub(super) const KNOWN_FILE_ROWS: usize = 4;

/// After a read that failed, the state is looked at anew no sooner than this after the last look, in milliseconds.
pub(super) const VIEW_RETRY_MS: u64 = 100;

/// A state that cannot be read is told in the log once, and again when it was read for this long in between, in milliseconds.
pub(super) const READ_AGAIN_MS: u64 = 60_000;

/// Peers that a classic answer chooses from, the likeliest to help first: for each piece all of them may be looked at.
pub(super) const CLASSIC_CANDIDATES_MAX: usize = 512;

/// In a classic answer for many pieces, peers named in all: at about 25 bytes each, 10 MB.
pub(super) const CLASSIC_PEERS_MAX: usize = 400_000;

/// Yet each piece has at least this many of its peers named.
pub(super) const CLASSIC_PEERS_MIN: usize = 4;

const _: () = assert!(INPUT_MAX_BYTES >= 4 * REQUEST_MAX_BYTES, "several large requests fit at once");

/// Outcomes of commands that may wait for the loop: all that the replica can have under way.
pub(super) const OUTCOMES_WAITING: usize = crate::replica::limits::UNDERWAY_MAX_COMMANDS;
