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

use super::action::{Action, PeerAddress};
use super::bitfield::Bitfield;
use super::copies::Copies;
use super::frame::{ByeCode, Message};
use super::geometry::Geometry;
use super::manifest::{FileProof, Manifest};
use super::peers::{Ending, PeerNumber, Peers};
use super::picker::{ConnectionId, PiecePicker};
use super::session::Holding;
use super::ticket::Ticket;
use super::time::Moment;
use super::units::{PieceCount, PieceIndex, PieceRange};
use super::window::Window;

pub use resumed::Held;
pub use silence::OWN_STALL_MS;

/// So long after its start a transfer without any peer is one that waits for the first to be named.
const FIRST_OFFER_MS: u64 = 500;

/// One file on its way to this node.
#[derive(Debug)]
pub struct Transfer {
    manifest: Arc<Manifest>,
    geometry: Geometry,
    copies: Copies,
    picker: PiecePicker,
    held: Bitfield,
    gained: Vec<PieceIndex>,
    chain: Chain,
    peers: Peers,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: u64,
    next_order: u64,
    on_hold: bool,
    seed: u64,
    /// Since when it may call.
    began: Moment,
    last_poll: Moment,
    own_stall: Option<OwnStall>,
    dropped: Vec<PeerAddress>,
    counts: Counts,
    actions: Vec<Action>,
}

/// Bytes of pieces, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Verified and written, holes and copies included.
    pub verified_bytes: u64,
    /// Received, whatever came of them.
    pub received_bytes: u64,
    /// Received although they were here or being verified already.
    pub duplicate_bytes: u64,
}

/// Whether the chain can still prove the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    /// Every link so far held.
    Holds,
    /// There is none, or a link failed: one sequential pass decides.
    Useless,
}

/// Times at which this node was seen to be what stands still, one soon after the other.
#[derive(Clone, Copy, Debug)]
struct OwnStall {
    first: Moment,
    last: Moment,
}

#[derive(Debug)]
struct Connection {
    peer: PeerNumber,
    /// When.
    called: Moment,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// Of the peer's file, in bytes.
    length: u64,
    has: Bitfield,
    window: Window,
    cursor: Option<PieceIndex>,
    /// What the peer was asked for and has not answered.
    owes: BTreeMap<PieceIndex, Owed>,
    /// It fell silent: nothing more is asked of it until it gives a sign of life.
    stalled: bool,
    /// When it was last of use.
    useful: Moment,
    /// Pieces that it keeps for others, since it gave one.
    turned_away: usize,
    /// Since when its peer waits for this node to take what it sends, if it does.
    held_up: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    state: OwedState,
    /// Requests are answered about in this order.
    order: u64,
    /// When.
    asked: Moment,
}

/// Whose a piece is that a connection owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwedState {
    /// This connection's.
    Expected,
    /// This connection's until it answers, which may be that the piece was cancelled.
    Cancelled,
    /// Others may be asked for it.
    GivenUp,
}

/// A piece that arrived, to be verified at each index where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The piece that was asked for.
    pub index: PieceIndex,
    /// All pieces of this content, itself included.
    pub copies: Vec<PieceIndex>,
    /// Length of the file, in bytes, if this is its last piece: the last link needs it.
    pub file_length: u64,
    /// Whether links are to be checked.
    pub with_links: bool,
    /// When it was asked for.
    pub asked: Moment,
    /// Who sent it, and answers for it even when the connection has ended by then.
    peer: PeerNumber,
}

/// What was found of a [`Job`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The bytes are the piece.
    pub digest_holds: bool,
    /// The link holds at each of the copies; `true` where none was checked.
    pub links_hold: bool,
}

/// How a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Pieces arrive or are asked for, or the first peers are about to be named.
    Moving,
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
    Proven,
    /// Everything is held; a sequential pass over the file has to prove the whole.
    Unproven,
}

