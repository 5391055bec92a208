//! One file on its way to this node: connections, requests, and which pieces are proven.
//!
//! ```text
//!                          ┌── begin_piece ─► bytes_received ─► piece_received ──► ReceivedPiece
//!   connection_opened ─────┤                                                             │
//!                          └── handle_message (Reject, Have, Bye)                        ▼
//!                                     wrong: needed again ◄── piece_checked ──► piece_written ──► take_gained
//!
//!   resumed, restore_piece ──► finish_restore ──► then the above
//!
//!   pieces, resumed ──► Transfer ──► scheduler ──► connections ──► stall
//! ```
//!
//! A piece is held only after its bytes matched its digest and were written. A link that fails while the digest matches
//! discards the chain and blames no peer. A transfer whose chain held at every piece needs no pass over the whole file.

mod connections;
mod pieces;
mod resumed;
mod scheduler;
mod stall;

use std::sync::Arc;

use super::action::{NamedPeer, PeerAddress, TransferAction};
use super::bitfield::Bitfield;
use super::equal_pieces::EqualPieces;
use super::frame::{ByeCode, Message, WireRange};
use super::geometry::Geometry;
use super::limits::HAVE_MAX_RANGES;
use super::manifest::{FileProof, Manifest};
use super::peer_trouble::{DisconnectReason, PeerTroubles};
use super::peers::PeerNumber;
use super::picker::{ConnectionId, PiecePicker};
use super::session::{ProviderFile, Violation};
use super::ticket::Ticket;
use super::time::Moment;
use super::units::{PieceCount, PieceIndex, PieceRange};
use scheduler::RequestScheduler;

pub use resumed::ResumedPieces;
pub use stall::LOCAL_STALL_MS;

/// One file on its way to this node.
#[derive(Debug)]
pub struct Transfer {
    manifest: Arc<Manifest>,
    /// Exact once the last piece is held.
    geometry: Geometry,
    equal: EqualPieces,
    scheduler: RequestScheduler,
    held: Bitfield,
    gained: Vec<PieceIndex>,
    chain: ChainCheck,
    seed: u64,
    banned: Vec<PeerAddress>,
    counts: TransferByteCounts,
}

/// Bytes of pieces, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferByteCounts {
    /// Verified and written, including holes and copies.
    pub verified_bytes: u64,
    /// Received, including duplicates and wrong pieces.
    pub received_bytes: u64,
    /// Received although the piece was held or being verified already.
    pub duplicate_bytes: u64,
}

/// Whether the chain can still prove the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChainCheck {
    /// Every link so far held.
    Intact,
    /// There is no chain, or a link failed: a sequential pass over the file decides.
    Unusable,
}

/// A piece that arrived, to be verified for each index where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedPiece {
    /// The piece that was requested.
    pub index: PieceIndex,
    /// All missing pieces with this content, including `index`.
    pub copies: Vec<PieceIndex>,
    /// Length of the file in bytes if this is its last piece: the last link needs it.
    pub file_length: u64,
    /// Whether the links are to be checked.
    pub check_links: bool,
    /// When it was requested.
    pub requested_at: Moment,
    /// The sender, which is blamed for a wrong piece even when its connection has ended since.
    peer: PeerNumber,
}

/// Result of verifying a [`ReceivedPiece`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceVerdict {
    /// The bytes have the piece's digest.
    pub digest_matches: bool,
    /// The link holds for every copy; `true` where none was checked.
    pub links_match: bool,
}

/// The status of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStatus {
    /// Pieces arrive or are requested, or the first peers are about to be named.
    Active,
    /// No connected peer has any of the missing pieces, or those that have them are silent.
    NoPeers {
        /// Number of missing pieces.
        missing: PieceCount,
        /// The first missing piece.
        first: PieceIndex,
        /// A peer was banned for bad pieces.
        after_bad_pieces: bool,
    },
    /// Every peer refused the ticket.
    TicketRefused,
    /// All pieces are held, and the chain proved the whole file.
    Complete,
    /// All pieces are held; a sequential pass has to prove the whole file.
    Unverified,
}

