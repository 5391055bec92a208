//! One file on its way to this node: which connections, which requests, what counts as proven.
//!
//! ```text
//!              ┌──────────── piece_begins ─► bytes ─► landed ──► Job ──► judged ──► written ──► gained
//!   opened ────┤                                                   │        │
//!              └──────────── message (Reject, Have, Bye)           └────────┴──► failed: needed again
//!
//!   resumed ──► found ──► all_found: then the above
//! ```
//!
//! Invariants: a piece is held only after its bytes matched its digest and were written; a link that fails while the
//! digest matches discards the chain and blames nobody; a transfer whose chain held at every piece needs no pass over
//! the whole; every request that was sent is either answered, or given up and asked for elsewhere.

mod answers;
mod pieces;
mod requests;
mod resumed;
mod silence;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::{PeerAddress, TransferAction};
use super::bitfield::Bitfield;
use super::equal_pieces::EqualPieces;
use super::frame::{ByeCode, Message};
use super::geometry::Geometry;
use super::manifest::{FileProof, Manifest};
use super::peers::{DisconnectReason, PeerNumber, PeerTable};
use super::picker::{ConnectionId, PiecePicker};
use super::session::ProviderFile;
use super::ticket::Ticket;
use super::time::Moment;
use super::units::{PieceCount, PieceIndex, PieceRange};
use super::window::RequestWindow;

pub use resumed::ResumedPieces;
pub use silence::LOCAL_STALL_MS;

/// So long after its start a transfer without any peer is one that waits for the first to be named.
const FIRST_OFFER_MS: u64 = 500;

/// One file on its way to this node.
#[derive(Debug)]
pub struct Transfer {
    manifest: Arc<Manifest>,
    geometry: Geometry,
    copies: EqualPieces,
    picker: PiecePicker,
    held: Bitfield,
    gained: Vec<PieceIndex>,
    chain: ChainCheck,
    peers: PeerTable,
    connections: BTreeMap<ConnectionId, PeerConnection>,
    next_connection: u64,
    next_order: u64,
    is_on_hold: bool,
    seed: u64,
    /// Since when it may call.
    started_at: Moment,
    last_poll: Moment,
    local_stall: Option<LocalStall>,
    dropped: Vec<PeerAddress>,
    counts: TransferByteCounts,
    actions: Vec<TransferAction>,
}

/// Bytes of pieces, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferByteCounts {
    /// Verified and written, holes and copies included.
    pub verified_bytes: u64,
    /// Received, whatever came of them.
    pub received_bytes: u64,
    /// Received although they were here or being verified already.
    pub duplicate_bytes: u64,
}

/// Whether the chain can still prove the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChainCheck {
    /// Every link so far held.
    Intact,
    /// There is none, or a link failed: one sequential pass decides.
    Unusable,
}

/// Times at which this node was seen to be what stands still, one soon after the other.
#[derive(Clone, Copy, Debug)]
struct LocalStall {
    first: Moment,
    last: Moment,
}

#[derive(Debug)]
struct PeerConnection {
    peer: PeerNumber,
    /// When.
    called_at: Moment,
    open: Option<OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    /// Of the peer's file, in bytes.
    length: u64,
    has: Bitfield,
    window: RequestWindow,
    cursor: Option<PieceIndex>,
    /// What the peer was asked for and has not answered.
    pending: BTreeMap<PieceIndex, PendingRequest>,
    /// It fell silent: nothing more is asked of it until it gives a sign of life.
    is_stalled: bool,
    /// When it was last of use.
    last_useful: Moment,
    /// Pieces that it keeps for others, since it gave one.
    deferred: usize,
    /// Since when its peer waits for this node to take what it sends, if it does.
    receive_paused_since: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    state: RequestState,
    /// Requests are answered about in this order.
    order: u64,
    /// When.
    requested_at: Moment,
}

/// Whose a piece is that a connection owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    /// This connection's.
    Expected,
    /// This connection's until it answers, which may be that the piece was cancelled.
    Cancelled,
    /// Others may be asked for it.
    Reassigned,
}

