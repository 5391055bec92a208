//! Every number of the state machine and the leases, with its unit and its reason.

/// Longest id of a user, group or upload, in bytes: it fits a table's column and a key of the tables.
pub const ID_MAX_BYTES: usize = 64;

/// Longest row of any table, in bytes: what one log entry may carry.
pub const ROW_MAX_BYTES: usize = 256 * 1024;

/// Pieces in one row of a manifest, and so in one command. Digests and chain are 160 KiB as bytes and 214 KiB in the
/// base64 of a log entry, both below [`ROW_MAX_BYTES`].
pub const MANIFEST_ROW_PIECES: u32 = 4_096;

/// Request ids remembered for each session: more than any client has in flight.
pub const ANSWERS_PER_SESSION: u64 = 256;

/// An upload in parts is forgotten when no part came for this long, in seconds.
pub const UPLOAD_LIFE_S: u64 = 10 * 60;

/// Longest life of a session, in seconds: 30 days.
pub const SESSION_LIFE_S: u64 = 30 * 24 * 3_600;

/// A node counts as online for this long after its last sign of life, in milliseconds: three pings of 10 s.
pub const LEASE_MS: u64 = 30_000;

/// What a leecher holds is kept for this long after it went offline, in milliseconds, so that a short cut of its
/// connection does not lose what it announced.
pub const LEECHER_MEMORY_MS: u64 = 10 * 60 * 1_000;

/// Most runs of pieces in one `update_pieces`: as many as one frame of the peer protocol announces.
pub const UPDATE_MAX_RANGES: usize = engine::proto::limits::HAVE_MAX_RANGES;

/// Nodes of one user that have one file, or fetch it: a room full of machines under one name. An answer about a file goes through
/// all of its nodes.
pub const NODES_PER_USER_AND_FILE: usize = 64;

/// Nodes that fetch one file at once, as far as they are told to others and tell what they hold; beyond it they only fetch.
pub const LEECHERS_PER_SWARM: usize = 4_096;

/// Most peers told for one piece, and in one list of peers.
pub const PEERS_PER_ANSWER: usize = 50;

/// Members who fetched from a peer and must agree before it is listed last for everybody.
pub const REPORTS_TO_SORT_LAST: usize = 3;

/// Peers of one swarm that reports are kept about; the rest of a swarm this large is enough to fetch from.
pub const REPORTED_PEERS_MAX: usize = 1_024;

/// Peers of one swarm that one user's reports are kept about: nobody fills the room for all.
pub const REPORTS_PER_USER: usize = 32;
