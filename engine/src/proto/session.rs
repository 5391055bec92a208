//! The order of messages on one connection: the consumer's handshake, and the whole provider side.
//!
//! A [`ProviderSession`] exists only after the ticket and the proof of its key were verified. Every requested index gets
//! exactly one answer, and at most [`OUTSTANDING_MAX_PIECES`] requests wait.

use std::collections::VecDeque;
use std::time::Duration;

use super::bitfield::Bitfield;
use super::encoding::CodecError;
use super::frame::{ByeCode, Message, PROTOCOL_VERSION, RefusedCode, RejectCode};
use super::geometry::Geometry;
use super::limits::{OUTSTANDING_MAX_PIECES, RENEWAL_EVERY_MS, RENEWALS_BURST, REQUEST_MAX_PIECES};
use super::rate::BurstLimit;
use super::steering::{RequestSteering, UploadHistory};
use super::ticket::{self, Grant, Nonce, PeerKey, SecretKey, Ticket, TrackerKey, UnixSeconds};
use super::time::Moment;
use super::units::{PieceCount, PieceIndex, PieceRange};

/// A violation of the protocol by the other side, which ends the connection and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The message is not allowed at this point.
    #[error("a message came out of turn")]
    OutOfTurn,
    /// The other side speaks another version.
    #[error("the peer speaks version {0} of the protocol, this program speaks {PROTOCOL_VERSION}")]
    Version(u32),
    /// The peer has another key than the tracker named, or did not prove it.
    #[error("the peer did not prove the key that the tracker names for it")]
    Identity,
    /// The peer's file has another length, in bytes.
    #[error("the peer's file has {0} bytes, which is not the length of this file")]
    Length(u64),
    /// The message names no pieces, too many, or pieces that the file does not have.
    #[error("a request, answer or announcement names pieces that the file does not have, or too many")]
    Pieces,
    /// The bytes are not a message, or a longer one than is allowed.
    #[error("the peer sent bytes that are not a message of the protocol: {0}")]
    Undecodable(CodecError),
    /// The piece was not requested, or has the wrong length.
    #[error("piece {0} was not requested, or has a wrong length")]
    Unrequested(PieceIndex),
    /// The peer renews its ticket, or cancels requests, more often than its transfer can need.
    #[error("the peer renews its ticket or cancels requests too often")]
    TooOften,
}

/// The consumer's side of the handshake.
#[derive(Debug)]
pub struct ConsumerHandshake {
    provider: PeerKey,
    nonce: Nonce,
    is_greeted: bool,
}

/// The file of a provider that has proven its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderFile {
    /// Length in bytes.
    pub length: u64,
    /// The pieces that the provider has.
    pub pieces: Bitfield,
}

impl ConsumerHandshake {
    /// Starts a handshake. `provider` is the key that the tracker named; `nonce` must be unique to this connection.
    #[must_use]
    pub fn new(provider: PeerKey, nonce: Nonce) -> ConsumerHandshake {
        ConsumerHandshake { provider, nonce, is_greeted: false }
    }

    /// Answers the provider's greeting.
    ///
    /// # Errors
    /// [`Violation`] when the message is not a greeting, of another version, or by another key.
    pub fn answer_greeting(
        &mut self,
        message: &Message,
        ticket: &Ticket,
        key: &SecretKey,
    ) -> Result<Message, Violation> {
        let Message::Greeting { version, nonce, peer_key } = *message else {
            return Err(Violation::OutOfTurn);
        };
        if version != PROTOCOL_VERSION {
            return Err(Violation::Version(version));
        }
        if peer_key != self.provider || self.is_greeted {
            return Err(Violation::Identity);
        }
        self.is_greeted = true;
        let signature = ticket::sign_open(key, nonce, ticket, peer_key);
        Ok(Message::Open { ticket: ticket.clone(), nonce: self.nonce, signature })
    }

    /// Takes the provider's `Opened`, for a file laid out as `geometry`.
    ///
    /// # Errors
    /// [`Violation`] when the proof fails, or the provider's file has another length or number of pieces.
    pub fn accept_opened(
        self,
        message: &Message,
        geometry: Geometry,
        length_known: bool,
    ) -> Result<ProviderFile, Violation> {
        let Message::Opened { length, bitfield, signature } = message else {
            return Err(Violation::OutOfTurn);
        };
        if !self.is_greeted || !ticket::verify_opened(self.provider, self.nonce, *signature) {
            return Err(Violation::Identity);
        }
        let plausible =
            if length_known { *length == geometry.length() } else { geometry.same_pieces(*length) };
        if !plausible {
            return Err(Violation::Length(*length));
        }
        let pieces = Bitfield::from_bytes(bitfield, geometry.pieces()).map_err(|_| Violation::Pieces)?;
        Ok(ProviderFile { length: *length, pieces })
    }
}

/// Checks an `Open` against the provider's greeting. Whether the granted file is shared is not checked.
///
/// # Errors
/// [`RefusedCode`] when the ticket or the proof is not valid.
pub fn check_open(
    message: &Message,
    greeted_nonce: Nonce,
    own: PeerKey,
    trackers: TrackerKey,
    now: UnixSeconds,
) -> Result<(Grant, Nonce), RefusedCode> {
    let Message::Open { ticket, nonce, signature } = message else { return Err(RefusedCode::Protocol) };
    let grant = ticket.verify(trackers).map_err(|_| RefusedCode::Ticket)?;
    if !ticket::verify_open(grant.peer_key, greeted_nonce, ticket, own, *signature) {
        return Err(RefusedCode::Ticket);
    }
    if !grant.is_valid_at(now) {
        return Err(RefusedCode::Expired);
    }
    Ok((grant, *nonce))
}