/// A piece that arrived, to be verified at each index where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedPiece {
    /// The piece that was asked for.
    pub index: PieceIndex,
    /// All pieces of this content, itself included.
    pub copies: Vec<PieceIndex>,
    /// Length of the file, in bytes, if this is its last piece: the last link needs it.
    pub file_length: u64,
    /// Whether links are to be checked.
    pub check_links: bool,
    /// When it was asked for.
    pub requested_at: Moment,
    /// Who sent it, and answers for it even when the connection has ended by then.
    peer: PeerNumber,
}

/// What was found of a [`ReceivedPiece`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceVerdict {
    /// The bytes are the piece.
    pub digest_matches: bool,
    /// The link holds at each of the copies; `true` where none was checked.
    pub links_match: bool,
}

/// How a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStatus {
    /// Pieces arrive or are asked for, or the first peers are about to be named.
    Active,
    /// No connected peer has any of the missing pieces, or those who have them are silent.
    NoPeers {
        /// How many are missing.
        missing: PieceCount,
        /// The first of them.
        first: PieceIndex,
        /// Peers were dropped for sending bad pieces.
        after_bad_pieces: bool,
    },
    /// Every peer refused the ticket.
    TicketRefused,
    /// Everything is held; the chain proved the whole.
    Complete,
    /// Everything is held; a sequential pass over the file has to prove the whole.
    Unverified,
}

