//! The messages between peers, numbered in the order of this file.
//!
//! A connection has one consumer, which opened it, and one provider. The provider sends a greeting. The consumer opens with
//! a ticket and a proof that it has the ticket's key. The provider answers `Opened` or `Refused`. After that each requested
//! index gets exactly one [`Message::Piece`] or [`Message::Reject`]. The bytes of a piece follow its `Piece` frame raw.

use bincode::{Decode, Encode};

use super::ticket::{Nonce, PeerKey, Signature, Ticket};
use super::units::{PieceCount, PieceIndex, PieceRange};

/// Version of this protocol.
pub const PROTOCOL_VERSION: u32 = 2;

/// A message between peers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Provider: its key, and a nonce for the consumer to sign. A consumer of another version answers with its own greeting,
    /// so that both sides know.
    Greeting {
        /// [`PROTOCOL_VERSION`] of the sender.
        version: u32,
        /// Unique to this connection.
        nonce: Nonce,
        /// The provider's key.
        peer_key: PeerKey,
    },
    /// Consumer: a ticket for a file, and the proof that it has the ticket's key.
    Open {
        /// Signed by the trackers.
        ticket: Ticket,
        /// For the provider to sign.
        nonce: Nonce,
        /// [`sign_open`](super::ticket::sign_open).
        signature: Signature,
    },
    /// Provider: the file is shared here.
    Opened {
        /// Length of the file, in bytes.
        length: u64,
        /// The pieces it has, one bit each; piece 0 is the lowest bit of the first byte.
        bitfield: Vec<u8>,
        /// [`sign_opened`](super::ticket::sign_opened).
        signature: Signature,
    },
    /// Provider: the file is refused, and the connection ends.
    Refused {
        /// Reason, for the program.
        code: RefusedCode,
        /// Reason, as text for the user.
        message: String,
    },
    /// Consumer: requests a run of pieces.
    Request {
        /// First piece.
        first: PieceIndex,
        /// Number of pieces, at most [`REQUEST_MAX_PIECES`](super::limits::REQUEST_MAX_PIECES).
        count: PieceCount,
    },
    /// Provider: a piece; its bytes follow.
    Piece {
        /// Index of the piece.
        index: PieceIndex,
        /// Number of bytes that follow the frame.
        length: u32,
    },
    /// Provider: a requested piece does not come.
    Reject {
        /// Index of the piece.
        index: PieceIndex,
        /// Reason.
        code: RejectCode,
    },
    /// Consumer: withdraws requests. Each is still answered, by the piece or a `Reject` with code `Cancelled`.
    Cancel {
        /// First piece.
        first: PieceIndex,
        /// Number of pieces.
        count: PieceCount,
    },
    /// Provider: pieces that it has gained.
    Have {
        /// Runs of pieces, ascending and without overlap; at most
        /// [`HAVE_MAX_RANGES`](super::limits::HAVE_MAX_RANGES).
        ranges: Vec<WireRange>,
    },
    /// Consumer: a fresh ticket for the same file.
    Renew {
        /// Signed by the trackers.
        ticket: Ticket,
    },
    /// Either side: ends the connection.
    Bye {
        /// Reason.
        code: ByeCode,
    },
    /// Tracker: asks for a proof that the node answers at this address.
    Prove {
        /// Unique to this request.
        nonce: Nonce,
        /// The address that the tracker has connected to, as text.
        address: String,
    },
    /// Provider: the answer to `Prove`, which ends the connection.
    Proof {
        /// [`sign_address`](super::ticket::sign_address).
        signature: Signature,
    },
}

/// Why a provider refuses to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RefusedCode {
    /// The message is not of this protocol, or of another version.
    Protocol,
    /// The trackers did not sign the ticket, or it names another consumer.
    Ticket,
    /// The ticket has expired.
    Expired,
    /// The file is not shared here.
    NotShared,
    /// A file of this name with other content is shared here.
    OtherDigest,
    /// The provider has no place for another connection.
    Busy,
}

/// Why a requested piece is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RejectCode {
    /// The provider does not have the piece.
    NotHeld,
    /// The consumer cancelled the request.
    Cancelled,
    /// The consumer should request other pieces first.
    Busy,
    /// The provider's source file has changed.
    SourceChanged,
    /// The consumer's ticket has expired.
    Expired,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ByeCode {
    /// Nothing more is wanted.
    Done,
    /// The node shuts down.
    Shutdown,
    /// The file is no longer shared.
    Unshared,
    /// The other side broke the protocol.
    Protocol,
    /// No byte arrived for too long.
    Timeout,
    /// The consumer's ticket has expired.
    Expired,
    /// The provider sent wrong bytes for a piece.
    BadPiece,
    /// The provider needs the place for another consumer.
    Busy,
}

/// A run of pieces as encoded, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireRange {
    /// First piece.
    pub first: u32,
    /// Last piece, included.
    pub last: u32,
}

impl WireRange {
    /// The run; `None` when `last` is before `first`.
    #[must_use]
    pub fn checked(self) -> Option<PieceRange> {
        PieceRange::new(PieceIndex(self.first), PieceIndex(self.last))
    }
}

impl From<PieceRange> for WireRange {
    fn from(range: PieceRange) -> WireRange {
        WireRange { first: range.first().0, last: range.last().0 }
    }
}
