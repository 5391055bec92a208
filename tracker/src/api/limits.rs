//! The limits of the control protocol, each with its unit and its reason.

/// Longest request before login, in bytes. It bounds the memory that an unknown client can occupy.
pub const REQUEST_BEFORE_LOGIN_MAX_BYTES: usize = 64 * 1024;

/// Longest request after login, in bytes: room for 65,536 pieces as hex with their chain.
pub const REQUEST_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Longest answer that a client accepts, in bytes. Only a classic view without `count` can be longer, of a file with the
/// most pieces and the most peers.
pub const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Most bytes of a refused request that are skipped to keep the connection.
pub const SKIP_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Deepest nesting of a request. Valid ones have 4 levels; a parser of deep ones could run out of stack.
pub const DEPTH_MAX: u32 = 16;

/// Most entries in one answer to a list command. Longer lists are asked for in pages.
pub const LIST_MAX_ENTRIES: u32 = 10_000;

/// Most pieces in one message: 32 GiB of file.
pub const PIECES_PER_MESSAGE: usize = 65_536;

/// Most ranges in one `update_pieces`.
pub const RANGES_PER_MESSAGE: usize = crate::state::limits::UPDATE_MAX_RANGES;

/// Most peers named for one piece, and in one list of peers.
pub const PEERS_MAX: usize = crate::state::limits::PEERS_PER_ANSWER;

/// Longest password, in bytes.
pub const PASSWORD_MAX_BYTES: usize = 1_024;

/// Longest `request_id`, in bytes. It is echoed, and its hash is remembered for writes.
pub const REQUEST_ID_MAX_BYTES: usize = 128;

/// Longest session token, in bytes. The tracker's have about 200.
pub const SESSION_MAX_BYTES: usize = 512;

/// Longest reason of a `report_peer`, in bytes.
pub const REASON_MAX_BYTES: usize = 256;

/// Longest hash list that is sent as hex. Longer ones are sent in base64, which takes 28 bytes a value instead of 43.
pub const HEX_LIST_MAX: usize = 64;

/// Longest ticket in base64, in bytes. The tracker's have about 500; a ticket must fit the frame that opens a peer connection.
pub(super) const TICKET_MAX_BYTES: usize = 4 * 1024;

// A client gains room by logging in, and a request that is refused for its length can be skipped.
const _: () = assert!(REQUEST_BEFORE_LOGIN_MAX_BYTES < REQUEST_MAX_BYTES);
const _: () = assert!((REQUEST_MAX_BYTES as u64) < SKIP_MAX_BYTES);
// The most pieces fit one request, as hex with quotes and commas and with their chain.
const _: () = assert!(2 * 43 * PIECES_PER_MESSAGE < REQUEST_MAX_BYTES);
// A part with the most pieces consists of whole rows.
const _: () = assert!(PIECES_PER_MESSAGE.is_multiple_of(crate::state::limits::MANIFEST_ROW_PIECES as usize));
// A login fits before the login.
const _: () = assert!(6 * PASSWORD_MAX_BYTES + REQUEST_ID_MAX_BYTES < REQUEST_BEFORE_LOGIN_MAX_BYTES);
// The peers of a piece are named by 16-bit indices.
const _: () = assert!(PEERS_MAX <= u16::MAX as usize);
