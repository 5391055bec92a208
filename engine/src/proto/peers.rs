//! The peers that one transfer knows: which to call, when to call again, and which never.
//!
//! A peer that was banned for bad pieces is never called again and never forgotten; a peer with a connection is not
//! forgotten either. The pause before the next call doubles until the peer delivers a piece. When the trackers name the
//! peer again, the pause is shortened once.

use std::collections::BTreeMap;

use super::action::{NamedPeer, PeerAddress};
use super::frame::RefusedCode;
use super::limits::{
    BAD_PIECES_MAX, CONNECT_TIMEOUT_FIRST_MS, CONNECT_TIMEOUT_MAX_MS, PEERS_PER_DOWNLOAD, connections_each,
};
use super::peer_trouble::{DisconnectReason, PeerTrouble, PeerTroubleKind};
use super::time::Moment;
use super::units::PieceIndex;

/// Pause after the first failed call; each further failure doubles it.
const RETRY_FIRST_MS: u64 = 1_000;

/// Longest pause between calls.
const RETRY_MAX_MS: u64 = 30_000;

/// Doublings of the pause, which reach the longest.
const RETRY_DOUBLINGS_MAX: u32 = 5;

const _: () = assert!(RETRY_FIRST_MS << RETRY_DOUBLINGS_MAX >= RETRY_MAX_MS);

/// Connections of one transfer.
const CONNECTIONS_MAX: usize = 32;

/// A peer within one transfer. Numbers are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerNumber(usize);

/// How far a peer is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    /// The pause is shortened when the trackers name the peer again.
    Normal,
    /// The pause was shortened since the last piece, or must not be: the connection was useless.
    Hurried,
    /// The peer broke the protocol or serves another file. The pause is not shortened.
    Suspect,
    /// The peer sent too many bad pieces. It is never called again.
    Banned,
}

impl PeerState {
    /// The trackers named the peer again. Returns whether the pause is to be shortened.
    fn name_again(&mut self) -> bool {
        let is_first = *self == PeerState::Normal;
        self.use_up_hurry();
        is_first
    }

    /// From now on the pause is not shortened.
    fn use_up_hurry(&mut self) {
        if *self == PeerState::Normal {
            *self = PeerState::Hurried;
        }
    }

    fn suspect(&mut self) {
        assert_ne!(*self, PeerState::Banned, "a banned peer has no connection that could end");
        *self = PeerState::Suspect;
    }

    /// A piece was right. It may have arrived before the ban, which stands.
    fn restore(&mut self) {
        if *self != PeerState::Banned {
            *self = PeerState::Normal;
        }
    }

    fn ban(&mut self) {
        assert_ne!(*self, PeerState::Banned, "a peer is banned once");
        *self = PeerState::Banned;
    }
}

/// What kept the last call to a peer from bringing an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallObstacle {
    /// The peer refused the ticket.
    Ticket,
    /// This node has as many connections as it may. The peer may have refused the ticket before that.
    ConnectionLimit { has_refused_ticket: bool },
}

#[derive(Debug)]
struct KnownPeer {
    address: PeerAddress,
    /// The trackers say that it has the whole file.
    is_seeder: bool,
    connections: usize,
    /// Connections that were opened.
    open: usize,
    /// Failed calls in a row.
    failures: u32,
    retry_at: Moment,
    /// When the peer may get connections beside those that it has.
    additional_at: Moment,
    bad_pieces: u32,
    /// The last piece that the peer sent wrong: requested elsewhere, if another peer has it.
    avoid: Option<PieceIndex>,
    state: PeerState,
    obstacle: Option<CallObstacle>,
    /// The file that the peer served has changed, until it delivers a piece again. An open connection is no sign of that: it
    /// may have been accepted before the change was noticed.
    has_changed_source: bool,
    /// How the last connection ended, until another one opens.
    last_end: Option<DisconnectReason>,
}