/// The provider's side of an open connection.
#[derive(Debug)]
pub struct ProviderSession {
    grant: Grant,
    trackers: TrackerKey,
    geometry: Geometry,
    waiting: VecDeque<QueuedRequest>,
    steering: RequestSteering,
    renewals: BurstLimit,
    /// Pieces that the consumer may still name in `Cancel`: [`CANCELS_PER_REQUEST`] for each one that it has requested.
    cancels_left: u64,
}

/// A consumer cancels a request when it asks another peer instead, and again when that has delivered.
const CANCELS_PER_REQUEST: u64 = 2;

#[derive(Clone, Copy, Debug)]
struct QueuedRequest {
    index: PieceIndex,
    is_cancelled: bool,
}

/// The answer to one requested piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceAnswer {
    /// Send the piece and its bytes.
    Piece(PieceIndex),
    /// Reject the request.
    Reject(PieceIndex, RejectCode),
}

impl ProviderSession {
    /// A session on a connection that is open for `grant`.
    #[must_use]
    pub fn new(grant: Grant, trackers: TrackerKey, geometry: Geometry) -> ProviderSession {
        ProviderSession {
            grant,
            trackers,
            geometry,
            waiting: VecDeque::new(),
            steering: RequestSteering::default(),
            renewals: BurstLimit::new(Duration::from_millis(RENEWAL_EVERY_MS), RENEWALS_BURST),
            cancels_left: 0,
        }
    }

    /// End of the consumer's ticket.
    #[must_use]
    pub fn expires(&self) -> UnixSeconds {
        self.grant.expires
    }

    /// Takes a message of the consumer. Returns `Ok(Some(code))` for a goodbye.
    ///
    /// # Errors
    /// [`Violation`] when the protocol does not allow the message.
    pub fn handle_message(&mut self, now: Moment, message: &Message) -> Result<Option<ByeCode>, Violation> {
        match message {
            Message::Request { first, count } => self.queue_request(*first, *count)?,
            Message::Cancel { first, count } => self.cancel_request(*first, *count)?,
            Message::Renew { ticket } => self.renew_ticket(now, ticket)?,
            Message::Bye { code } => return Ok(Some(*code)),
            _ => return Err(Violation::OutOfTurn),
        }
        Ok(None)
    }

    fn checked_range(&self, first: PieceIndex, count: PieceCount) -> Result<PieceRange, Violation> {
        PieceRange::from_count(first, count)
            .filter(|range| self.geometry.contains_range(*range) && count.0 <= REQUEST_MAX_PIECES)
            .ok_or(Violation::Pieces)
    }

    fn queue_request(&mut self, first: PieceIndex, count: PieceCount) -> Result<(), Violation> {
        let range = self.checked_range(first, count)?;
        if self.waiting.len() + count.as_usize() > OUTSTANDING_MAX_PIECES as usize {
            return Err(Violation::Pieces);
        }
        self.cancels_left += CANCELS_PER_REQUEST * u64::from(count.0);
        self.waiting.extend(range.indices().map(|index| QueuedRequest { index, is_cancelled: false }));
        assert!(self.waiting.len() <= OUTSTANDING_MAX_PIECES as usize, "the queue is bounded");
        Ok(())
    }

    fn cancel_request(&mut self, first: PieceIndex, count: PieceCount) -> Result<(), Violation> {
        let range = self.checked_range(first, count)?;
        self.cancels_left = self.cancels_left.checked_sub(count.0.into()).ok_or(Violation::TooOften)?;
        for waiting in &mut self.waiting {
            waiting.is_cancelled |= range.first() <= waiting.index && waiting.index <= range.last();
        }
        Ok(())
    }

    fn renew_ticket(&mut self, now: Moment, ticket: &Ticket) -> Result<(), Violation> {
        // Before the signature is checked: that is what costs time.
        if self.renewals.reserve(now) > 0 {
            return Err(Violation::TooOften);
        }
        let fresh = ticket.verify(self.trackers).map_err(|_| Violation::Identity)?;
        let expires = fresh.expires.max(self.grant.expires);
        if (Grant { expires, ..fresh }) != (Grant { expires, ..self.grant.clone() }) {
            return Err(Violation::Identity);
        }
        self.grant.expires = expires;
        Ok(())
    }

    /// Takes the request to answer next, rejections first. A complete provider defers pieces that others have been sent
    /// ([`UploadHistory`]). Of the pieces that can be sent, the one that was sent least goes first, so that a swarm gets many
    /// different pieces; among equals the one requested first.
    pub fn next_answer(
        &mut self,
        held: &Bitfield,
        spread: &UploadHistory<impl Fn(PieceIndex) -> u32>,
        now: UnixSeconds,
    ) -> Option<PieceAnswer> {
        let refusal = |waiting: &QueuedRequest| {
            if waiting.is_cancelled {
                Some(RejectCode::Cancelled)
            } else if !self.grant.is_valid_at(now) {
                Some(RejectCode::Expired)
            } else if !held.has(waiting.index) {
                Some(RejectCode::NotHeld)
            } else if held.is_full() && self.steering.should_defer(waiting.index, spread) {
                Some(RejectCode::Busy)
            } else {
                None
            }
        };
        let refused = |(at, waiting)| refusal(waiting).map(|code| (at, code));
        if let Some((at, code)) = self.waiting.iter().enumerate().find_map(refused) {
            let index = self.waiting.remove(at)?.index;
            if code == RejectCode::Busy {
                self.steering.turned_away(index);
            }
            return Some(PieceAnswer::Reject(index, code));
        }
        let least = (0..self.waiting.len()).min_by_key(|at| spread.times_sent(self.waiting[*at].index))?;
        let index = self.waiting.remove(least)?.index;
        self.steering.piece_sent(index, spread);
        Some(PieceAnswer::Piece(index))
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
