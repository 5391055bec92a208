//! Every number of the control protocol, with its unit and its reason.

/// Longest request before login, in bytes: a stranger can ask for no more memory.
pub const REQUEST_BEFORE_LOGIN_MAX_BYTES: usize = 64 * 1024;

/// Longest request after login, in bytes: 65,536 pieces as hex, with their chain, fit.
pub const REQUEST_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Longest answer that a client takes, in bytes: the classic view of as many pieces as a message may carry, with as many
/// peers each as an answer may name, is longer only where it was asked for without `count`.
pub const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;

/// A request that is too large is read over and dropped up to this many bytes, so that the connection survives it.
pub const SKIP_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Deepest nesting of a request: ours have 4; parsers of deeper ones run out of stack.
pub const DEPTH_MAX: u32 = 16;

/// Most pieces in one message: 32 GiB of file.
pub const PIECES_PER_MESSAGE: usize = 65_536;

/// Most ranges in one `update_pieces`.
pub const RANGES_PER_MESSAGE: usize = crate::state::limits::UPDATE_MAX_RANGES;

/// Most peers named for one piece, and in one list of peers.
pub const PEERS_MAX: usize = crate::state::limits::PEERS_PER_ANSWER;

/// Longest password, in bytes.
pub const PASSWORD_MAX_BYTES: usize = 1_024;

/// Longest `request_id`, in bytes: it is echoed and, for writes, remembered.
pub const REQUEST_ID_MAX_BYTES: usize = 128;

/// Longest session token, in bytes; ours have about 200.
pub const SESSION_MAX_BYTES: usize = 512;

/// Longest reason of a `report_peer`, in bytes.
pub const REASON_MAX_BYTES: usize = 256;

/// Hash lists longer than this are sent as one base64 string, which is 28 bytes a value where hex takes 43.
pub const HEX_LIST_MAX: usize = 64;

/// Longest ticket in base64, in bytes. The tracker's have about 500; a ticket must fit the frame that opens a peer connection.
pub(super) const TICKET_MAX_BYTES: usize = 4 * 1024;