impl KnownPeer {
    fn new(now: Moment, named: NamedPeer) -> KnownPeer {
        KnownPeer {
            address: named.address,
            is_seeder: named.is_seeder,
            connections: 0,
            open: 0,
            failures: 0,
            retry_at: now,
            additional_at: now,
            bad_pieces: 0,
            avoid: None,
            state: PeerState::Normal,
            obstacle: None,
            has_changed_source: false,
            last_end: None,
        }
    }

    fn is_banned(&self) -> bool {
        self.state == PeerState::Banned
    }

    fn has_refused_ticket(&self) -> bool {
        matches!(
            self.obstacle,
            Some(CallObstacle::Ticket | CallObstacle::ConnectionLimit { has_refused_ticket: true })
        )
    }

    fn may_be_called(&self, now: Moment) -> bool {
        !self.is_banned() && self.retry_at <= now && (self.connections == 0 || self.additional_at <= now)
    }

    /// Counts a connection less. Returns whether it was the last.
    fn remove_connection(&mut self, was_open: bool) -> bool {
        assert!(self.connections > 0, "only a connection that was counted ends");
        self.connections -= 1;
        self.open -= usize::from(was_open);
        assert!(self.open <= self.connections, "every open connection is counted as a connection too");
        self.connections == 0
    }
}

/// All peers of one transfer.
#[derive(Debug, Default)]
pub(super) struct PeerTable {
    known: BTreeMap<PeerNumber, KnownPeer>,
    next: usize,
}

impl PeerTable {
    /// Adds peers that the trackers named. A full table drops those that failed most. A known peer is called again soon.
    pub(super) fn add_peers(&mut self, now: Moment, peers: impl IntoIterator<Item = impl Into<NamedPeer>>) {
        for named in peers.into_iter().map(Into::into) {
            if let Some(known) = self.known.values_mut().find(|peer| peer.address == named.address) {
                known.is_seeder |= named.is_seeder;
                if known.state.name_again() {
                    known.retry_at = known.retry_at.min(now.plus_ms(RETRY_FIRST_MS));
                }
                continue;
            }
            if self.known.len() >= PEERS_PER_DOWNLOAD && !self.evict_one() {
                continue;
            }
            self.known.insert(PeerNumber(self.next), KnownPeer::new(now, named));
            self.next += 1;
        }
        assert!(self.known.len() <= PEERS_PER_DOWNLOAD, "the table is bounded");
    }

    /// Forgets the peer without a connection that failed most. Returns `false` when none ever failed.
    fn evict_one(&mut self) -> bool {
        let is_useless = |peer: &KnownPeer| peer.connections == 0 && !peer.is_banned() && peer.failures > 0;
        let worst =
            self.known.iter().filter(|(_, peer)| is_useless(peer)).max_by_key(|(_, peer)| peer.failures);
        let Some(number) = worst.map(|(number, _)| *number) else { return false };
        self.known.remove(&number).is_some()
    }

    fn connected_peer(&mut self, number: PeerNumber) -> &mut KnownPeer {
        self.known.get_mut(&number).expect("a peer with a connection is not forgotten")
    }

    /// Whether any peer was ever named.
    pub(super) fn any_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// The peers to call now, so that at most `wanted` connections exist. Each call counts as a connection from here on.
    pub(super) fn next_calls(&mut self, now: Moment, wanted: usize) -> Vec<(PeerNumber, PeerAddress)> {
        let usable =
            self.known.values().filter(|peer| !peer.is_banned() && peer.failures == 0).count().max(1);
        let each = connections_each(usable);
        let mut total = self.connections();
        let most = wanted.min(CONNECTIONS_MAX);
        let mut calls = Vec::new();
        for is_additional in [false, true] {
            for (number, peer) in &mut self.known {
                // Every peer gets one before any gets a second, and only a peer that has answered gets a second.
                let allowed = if is_additional && peer.open > 0 { each } else { 1 };
                while total < most && peer.may_be_called(now) && peer.connections < allowed {
                    peer.connections += 1;
                    total += 1;
                    calls.push((*number, peer.address));
                }
            }
        }
        assert!(self.connections() <= CONNECTIONS_MAX, "the connections of a transfer are bounded");
        calls
    }

