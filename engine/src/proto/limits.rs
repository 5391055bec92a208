//! Every number of the peer protocol, with its unit, its owner and its reason.

/// Longest frame but `Opened`, in bytes: a `Have` of thousands of runs fits, and a stranger can ask for no more memory.
pub const FRAME_MAX_BYTES: usize = 64 * 1024;

/// Longest `Opened`, in bytes: the bit field of a file of [`FILE_PIECES_MAX`] pieces, and what goes with it.
pub const OPENED_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of an `Opened` besides its bit field, at most: a tag and two lengths (varints of at most 9 bytes), a signature.
pub const OPENED_REST_BYTES: usize = 128;

/// Most pieces of a file, so that every bit field fits an `Opened`: 33,553,408, or 512 MiB less than 16 TiB.
pub const FILE_PIECES_MAX: u32 = 8 * (4 * 1024 * 1024 - 128);

const _: () = assert!(FILE_PIECES_MAX as usize / 8 + OPENED_REST_BYTES == OPENED_MAX_BYTES);

/// Most pieces that one `Request` or `Cancel` names.
pub const REQUEST_MAX_PIECES: u32 = 64;

/// Most pieces requested and not answered on one connection: 64 MiB, half a second at 1 Gbit/s.
pub const OUTSTANDING_MAX_PIECES: u32 = 128;

/// Fewest pieces that a window lets be outstanding, so that one is always on its way while another is asked for.
pub const WINDOW_MIN_PIECES: u32 = 2;

/// Most runs in one `Have`, so that it stays within a frame (two varints of at most 5 bytes a run).
pub const HAVE_MAX_RANGES: usize = 4_096;

/// So often in a row a provider turns a consumer away from pieces that others have been sent: all that may be outstanding can
/// be such. The consumer bears it twice as often, and then takes the provider for one that gives nothing.
pub const DEFERRED_MAX: usize = OUTSTANDING_MAX_PIECES as usize;

/// Connections of one peer key for one file, at a provider.
pub const CONNECTIONS_PER_PEER: usize = 4;

/// With few peers each gets several connections, until there are about this many: a connection is served by one thread
/// at each end, so one alone leaves the other cores idle.
pub const CONNECTIONS_WANTED: usize = 4;

/// Connections that a download opens to each of its peers, when so many can be used.
#[must_use]
pub const fn connections_each(peers: usize) -> usize {
    // A minimum by hand: `Ord::clamp` is not for constants.
    let each = CONNECTIONS_WANTED.div_ceil(if peers == 0 { 1 } else { peers });
    if each < CONNECTIONS_PER_PEER { each } else { CONNECTIONS_PER_PEER }
}

/// Connections at a provider that have not shown a ticket yet.
pub const UNAUTHENTICATED_MAX: usize = 256;

/// Connections at a provider in all.
pub const PROVIDER_CONNECTIONS_MAX: usize = 1_024;

/// Connections that one node opens to fetch, over all its downloads: each may hold one receive buffer.
pub const CONSUMER_CONNECTIONS_MAX: usize = 64;

/// Peers that one download keeps in mind.
pub const PEERS_PER_DOWNLOAD: usize = 200;

/// A handshake must be done in this time.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;

/// With requests open and no byte for this long, a peer counts as dead.
pub const SILENCE_TIMEOUT_MS: u64 = 30_000;

/// TCP keepalive's first probe.
pub const KEEPALIVE_S: u64 = 20;

/// A ticket's life, set by the tracker.
pub const TICKET_LIFE_S: u64 = 9 * 60;

/// How far past its end a ticket still counts, for clocks that differ.
pub const TICKET_GRACE_S: u64 = 60;

/// A peer is dropped with this many pieces whose digest failed.
pub const BAD_PIECES_MAX: u32 = 2;

/// Duplicate bytes that the endgame may cost: one in this many pieces (0.5 %) …
pub const ENDGAME_SHARE: u32 = 200;

/// … or this many pieces, whichever is more.
pub const ENDGAME_MIN_PIECES: u32 = 2;
