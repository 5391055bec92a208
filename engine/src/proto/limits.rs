//! The limits of the peer protocol, with unit and reason.
//!
//! Constants of one algorithm, such as the retry pauses of a transfer, are defined in the file of the algorithm instead.

/// Longest frame except `Opened`, in bytes: a `Have` of thousands of runs fits, and an unknown peer cannot make a node
/// allocate more.
pub const FRAME_MAX_BYTES: usize = 64 * 1024;

/// Longest `Opened`, in bytes: the bit field of a file of [`FILE_PIECES_MAX`] pieces and [`OPENED_REST_BYTES`].
pub const OPENED_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Most bytes of an `Opened` besides its bit field: a tag and two lengths (varints of at most 9 bytes), a signature.
pub const OPENED_REST_BYTES: usize = 128;

/// Most pieces of a file, so that its bit field fits an `Opened`: 33,553,408, or 512 MiB less than 16 TiB.
pub const FILE_PIECES_MAX: u32 = 8 * (4 * 1024 * 1024 - 128);

const _: () = assert!(FILE_PIECES_MAX as usize / 8 + OPENED_REST_BYTES == OPENED_MAX_BYTES);
const _: () = assert!(FRAME_MAX_BYTES < OPENED_MAX_BYTES);

/// Most pieces that one `Request` or `Cancel` names.
pub const REQUEST_MAX_PIECES: u32 = 64;

/// Most pieces requested and not answered on one connection: 64 MiB, half a second at 1 Gbit/s.
pub const OUTSTANDING_MAX_PIECES: u32 = 128;

/// Smallest request window in pieces: one is on its way while another is requested.
pub const WINDOW_MIN_PIECES: u32 = 2;

const _: () =
    assert!(WINDOW_MIN_PIECES <= REQUEST_MAX_PIECES && REQUEST_MAX_PIECES <= OUTSTANDING_MAX_PIECES);

/// Most runs in one `Have`, so that it stays within a frame (two varints of at most 5 bytes a run).
pub const HAVE_MAX_RANGES: usize = 4_096;

// A tag, a count of at most 9 bytes, and the runs.
const _: () = assert!(1 + 9 + HAVE_MAX_RANGES * 2 * 5 <= FRAME_MAX_BYTES);

/// A provider defers at most so many requests of a consumer in a row, for pieces that others have been sent: as many as may
/// be outstanding. A consumer accepts twice as many, and then treats the provider as one that has nothing to give.
pub const DEFERRED_MAX: usize = OUTSTANDING_MAX_PIECES as usize;

/// Connections that a provider accepts from one peer key for one file.
pub const CONNECTIONS_PER_PEER: usize = 4;

/// With few peers each gets several connections, up to about this many in all: one thread serves a connection at each end,
/// so a single connection leaves the other cores idle.
pub const CONNECTIONS_WANTED: usize = 4;

/// Connections that a download opens to each of its peers, where it has pieces to request on them.
#[must_use]
pub const fn connections_each(peers: usize) -> usize {
    // `Ord::min` is not available in constants.
    let each = CONNECTIONS_WANTED.div_ceil(if peers == 0 { 1 } else { peers });
    if each < CONNECTIONS_PER_PEER { each } else { CONNECTIONS_PER_PEER }
}

/// Connections of a provider that have shown no ticket yet. One more ends the oldest of the address that has most.
pub const UNAUTHENTICATED_MAX: usize = 256;

/// Connections of a provider that have shown a ticket. One more ends one of the user or address that has most, or one that
/// has been idle for [`PLACE_IDLE_MS`]; or it is refused.
pub const PROVIDER_CONNECTIONS_MAX: usize = 1_024;

/// A consumer that was sent no piece for this long is idle. If all places are taken, it makes room for another.
pub const PLACE_IDLE_MS: u64 = 5_000;

/// Of the files that a node may have open, the part that connections of consumers may take at most, as a divisor: each takes
/// two descriptors, and half of all is left for the node's own files.
pub const DESCRIPTORS_PER_PLACE: u64 = 4;

/// `Renew` messages in a burst on one connection: a consumer renews its ticket every few minutes.
pub const RENEWALS_BURST: u32 = 4;

/// After the burst, one `Renew` in this time, in milliseconds. A check of its signature takes about 0.1 ms.
pub const RENEWAL_EVERY_MS: u64 = 10_000;

/// Requests of one user that a provider rejects in a burst without a pause: those of a full set of connections.
pub const REJECTIONS_BURST: u32 = 32 * OUTSTANDING_MAX_PIECES;

/// After the burst, one rejection for each user in this time, in milliseconds.
pub const REJECTION_EVERY_MS: u64 = 1;

/// Connections that one node opens to fetch, over all its downloads: each may hold one receive buffer.
pub const CONSUMER_CONNECTIONS_MAX: usize = 64;

/// Peers that one download keeps.
pub const PEERS_PER_DOWNLOAD: usize = 200;

/// Peers that a message about a waiting download names, of those that it cannot fetch from: more do not fit a line.
pub const PEER_TROUBLES_SHOWN: usize = 3;

/// Time allowed for the first attempt to connect to a peer: one lost packet is sent again within it. Each failure doubles it,
/// for links that are slow because they are full, up to [`CONNECT_TIMEOUT_MAX_MS`].
pub const CONNECT_TIMEOUT_FIRST_MS: u64 = 2_000;

/// Longest time allowed for an attempt to connect.
pub const CONNECT_TIMEOUT_MAX_MS: u64 = 8_000;

const _: () = assert!(CONNECT_TIMEOUT_MAX_MS <= HANDSHAKE_TIMEOUT_MS);

/// Time allowed for a handshake.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;

/// A connection with requests pending and no byte for this long is closed.
pub const SILENCE_TIMEOUT_MS: u64 = 30_000;

/// Idle time before the first TCP keepalive probe.
pub const KEEPALIVE_S: u64 = 20;

/// Lifetime of a ticket, set by the tracker.
pub const TICKET_LIFE_S: u64 = 9 * 60;

/// A ticket is accepted for this long after its end, for clocks that differ.
pub const TICKET_GRACE_S: u64 = 60;

const _: () = assert!(TICKET_GRACE_S < TICKET_LIFE_S);

/// A peer is banned at this many pieces with a wrong digest.
pub const BAD_PIECES_MAX: u32 = 2;

/// The last pieces may be requested twice: one in this many pieces of the file (0.5 %).
pub const ENDGAME_SHARE: u32 = 200;

/// The last pieces may be requested twice: at least this many.
pub const ENDGAME_MIN_PIECES: u32 = 2;