    /// Time allowed for the next attempt to connect, in milliseconds.
    pub(super) fn connect_timeout_ms(&self, number: PeerNumber) -> u64 {
        let failures = self.known.get(&number).map_or(0, |peer| peer.failures);
        (CONNECT_TIMEOUT_FIRST_MS << failures.min(RETRY_DOUBLINGS_MAX)).min(CONNECT_TIMEOUT_MAX_MS)
    }

    /// Connections in all, called and open.
    fn connections(&self) -> usize {
        self.known.values().map(|peer| peer.connections).sum()
    }

    /// A call was answered, and the file is open there.
    pub(super) fn connection_opened(&mut self, number: PeerNumber) {
        let peer = self.connected_peer(number);
        assert!(peer.open < peer.connections, "a connection is called before it opens");
        peer.open += 1;
        peer.obstacle = None;
        peer.last_end = None;
    }

    /// A piece of the peer was right: earlier failures no longer count.
    pub(super) fn piece_delivered(&mut self, number: PeerNumber) {
        if let Some(peer) = self.known.get_mut(&number) {
            peer.failures = 0;
            peer.has_changed_source = false;
            peer.state.restore();
        }
    }

    /// A connection ended; `was_open` says whether [`PeerTable::connection_opened`] was called for it.
    pub(super) fn connection_ended(
        &mut self,
        now: Moment,
        number: PeerNumber,
        was_open: bool,
        reason: &DisconnectReason,
    ) {
        let peer = self.connected_peer(number);
        let was_last = peer.remove_connection(was_open);
        if *reason == DisconnectReason::ConnectionLimit {
            let has_refused_ticket = peer.has_refused_ticket();
            peer.obstacle = match (was_last, has_refused_ticket) {
                (true, _) => Some(CallObstacle::ConnectionLimit { has_refused_ticket }),
                (false, true) => Some(CallObstacle::Ticket),
                (false, false) => None,
            };
            let next = if was_last { &mut peer.retry_at } else { &mut peer.additional_at };
            *next = now.plus_ms(RETRY_FIRST_MS);
            return;
        }
        peer.has_changed_source |= *reason == DisconnectReason::SourceChanged;
        if was_last {
            peer.last_end = Some(reason.clone());
        }
        let is_ticket =
            matches!(reason, DisconnectReason::Refused(RefusedCode::Ticket | RefusedCode::Expired));
        peer.obstacle = is_ticket.then_some(CallObstacle::Ticket);
        let is_grave = matches!(
            reason,
            DisconnectReason::Violated(_) | DisconnectReason::Refused(RefusedCode::OtherDigest)
        );
        if is_grave {
            peer.state.suspect();
        }
        // Connections that end together are one failure, and one that ends beside others is none.
        if !was_last && !is_grave {
            let is_refused = matches!(reason, DisconnectReason::Refused(_));
            peer.additional_at = now.plus_ms(if is_refused { RETRY_MAX_MS } else { RETRY_FIRST_MS });
            return;
        }
        let pause_ms =
            if is_grave { RETRY_MAX_MS } else { RETRY_FIRST_MS << peer.failures.min(RETRY_DOUBLINGS_MAX) };
        peer.failures = peer.failures.saturating_add(1);
        peer.retry_at = peer.retry_at.max(now.plus_ms(pause_ms.min(RETRY_MAX_MS)));
    }

    /// This side ended a connection for its own reasons: the peer may be called again at once.
    pub(super) fn connection_released(&mut self, number: PeerNumber, was_open: bool) {
        self.connected_peer(number).remove_connection(was_open);
    }

    /// Every peer that is not banned may be called now, and earlier failures lengthen no pause.
    pub(super) fn end_pauses(&mut self, now: Moment) {
        for peer in self.known.values_mut() {
            peer.failures = 0;
            peer.retry_at = now;
            peer.additional_at = now;
        }
    }

