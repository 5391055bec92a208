//! The limits of the state machine and the leases, each with its unit and its reason.

/// Longest id of a user, group or upload, in bytes. It fits a column of a list and a key of the tables.
pub const ID_MAX_BYTES: usize = 64;

/// Longest row of any table, in bytes; also bounds one log entry.
pub const ROW_MAX_BYTES: usize = 256 * 1024;

/// Pieces in one row of a manifest, and so in one command. Digests and chain are 160 KiB in a row and 214 KiB as the
/// base64 of a log entry, both below [`ROW_MAX_BYTES`].
pub const MANIFEST_ROW_PIECES: u32 = 4_096;

/// Request ids remembered for each session; more than a client has in flight.
pub const ANSWERS_PER_SESSION: u64 = 256;

/// An upload in parts is removed when no part came for this long, in seconds.
pub const UPLOAD_LIFE_S: u64 = 10 * 60;

/// Pieces of one user's unfinished uploads: 4 TiB of files, whose digests and chains take 320 MiB of rows.
pub const UNFINISHED_PIECES_PER_USER: u64 = 8 * 1024 * 1024;

/// Pieces of all unfinished uploads, four times those of one user: 1.25 GiB of rows.
pub const UNFINISHED_PIECES: u64 = 4 * UNFINISHED_PIECES_PER_USER;

/// Sessions of one user, ended ones included. One more removes an earlier one. More than the nodes that may share one
/// file.
pub const SESSIONS_PER_USER: usize = 256;

/// Longest life of a session, in seconds: 30 days.
pub const SESSION_LIFE_S: u64 = 30 * 24 * 3_600;

/// A node is online for this long after its last ping, in milliseconds: three intervals of 10 s.
pub const LEASE_MS: u64 = 30_000;

/// What a leecher announced is kept for this long after it went offline, in milliseconds, so that a short loss of its
/// connection does not lose it.
pub const LEECHER_MEMORY_MS: u64 = 10 * 60 * 1_000;

/// Most ranges in one `update_pieces`: as many as one frame of the peer protocol announces.
pub const UPDATE_MAX_RANGES: usize = engine::proto::limits::HAVE_MAX_RANGES;

/// Most nodes of one user that have or fetch one file. An answer about a file visits all of its nodes.
pub const NODES_PER_USER_AND_FILE: usize = 64;

/// Most leechers of one file that are listed and announce pieces. Further nodes can fetch, but are not listed.
pub const LEECHERS_PER_SWARM: usize = 4_096;

/// Bytes that the leases remember of one user's nodes: the bit fields of 64 nodes for a file of 1 TiB. Beyond it what was heard
/// of longest ago is forgotten.
pub const LEASE_USER_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that the leases remember of all users' nodes. Beyond it the user with the most loses what was heard of longest ago.
pub const LEASE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// What a node of one file takes in the leases without its names and its bit field, in bytes: entries of four maps, and the
/// reports of its user.
pub const NODE_BYTES: usize = 2_048;

/// How often the names of file and user are stored for a node.
pub const NODE_NAME_COPIES: usize = 4;

/// Nodes of one file whose content is remembered; see `swarm`. A node beyond them counts as one that means the listed content.
pub const ASKED_PER_FILE_MAX: usize = 8_192;

/// Removals of files, and of members, that the leader remembers for its messages.
pub const REMOVALS_KEPT: usize = 1_024;

/// Peer keys for which one session gets tickets. A node has one; a client that made itself another key has two.
pub const TICKET_KEYS_PER_SESSION: usize = 4;

/// Most peers told for one piece, and in one list of peers.
pub const PEERS_PER_ANSWER: usize = 50;

/// Most nodes of one user in one answer, so that no account fills it.
pub const PEERS_PER_USER: usize = 16;

/// Last places of a full answer, which the peers that do not come first get in turn.
pub const PEERS_IN_TURN: usize = 8;

/// Members who must report a peer, and have the file, before it is named later to all members.
pub const REPORTS_TO_SORT_LAST: usize = 3;

/// Users whose reports of one file's peers are kept. The other peers of so large a swarm suffice to fetch from.
pub const REPORTERS_PER_SWARM: usize = 1_024;

/// Most peers of one swarm that one user's reports are kept about.
pub const REPORTS_PER_USER: usize = 32;

// A manifest's row fits the limit also as the base64 of a log entry: 20 bytes of digest and 20 of chain a piece.
const _: () = assert!(MANIFEST_ROW_PIECES as usize * 2 * 20 * 4 / 3 + 4_096 <= ROW_MAX_BYTES);
// Each node of a user has a session of its own.
const _: () = assert!(NODES_PER_USER_AND_FILE < SESSIONS_PER_USER);
// A short absence outlasts the lease, so a leecher's pieces are kept for some time after it went offline.
const _: () = assert!(LEASE_MS < LEECHER_MEMORY_MS);
// The content of every listed leecher is remembered.
const _: () = assert!(LEECHERS_PER_SWARM <= ASKED_PER_FILE_MAX);
// One user can fill neither a swarm nor an answer nor the memory.
const _: () = assert!(NODES_PER_USER_AND_FILE < LEECHERS_PER_SWARM);
const _: () = assert!(PEERS_PER_USER < PEERS_PER_ANSWER);
const _: () = assert!(LEASE_USER_MAX_BYTES < LEASE_MAX_BYTES);
// The reports of a user fit what one node counts for: an address takes 32 bytes, and a set twice that.
const _: () = assert!(REPORTS_PER_USER * 2 * 32 <= NODE_BYTES);
// A single member cannot sort a peer last for all.
const _: () = assert!(REPORTS_TO_SORT_LAST > 1);