impl Transfer {
    /// Everything is missing; a second call with the same seed and inputs does the same.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>, seed: u64, now: Moment) -> Transfer {
        let copies = EqualPieces::from_manifest(&manifest);
        let held = Bitfield::empty(manifest.pieces());
        let wanted = copies.to_fetch(&held);
        Transfer {
            geometry: manifest.geometry(),
            picker: PiecePicker::new(wanted, seed),
            held,
            gained: Vec::new(),
            chain: if manifest.chain().is_some() { ChainCheck::Intact } else { ChainCheck::Unusable },
            peers: PeerTable::default(),
            connections: BTreeMap::new(),
            next_connection: 0,
            next_order: 0,
            is_on_hold: false,
            seed,
            started_at: now,
            last_poll: now,
            local_stall: None,
            dropped: Vec::new(),
            counts: TransferByteCounts::default(),
            actions: Vec::new(),
            copies,
            manifest,
        }
    }

    /// The pieces of zeros, which are never fetched: each waits for [`Transfer::hole_verified`].
    #[must_use]
    pub fn holes(&self) -> Bitfield {
        self.copies.zeros().clone()
    }

    /// What is to be done since the last call.
    pub fn take_actions(&mut self) -> Vec<TransferAction> {
        std::mem::take(&mut self.actions)
    }

    /// Pieces verified and written since the last call.
    pub fn take_gained(&mut self) -> Vec<PieceRange> {
        let mut gained = std::mem::take(&mut self.gained);
        gained.sort_unstable();
        gained.dedup();
        PieceRange::from_ascending(gained)
    }

    /// Peers dropped for bad pieces since the last call.
    pub fn take_dropped(&mut self) -> Vec<PeerAddress> {
        std::mem::take(&mut self.dropped)
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

    /// Peers on whom the file is open, by one connection or several.
    #[must_use]
    pub fn open_peers(&self) -> usize {
        let open = self.connections.values().filter(|connection| connection.open.is_some());
        open.map(|connection| connection.peer).collect::<BTreeSet<_>>().len()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> TransferStatus {
        if self.held.is_full() {
            // Where only the pieces can be proven, they have been.
            let proven =
                self.chain == ChainCheck::Intact || matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
            return if proven { TransferStatus::Complete } else { TransferStatus::Unverified };
        }
        let Some(first) = self.picker.first_missing() else { return TransferStatus::Active };
        let alive = self.connections.values().any(|connection| match &connection.open {
            None => true,
            Some(open) => !open.is_stalled && (!open.pending.is_empty() || self.picker.needs_from(&open.has)),
        });
        let expects_peers =
            !self.peers.any_known() && self.last_poll.ms_since(self.started_at) < FIRST_OFFER_MS;
        if alive || expects_peers || self.peers.any_at_connection_limit() || self.picker.any_arrived() {
            TransferStatus::Active
        } else if self.peers.all_refused_ticket() {
            TransferStatus::TicketRefused
        } else {
            let missing = PieceCount(self.held.pieces().0 - self.held.count().0);
            TransferStatus::NoPeers { missing, first, after_bad_pieces: self.peers.any_dropped() }
        }
    }

    /// Learns of peers.
    pub fn add_peers(&mut self, now: Moment, peers: &[PeerAddress]) {
        self.peers.add_peers(now, peers);
        self.call_peers(now);
    }

    /// Hands a fresh ticket to open connections, and calls those who refused the old one.
    pub fn renew_ticket(&mut self, now: Moment, ticket: &Ticket) {
        self.peers.ticket_renewed(now);
        for (connection, _) in self.connections.iter().filter(|(_, connection)| connection.open.is_some()) {
            let message = Message::Renew { ticket: ticket.clone() };
            self.actions.push(TransferAction::Send { connection: *connection, message });
        }
        self.call_peers(now);
    }

    /// Stops asking and closes every connection, until [`Transfer::resume`].
    pub fn hold(&mut self, now: Moment) {
        self.is_on_hold = true;
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(now, connection, ByeCode::Done);
        }
    }

    /// Goes on after [`Transfer::hold`].
    pub fn resume(&mut self, now: Moment) {
        self.is_on_hold = false;
        self.started_at = now;
        self.call_peers(now);
    }

    /// A connection is open and its peer has proven itself.
    pub fn connection_opened(&mut self, now: Moment, connection: ConnectionId, holding: ProviderFile) {
        let Some(PeerConnection { peer, open, called_at: _ }) = self.connections.get_mut(&connection) else {
            return;
        };
        self.peers.connection_opened(*peer);
        let ProviderFile { length, pieces: has } = holding;
        if !has.is_full() {
            has.iter().for_each(|index| self.picker.add_partial_holder(index));
        }
        let window = RequestWindow::new(now);
        *open = Some(OpenConnection {
            length,
            has,
            window,
            cursor: None,
            pending: BTreeMap::new(),
            is_stalled: false,
            last_useful: now,
            deferred: 0,
            receive_paused_since: None,
        });
        self.call_peers(now);
        self.refill_window(now, connection);
    }

    /// A connection ended, or never came about.
    pub fn connection_closed(&mut self, now: Moment, connection: ConnectionId, ending: &DisconnectReason) {
        if let Some(PeerConnection { peer, open, called_at: _ }) = self.connections.remove(&connection) {
            self.peers.connection_ended(now, peer, open.is_some(), ending);
            self.forget(now, connection, open);
        }
    }

    /// Ends a connection from this side.
    fn close(&mut self, now: Moment, connection: ConnectionId, code: ByeCode) {
        if let Some(PeerConnection { peer, open, called_at: _ }) = self.connections.remove(&connection) {
            match code {
                ByeCode::Timeout => {
                    self.peers.connection_ended(now, peer, open.is_some(), &DisconnectReason::Lost)
                }
                _ => self.peers.connection_released(peer, open.is_some()),
            }
            self.actions.push(TransferAction::Close { connection, code });
            self.forget(now, connection, open);
        }
    }

    fn forget(&mut self, now: Moment, connection: ConnectionId, open: Option<OpenConnection>) {
        let Some(open) = open else { return };
        if !open.has.is_full() {
            self.picker.remove_partial_holder(open.has.iter());
        }
        open.pending.keys().for_each(|index| self.picker.abandon(connection, *index));
        self.refill_all_windows(now);
    }

    fn open_connection(&mut self, connection: ConnectionId) -> Option<&mut OpenConnection> {
        self.connections.get_mut(&connection)?.open.as_mut()
    }
}

#[cfg(test)]
mod tests;