impl Transfer {
    /// A transfer with all pieces missing. The same seed and inputs give the same actions.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>, seed: u64, now: Moment) -> Transfer {
        let equal = EqualPieces::from_manifest(&manifest);
        let held = Bitfield::empty(manifest.pieces());
        let picker = PiecePicker::new(equal.to_fetch(&held), seed);
        Transfer {
            geometry: manifest.geometry(),
            scheduler: RequestScheduler::new(picker, now),
            held,
            gained: Vec::new(),
            chain: if manifest.chain().is_some() { ChainCheck::Intact } else { ChainCheck::Unusable },
            seed,
            banned: Vec::new(),
            counts: TransferByteCounts::default(),
            equal,
            manifest,
        }
    }

    /// The pieces of zeros, which are never fetched: each waits for [`Transfer::add_held_piece`].
    #[must_use]
    pub fn holes(&self) -> Bitfield {
        self.equal.zeros().clone()
    }

    /// Actions for the driver since the last call.
    pub fn take_actions(&mut self) -> Vec<TransferAction> {
        std::mem::take(&mut self.scheduler.actions)
    }

    /// Pieces verified and written since the last call.
    pub fn take_gained(&mut self) -> Vec<PieceRange> {
        let mut gained = std::mem::take(&mut self.gained);
        gained.sort_unstable();
        gained.dedup();
        PieceRange::from_ascending(gained)
    }

    /// Peers banned for bad pieces since the last call.
    pub fn take_banned(&mut self) -> Vec<PeerAddress> {
        std::mem::take(&mut self.banned)
    }

    /// The pieces that are verified and written.
    #[must_use]
    pub fn held(&self) -> &Bitfield {
        &self.held
    }

    /// The layout: exact once the last piece is held.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Bytes counted so far.
    #[must_use]
    pub fn counts(&self) -> TransferByteCounts {
        self.counts
    }

    /// Peers with at least one open connection.
    #[must_use]
    pub fn open_peers(&self) -> usize {
        self.scheduler.connections.open_peers()
    }

    /// The peers that cannot be fetched from, as of the last poll.
    #[must_use]
    pub fn peer_troubles(&self) -> PeerTroubles {
        self.scheduler.peer_troubles()
    }

    /// Whether a peer stopped serving since its file has changed, and has not delivered a piece again.
    #[must_use]
    pub fn has_changed_source(&self) -> bool {
        self.scheduler.peers.any_source_changed()
    }

    /// The status at the last event.
    #[must_use]
    pub fn status(&self) -> TransferStatus {
        if self.held.is_full() {
            // Where only the pieces can be proven, they have been.
            let is_proven =
                self.chain == ChainCheck::Intact || matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
            return if is_proven { TransferStatus::Complete } else { TransferStatus::Unverified };
        }
        let Some(first) = self.scheduler.picker.first_missing() else { return TransferStatus::Active };
        if self.scheduler.is_active() {
            TransferStatus::Active
        } else if self.scheduler.peers.all_refused_ticket() {
            TransferStatus::TicketRefused
        } else {
            let missing = PieceCount(self.held.pieces().0 - self.held.count().0);
            TransferStatus::NoPeers { missing, first, after_bad_pieces: self.scheduler.peers.any_banned() }
        }
    }

    /// Adds peers that the trackers named.
    pub fn add_peers(&mut self, now: Moment, peers: impl IntoIterator<Item = impl Into<NamedPeer>>) {
        self.scheduler.add_peers(now, peers);
    }

    /// Sends a fresh ticket on all open connections, and calls the peers that refused the old one.
    pub fn renew_ticket(&mut self, now: Moment, ticket: &Ticket) {
        self.scheduler.renew_ticket(now, ticket);
    }

    /// Closes every connection and calls no peer until [`Transfer::resume`].
    pub fn suspend(&mut self, now: Moment) {
        self.scheduler.suspend(now);
    }

    /// Goes on after [`Transfer::suspend`].
    pub fn resume(&mut self, now: Moment) {
        self.scheduler.resume(now);
    }

    /// Calls all peers at once that are not banned, without their pauses. A transfer that knows no peer waits a moment for
    /// the first to be named.
    pub fn retry_peers(&mut self, now: Moment) {
        self.scheduler.retry_peers(now);
    }

    /// Calls peers again, and takes requests from silent connections. To be called about every 100 ms.
    /// `is_locally_stalled` says that a thread of this node has stalled, so that what peers sent may not have been read.
    pub fn poll(&mut self, now: Moment, is_locally_stalled: bool) {
        self.scheduler.poll(now, is_locally_stalled);
    }

    /// A connection is open, and its peer has proven its key.
    pub fn connection_opened(&mut self, now: Moment, connection: ConnectionId, file: ProviderFile) {
        assert_eq!(
            file.pieces.pieces(),
            self.held.pieces(),
            "the handshake refuses another number of pieces"
        );
        self.scheduler.connection_opened(now, connection, file);
    }

    /// A connection ended, or a call failed.
    pub fn connection_closed(&mut self, now: Moment, connection: ConnectionId, reason: &DisconnectReason) {
        self.scheduler.connection_closed(now, connection, reason);
    }

    /// The driver stopped or resumed reading from a connection.
    pub fn set_receive_paused(&mut self, now: Moment, connection: ConnectionId, is_paused: bool) {
        if let Some(open) = self.scheduler.connections.open_mut(connection) {
            open.set_receive_paused(now, is_paused);
        }
    }

    /// Takes a message of a provider other than `Piece`. Returns `Ok(Some(code))` when its goodbye ends the connection.
    ///
    /// # Errors
    /// [`Violation`] when the protocol does not allow the message. The driver then closes the connection and calls
    /// [`Transfer::connection_closed`].
    pub fn handle_message(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        message: &Message,
    ) -> Result<Option<ByeCode>, Violation> {
        match message {
            Message::Reject { index, code } => {
                self.scheduler.handle_reject(now, connection, *index, *code)?;
            }
            Message::Have { ranges } => {
                let ranges = check_announced(ranges).ok_or(Violation::Pieces)?;
                self.scheduler.handle_have(now, connection, &ranges, self.geometry)?;
            }
            Message::Bye { code } => return Ok(Some(*code)),
            _ => return Err(Violation::OutOfTurn),
        }
        Ok(None)
    }
}

/// The runs of a `Have`, if it is valid: at most [`HAVE_MAX_RANGES`], ascending, each piece named once. That bounds the cost
/// of a frame by the file's bit field, for any choice of runs.
fn check_announced(ranges: &[WireRange]) -> Option<Vec<PieceRange>> {
    if ranges.len() > HAVE_MAX_RANGES {
        return None;
    }
    let ranges: Vec<PieceRange> = ranges.iter().map(|range| range.checked()).collect::<Option<_>>()?;
    ranges.windows(2).all(|pair| pair[0].last() < pair[1].first()).then_some(ranges)
}

#[cfg(test)]
mod tests;