    /// The connection of a peer was useless: it is not called again for a while.
    pub(super) fn back_off(&mut self, now: Moment, number: PeerNumber) {
        if let Some(peer) = self.known.get_mut(&number) {
            peer.retry_at = now.plus_ms(RETRY_MAX_MS);
            peer.state.use_up_hurry();
        }
    }

    /// Whether a peer would be called if there were not as many connections as there may be.
    pub(super) fn any_waits_for_slot(&self, now: Moment) -> bool {
        let waits = |peer: &KnownPeer| peer.connections == 0 && !peer.is_banned() && peer.retry_at <= now;
        self.connections() >= CONNECTIONS_MAX && self.known.values().any(waits)
    }

    /// A fresh ticket has come: the peers that refused the old one may be called again.
    pub(super) fn ticket_renewed(&mut self, now: Moment) {
        for peer in self.known.values_mut().filter(|peer| peer.has_refused_ticket()) {
            let is_at_limit = peer.obstacle != Some(CallObstacle::Ticket);
            peer.obstacle =
                is_at_limit.then_some(CallObstacle::ConnectionLimit { has_refused_ticket: false });
            peer.last_end = None;
            peer.retry_at = now;
        }
    }

    /// Counts a piece with a wrong digest. Returns the peer's address when that gets it banned.
    pub(super) fn sent_bad_piece(&mut self, number: PeerNumber, index: PieceIndex) -> Option<PeerAddress> {
        // The peer may have been forgotten since it sent the piece; its number is not reused.
        let peer = self.known.get_mut(&number)?;
        peer.bad_pieces += 1;
        peer.avoid = Some(index);
        if peer.bad_pieces < BAD_PIECES_MAX || peer.is_banned() {
            return None;
        }
        peer.state.ban();
        Some(peer.address)
    }

    /// The piece that this peer is not asked for while another has it.
    pub(super) fn piece_to_avoid(&self, number: PeerNumber) -> Option<PieceIndex> {
        self.known.get(&number)?.avoid
    }

    /// Whether the last connection of a peer ended, and no other has opened since.
    pub(super) fn has_failed(&self, number: PeerNumber) -> bool {
        self.known.get(&number).is_some_and(|peer| peer.last_end.is_some())
    }

    /// The peers that cannot be fetched from. `unanswered` says what is known of a peer whose last connection did not end.
    pub(super) fn troubles(
        &self,
        unanswered: impl Fn(PeerNumber) -> Option<PeerTroubleKind>,
    ) -> Vec<PeerTrouble> {
        let trouble = |(number, peer): (&PeerNumber, &KnownPeer)| {
            let ended = || peer.last_end.clone().map(PeerTroubleKind::Ended);
            let banned = peer.is_banned().then_some(PeerTroubleKind::Banned);
            let kind = banned.or_else(ended).or_else(|| unanswered(*number))?;
            Some(PeerTrouble { address: peer.address.address, has_all: peer.is_seeder, kind })
        };
        self.known.iter().filter_map(trouble).collect()
    }

    /// Whether a peer was banned for bad pieces.
    pub(super) fn any_banned(&self) -> bool {
        self.known.values().any(KnownPeer::is_banned)
    }

    /// Whether a peer stopped serving since its file has changed.
    pub(super) fn any_source_changed(&self) -> bool {
        self.known.values().any(|peer| peer.has_changed_source)
    }

    /// Whether a peer was not called since this node has as many connections as it may.
    pub(super) fn any_at_connection_limit(&self) -> bool {
        let is_at_limit =
            |peer: &KnownPeer| matches!(peer.obstacle, Some(CallObstacle::ConnectionLimit { .. }));
        self.known.values().any(is_at_limit)
    }

    /// Whether there are usable peers, and all of them refused the ticket.
    pub(super) fn all_refused_ticket(&self) -> bool {
        let mut usable = self.known.values().filter(|peer| !peer.is_banned()).peekable();
        usable.peek().is_some() && usable.all(KnownPeer::has_refused_ticket)
    }
}

#[cfg(test)]
mod tests;