impl Transfer {
    /// Everything is missing; a second call with the same seed and inputs does the same.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>, seed: u64, now: Moment) -> Transfer {
        let copies = Copies::of(&manifest);
        let held = Bitfield::empty(manifest.pieces());
        let wanted = copies.to_fetch(&held);
        Transfer {
            geometry: manifest.geometry(),
            picker: PiecePicker::new(wanted, seed),
            held,
            gained: Vec::new(),
            chain: if manifest.chain().is_some() { Chain::Holds } else { Chain::Useless },
            peers: Peers::default(),
            connections: BTreeMap::new(),
            next_connection: 0,
            next_order: 0,
            on_hold: false,
            seed,
            began: now,
            last_poll: now,
            own_stall: None,
            dropped: Vec::new(),
            counts: Counts::default(),
            actions: Vec::new(),
            copies,
            manifest,
        }
    }

    /// The pieces of zeros, which are never fetched: each waits for [`Transfer::hole_proven`].
    #[must_use]
    pub fn holes(&self) -> Bitfield {
        self.copies.zeros().clone()
    }

    /// What is to be done since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Pieces verified and written since the last call.
    pub fn take_gained(&mut self) -> Vec<PieceRange> {
        let mut gained = std::mem::take(&mut self.gained);
        gained.sort_unstable();
        gained.dedup();
        PieceRange::joined(gained)
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
    pub fn counts(&self) -> Counts {
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
    pub fn standing(&self) -> Standing {
        if self.held.is_full() {
            // Where only the pieces can be proven, they have been.
            let proven =
                self.chain == Chain::Holds || matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
            return if proven { Standing::Proven } else { Standing::Unproven };
        }
        let Some(first) = self.picker.first_missing() else { return Standing::Moving };
        let alive = self.connections.values().any(|connection| match &connection.open {
            None => true,
            Some(open) => !open.stalled && (!open.owes.is_empty() || self.picker.wants_from(&open.has)),
        });
        let expects_peers = !self.peers.any_known() && self.last_poll.ms_since(self.began) < FIRST_OFFER_MS;
        if alive || expects_peers || self.peers.any_crowded_out() || self.picker.anything_landed() {
            Standing::Moving
        } else if self.peers.only_ticket_missing() {
            Standing::TicketRefused
        } else {
            let missing = PieceCount(self.held.pieces().0 - self.held.count().0);
            Standing::NoPeers { missing, first, after_bad_pieces: self.peers.any_dropped() }
        }
    }

    /// Learns of peers.
    pub fn offer(&mut self, now: Moment, peers: &[PeerAddress]) {
        self.peers.offer(now, peers);
        self.call(now);
    }

    /// Hands a fresh ticket to open connections, and calls those who refused the old one.
    pub fn renewed(&mut self, now: Moment, ticket: &Ticket) {
        self.peers.ticket_renewed(now);
        for (connection, _) in self.connections.iter().filter(|(_, connection)| connection.open.is_some()) {
            let message = Message::Renew { ticket: ticket.clone() };
            self.actions.push(Action::Send { connection: *connection, message });
        }
        self.call(now);
    }

    /// Stops asking and closes every connection, until [`Transfer::resume`].
    pub fn hold(&mut self, now: Moment) {
        self.on_hold = true;
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(now, connection, ByeCode::Done);
        }
    }

    /// Goes on after [`Transfer::hold`].
    pub fn resume(&mut self, now: Moment) {
        self.on_hold = false;
        self.began = now;
        self.call(now);
    }

    /// A connection is open and its peer has proven itself.
    pub fn opened(&mut self, now: Moment, connection: ConnectionId, holding: Holding) {
        let Some(Connection { peer, open, called: _ }) = self.connections.get_mut(&connection) else {
            return;
        };
        self.peers.opened(*peer);
        let Holding { length, pieces: has } = holding;
        if !has.is_full() {
            has.iter().for_each(|index| self.picker.gained(index));
        }
        let window = Window::new(now);
        *open = Some(Open {
            length,
            has,
            window,
            cursor: None,
            owes: BTreeMap::new(),
            stalled: false,
            useful: now,
            turned_away: 0,
            held_up: None,
        });
        self.call(now);
        self.refill(now, connection);
    }

    /// A connection ended, or never came about.
    pub fn closed(&mut self, now: Moment, connection: ConnectionId, ending: &Ending) {
        if let Some(Connection { peer, open, called: _ }) = self.connections.remove(&connection) {
            self.peers.ended(now, peer, open.is_some(), ending);
            self.forget(now, connection, open);
        }
    }

    /// Ends a connection from this side.
    fn close(&mut self, now: Moment, connection: ConnectionId, code: ByeCode) {
        if let Some(Connection { peer, open, called: _ }) = self.connections.remove(&connection) {
            match code {
                ByeCode::Timeout => self.peers.ended(now, peer, open.is_some(), &Ending::Lost),
                _ => self.peers.released(peer, open.is_some()),
            }
            self.actions.push(Action::Close { connection, code });
            self.forget(now, connection, open);
        }
    }

    fn forget(&mut self, now: Moment, connection: ConnectionId, open: Option<Open>) {
        let Some(open) = open else { return };
        if !open.has.is_full() {
            self.picker.lost(open.has.iter());
        }
        open.owes.keys().for_each(|index| self.picker.abandoned(connection, *index));
        self.refill_all(now);
    }

    fn open_connection(&mut self, connection: ConnectionId) -> Option<&mut Open> {
        self.connections.get_mut(&connection)?.open.as_mut()
    }
}

#[cfg(test)]
mod tests;
