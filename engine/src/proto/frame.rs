//! The messages between peers, numbered in the order in which they stand here.
//!
//! A connection has one consumer, who opened it, and one provider. The provider greets; the consumer opens with a ticket
//! and a proof that it holds the ticket's key; the provider answers `Opened` or `Refused`. From then on each requested
//! index gets exactly one [`SendMessage::Piece`] or [`SendMessage::Reject`]. The bytes of a piece follow their `Piece` frame raw.

use bincode::{Decode, Encode};

use super::ticket::{Nonce, PeerKey, Signature, Ticket};
use super::units::{PieceCount, PieceIndex, PieceRange};

/// Version of this protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Provider: who I am, and what to sign.
    Greeting {
        /// [`PROTOCOL_VERSION`] of the provider.
        version: u32,
        /// Never used before.
        nonce: Nonce,
        /// The provider's key.
        peer_key: PeerKey,
    },
    /// Consumer: what I may fetch, and proof that I am the one who may.
    Open {
        /// By the trackers.
        ticket: Ticket,
        /// For the provider to sign.
        nonce: Nonce,
        /// [`sign_open`](super::ticket::sign_open).
        signature: Signature,
    },
    /// Provider: the file is here.
    Opened {
        /// Of the file, in bytes.
        length: u64,
        /// One bit a piece, piece 0 in the lowest bit of the first byte.
        bitfield: Vec<u8>,
        /// [`sign_opened`](super::ticket::sign_opened).
        signature: Signature,
    },
    /// Provider: no, and why. The connection ends.
    Refused {
        /// For the program.
        code: RefusedCode,
        /// For people.
        message: String,
    },
    /// Consumer: send these.
    Request {
        /// First piece.
        first: PieceIndex,
        /// How many, at most [`REQUEST_MAX_PIECES`](super::limits::REQUEST_MAX_PIECES).
        count: PieceCount,
    },
    /// Provider: a piece; its bytes follow.
    Piece {
        /// Which.
        index: PieceIndex,
        /// How many bytes follow.
        length: u32,
    },
    /// Provider: this one not.
    Reject {
        /// Which.
        index: PieceIndex,
        /// Why.
        code: RejectCode,
    },
    /// Consumer: no longer wanted. Each is still answered: with its bytes, or a `Reject` of code `Cancelled`.
    Cancel {
        /// First piece.
        first: PieceIndex,
        /// How many.
        count: PieceCount,
    },
    /// Provider: gained since.
    Have {
        /// Runs of pieces, ascending, none of which meets another; at most
        /// [`HAVE_MAX_RANGES`](super::limits::HAVE_MAX_RANGES).
        ranges: Vec<WireRange>,
    },
    /// Consumer: a fresh ticket for the same file.
    Renew {
        /// By the trackers.
        ticket: Ticket,
    },
    /// Either: the connection ends, and why.
    Bye {
        /// Why.
        code: ByeCode,
    },
    /// Tracker: show that you answer here.
    Prove {
        /// Never used before.
        nonce: Nonce,
    },
    /// Provider: [`sign_address`](super::ticket::sign_address).
    Proof {
        /// Over the nonce and the tracker's address.
        signature: Signature,
    },
}

/// Why a provider does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RefusedCode {
    /// Not this protocol, or not this version.
    Protocol,
    /// The ticket is not the trackers', or not this consumer's.
    Ticket,
    /// The ticket has expired.
    Expired,
    /// The file is not shared here.
    NotShared,
    /// A file of this name is shared here, with other content.
    OtherDigest,
    /// Too many connections; later perhaps.
    Busy,
}

/// Why a requested piece does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RejectCode {
    /// The provider does not have it.
    NotHeld,
    /// The consumer cancelled it.
    Cancelled,
    /// Not now.
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
    /// The node goes down.
    Shutdown,
    /// The file is no longer shared.
    Unshared,
    /// The other side broke the protocol.
    Protocol,
    /// Too long without a byte.
    Timeout,
    /// The consumer's ticket has expired.
    Expired,
    /// The provider sent bytes that are not the piece.
    BadPiece,
}

/// A run of pieces as it travels: unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireRange {
    /// First piece.
    pub first: u32,
    /// Last piece, itself included.
    pub last: u32,
}

impl WireRange {
    /// The run, when it is one.
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
