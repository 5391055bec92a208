//! The peers that one transfer knows: whom to call, when again, and whom no more.
//!
//! Invariants: a peer that was dropped for bad pieces is never called again by this transfer, and so never forgotten; nor
//! is one with a connection. The pause before the next call grows until the peer has delivered a piece; that the trackers name
//! it again shortens it once.

use std::collections::BTreeMap;

use super::action::PeerAddress;
use super::frame::RefusedCode;
use super::limits::{BAD_PIECES_MAX, PEERS_PER_DOWNLOAD, connections_each};
use super::session::Violation;
use super::time::Moment;
use super::units::PieceIndex;

/// First pause after a failed call; each further failure doubles it.
const RETRY_FIRST_MS: u64 = 1_000;

/// Longest pause between calls.
const RETRY_MAX_MS: u64 = 30_000;

/// Connections of one transfer.
const CONNECTIONS_MAX: usize = 32;

/// Who a peer is to this transfer; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerNumber(usize);

/// How a connection ended, as far as it matters for the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The call failed, or the connection broke.
    Lost,
    /// The file that the peer served has changed.
    SourceChanged,
    /// The peer said no.
    Refused(RefusedCode),
    /// The peer broke the protocol.
    Violated(Violation),
    /// The peer said goodbye.
    Bye,
    /// This node has as many connections as it may: the peer was not even called.
    ConnectionLimit,
}

#[derive(Debug)]
struct KnownPeer {
    at: PeerAddress,
    connections: usize,
    open: usize,
    failures: u32,
    retry_at: Moment,
    bad_pieces: u32,
    /// The last piece that it sent wrong: asked for elsewhere, if anybody else has it.
    avoid: Option<PieceIndex>,
    dropped: bool,
    ticket_refused: bool,
    /// It waits for a connection of this node's own to become free.
    crowded_out: bool,
    /// It broke the protocol or serves another file: that it is named again does not shorten its pause.
    shunned: bool,
    /// Its pause was shortened because it was named again; until it delivers that happens once.
    hurried: bool,
    /// When it may get further connections beside those that it has.
    additional_at: Moment,
    /// The file that it served has changed; until it delivers again. That it opens says nothing: a connection may have been
    /// let in before anybody noticed.
    withdrawn: bool,
}

impl KnownPeer {
    fn may_be_called(&self, now: Moment) -> bool {
        !self.dropped && self.retry_at <= now && (self.connections == 0 || self.additional_at <= now)
    }
}

/// All peers of one transfer.
#[derive(Debug, Default)]
pub(super) struct PeerTable {
    known: BTreeMap<PeerNumber, KnownPeer>,
    next: usize,
}

impl PeerTable {
    /// Adds those that are not known yet; where there is no room, in the place of those that failed most. One that is known
    /// is there by what the trackers hear of it, and is called again soon.
    pub(super) fn add_peers(&mut self, now: Moment, peers: &[PeerAddress]) {
        for at in peers {
            if let Some(known) = self.known.values_mut().find(|peer| peer.at == *at) {
                if !known.shunned && !std::mem::replace(&mut known.hurried, true) {
                    known.retry_at = known.retry_at.min(now.plus_ms(RETRY_FIRST_MS));
                }
                continue;
            }
            if self.known.len() >= PEERS_PER_DOWNLOAD && !self.evict_one() {
                continue;
            }
            let peer = KnownPeer {
                at: *at,
                connections: 0,
                open: 0,
                failures: 0,
                retry_at: now,
                bad_pieces: 0,
                avoid: None,
                dropped: false,
                ticket_refused: false,
                crowded_out: false,
                shunned: false,
                hurried: false,
                additional_at: now,
                withdrawn: false,
            };
            self.known.insert(PeerNumber(self.next), peer);
            self.next += 1;
        }
    }

    /// Forgets the peer that failed most, of those without a connection; whether there was one that ever failed.
    fn evict_one(&mut self) -> bool {
        let useless = |peer: &KnownPeer| peer.connections == 0 && !peer.dropped && peer.failures > 0;
        let worst = self.known.iter().filter(|(_, peer)| useless(peer)).max_by_key(|(_, peer)| peer.failures);
        let Some(number) = worst.map(|(number, _)| *number) else { return false };
        self.known.remove(&number).is_some()
    }

    /// One that has a connection, and so is known.
    fn connected_peer(&mut self, number: PeerNumber) -> &mut KnownPeer {
        self.known.get_mut(&number).expect("a peer with a connection is not forgotten")
    }

    /// Whether any was ever offered.
    pub(super) fn any_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whom to call now, so that at most `wanted` connections are under way: each call counts as one from here on.
    pub(super) fn next_calls(&mut self, now: Moment, wanted: usize) -> Vec<(PeerNumber, PeerAddress)> {
        let usable = self.known.values().filter(|peer| !peer.dropped && peer.failures == 0).count().max(1);
        let each = connections_each(usable);
        let mut total: usize = self.known.values().map(|peer| peer.connections).sum();
        let most = wanted.min(CONNECTIONS_MAX);
        let mut calls = Vec::new();
        for further in [false, true] {
            for (number, peer) in &mut self.known {
                // Everybody once before anybody again; further connections only to a peer that has answered once.
                let allowed = if further && peer.open > 0 { each } else { 1 };
                while total < most && peer.may_be_called(now) && peer.connections < allowed {
                    peer.connections += 1;
                    total += 1;
                    calls.push((*number, peer.at));
                }
            }
        }
        calls
    }

    /// A call was answered and the file is open there.
    pub(super) fn connection_opened(&mut self, number: PeerNumber) {
        let peer = self.connected_peer(number);
        peer.open += 1;
        peer.ticket_refused = false;
        peer.crowded_out = false;
    }

    /// A piece of its was proven: what failed before counts no more.
    pub(super) fn piece_delivered(&mut self, number: PeerNumber) {
        if let Some(peer) = self.known.get_mut(&number) {
            peer.failures = 0;
            peer.withdrawn = false;
            peer.shunned = false;
            peer.hurried = false;
        }
    }

    /// A connection ended; `was_open` tells whether [`PeerTable::connection_opened`] was said of it.
    pub(super) fn connection_ended(
        &mut self,
        now: Moment,
        number: PeerNumber,
        was_open: bool,
        ending: &DisconnectReason,
    ) {
        let peer = self.connected_peer(number);
        peer.connections -= 1;
        peer.open -= usize::from(was_open);
        let was_last = peer.connections == 0;
        peer.crowded_out = *ending == DisconnectReason::ConnectionLimit && was_last;
        if *ending == DisconnectReason::ConnectionLimit {
            let next = if was_last { &mut peer.retry_at } else { &mut peer.additional_at };
            *next = now.plus_ms(RETRY_FIRST_MS);
            return;
        }
        peer.withdrawn |= *ending == DisconnectReason::SourceChanged;
        peer.ticket_refused =
            matches!(ending, DisconnectReason::Refused(RefusedCode::Ticket | RefusedCode::Expired));
        let long = matches!(
            ending,
            DisconnectReason::Violated(_) | DisconnectReason::Refused(RefusedCode::OtherDigest)
        );
        peer.shunned |= long;
        // Several connections that end at once are one failure, and one that ends beside others is none.
        if !was_last && !long {
            let refused = matches!(ending, DisconnectReason::Refused(_));
            peer.additional_at = now.plus_ms(if refused { RETRY_MAX_MS } else { RETRY_FIRST_MS });
            return;
        }
        let pause_ms = if long { RETRY_MAX_MS } else { RETRY_FIRST_MS << peer.failures.min(5) };
        peer.failures = peer.failures.saturating_add(1);
        peer.retry_at = peer.retry_at.max(now.plus_ms(pause_ms.min(RETRY_MAX_MS)));
    }

    /// This side ended a connection for its own reasons: the peer may be called again at once.
    pub(super) fn connection_released(&mut self, number: PeerNumber, was_open: bool) {
        let peer = self.connected_peer(number);
        peer.connections -= 1;
        peer.open -= usize::from(was_open);
    }

    /// A peer whose connection was of no use is not called again for a while.
    pub(super) fn back_off(&mut self, now: Moment, number: PeerNumber) {
        if let Some(peer) = self.known.get_mut(&number) {
            peer.retry_at = now.plus_ms(RETRY_MAX_MS);
            peer.hurried = true;
        }
    }

    /// Whether a peer would be called, if there were not as many connections as there may be.
    pub(super) fn any_waits_for_slot(&self, now: Moment) -> bool {
        let total: usize = self.known.values().map(|peer| peer.connections).sum();
        let waits = |peer: &KnownPeer| peer.connections == 0 && !peer.dropped && peer.retry_at <= now;
        total >= CONNECTIONS_MAX && self.known.values().any(waits)
    }

    /// A fresh ticket has come: whoever refused the old one may be called again.
    pub(super) fn ticket_renewed(&mut self, now: Moment) {
        for peer in self.known.values_mut().filter(|peer| peer.ticket_refused) {
            peer.ticket_refused = false;
            peer.retry_at = now;
        }
    }

    /// Counts a piece whose digest failed; the peer's address when that was one too many and it is dropped.
    pub(super) fn sent_bad_piece(&mut self, number: PeerNumber, index: PieceIndex) -> Option<PeerAddress> {
        // One that has gone and was forgotten meanwhile is not called again under this number.
        let peer = self.known.get_mut(&number)?;
        peer.bad_pieces += 1;
        peer.avoid = Some(index);
        if peer.bad_pieces < BAD_PIECES_MAX || peer.dropped {
            return None;
        }
        peer.dropped = true;
        Some(peer.at)
    }

    /// The piece that this peer should not be asked for while another has it.
    pub(super) fn piece_to_avoid(&self, number: PeerNumber) -> Option<PieceIndex> {
        self.known.get(&number)?.avoid
    }

    /// Whether a peer was dropped for bad pieces.
    pub(super) fn any_dropped(&self) -> bool {
        self.known.values().any(|peer| peer.dropped)
    }

    /// Whether a peer stopped serving since its file has changed.
    pub(super) fn any_source_changed(&self) -> bool {
        self.known.values().any(|peer| peer.withdrawn)
    }

    /// Whether a peer waits for a connection of this node's own.
    pub(super) fn any_at_connection_limit(&self) -> bool {
        self.known.values().any(|peer| peer.crowded_out)
    }

    /// Whether all that is left are peers who refused the ticket.
    pub(super) fn all_refused_ticket(&self) -> bool {
        let mut left = self.known.values().filter(|peer| !peer.dropped).peekable();
        left.peek().is_some() && left.all(|peer| peer.ticket_refused)
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::CONNECTIONS_PER_PEER;
    use super::super::ticket::PeerKey;
    use super::*;

    fn address(port: u16) -> PeerAddress {
        PeerAddress { address: ([127, 0, 0, 1], port).into(), key: PeerKey([1; 32]) }
    }

    fn peers(count: u16) -> PeerTable {
        let mut peers = PeerTable::default();
        let all: Vec<_> = (1..=count).map(address).collect();
        peers.add_peers(Moment::default(), &all);
        peers
    }

    #[test]
    fn a_lone_peer_gets_more_connections_once_it_answers() {
        let mut peers = peers(1);
        let now = Moment::default();
        let first = peers.next_calls(now, 99);
        assert_eq!(first.len(), 1);
        assert_eq!(peers.next_calls(now, 99), []);
        peers.connection_opened(first[0].0);
        assert_eq!(peers.next_calls(now, 99).len(), CONNECTIONS_PER_PEER - 1);
    }

    #[test]
    fn many_peers_get_one_connection_each_up_to_the_most() {
        let mut peers = peers(100);
        assert_eq!(peers.next_calls(Moment::default(), 3).len(), 3);
        assert_eq!(peers.next_calls(Moment::default(), usize::MAX).len(), CONNECTIONS_MAX - 3);
    }

    #[test]
    fn failures_space_the_calls_out() {
        let mut peers = peers(1);
        let mut now = Moment::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let number = peers.next_calls(now, 1)[0].0;
            peers.connection_ended(now, number, false, &DisconnectReason::Lost);
            let pause = (0..).find(|ms| peers.known[&PeerNumber(0)].retry_at <= now.plus_ms(*ms)).unwrap();
            pauses.push(pause);
            now = now.plus_ms(pause);
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn connections_that_break_together_are_one_failure() {
        let mut peers = peers(1);
        let mut now = Moment::default();
        for pause_ms in [1_000, 2_000] {
            let first = peers.next_calls(now, 99);
            peers.connection_opened(first[0].0);
            let all: Vec<_> = first.into_iter().chain(peers.next_calls(now, 99)).collect();
            assert_eq!(all.len(), CONNECTIONS_PER_PEER);
            all[1..].iter().for_each(|(number, _)| peers.connection_opened(*number));
            all.iter()
                .for_each(|(number, _)| peers.connection_ended(now, *number, true, &DisconnectReason::Lost));
            assert_eq!(peers.next_calls(now.plus_ms(pause_ms - 1), 1), []);
            now = now.plus_ms(pause_ms);
        }
        assert_eq!(peers.next_calls(now, 99).len(), 1);
    }

    #[test]
    fn one_that_is_named_again_is_called_again_soon() {
        let mut peers = peers(2);
        let mut now = Moment::default();
        let endings = [DisconnectReason::Lost, DisconnectReason::Refused(RefusedCode::OtherDigest)];
        for _ in 0..6 {
            for (number, _) in peers.next_calls(now, 99) {
                peers.connection_ended(now, number, false, &endings[number.0]);
            }
            now = now.plus_ms(RETRY_MAX_MS);
        }
        for (number, _) in peers.next_calls(now, 99) {
            peers.connection_ended(now, number, false, &endings[number.0]);
        }
        let soon = now.plus_ms(RETRY_FIRST_MS);
        peers.add_peers(now, &[address(1), address(2)]);
        assert_eq!(peers.next_calls(now, 99), []);
        let called = peers.next_calls(soon, 99);
        assert_eq!(called, [(PeerNumber(0), address(1))], "what serves another file is left alone");
        peers.connection_ended(soon, PeerNumber(0), false, &DisconnectReason::Lost);
        peers.add_peers(soon, &[address(1)]);
        let later = peers.next_calls(soon.plus_ms(RETRY_MAX_MS - 1), 99);
        assert!(later.iter().all(|(_, at)| *at != address(1)), "once, and not in a circle");
    }

    #[test]
    fn a_fresh_ticket_calls_back_those_who_refused_the_old_one() {
        let mut peers = peers(1);
        let now = Moment::default();
        let number = peers.next_calls(now, 1)[0].0;
        peers.connection_ended(now, number, false, &DisconnectReason::Refused(RefusedCode::Expired));
        assert!(peers.all_refused_ticket());
        assert_eq!(peers.next_calls(now, 1), []);
        peers.ticket_renewed(now);
        assert_eq!(peers.next_calls(now, 1).len(), 1);
    }

    #[test]
    fn a_full_list_forgets_who_failed_most() {
        let most = u16::try_from(PEERS_PER_DOWNLOAD).unwrap();
        let mut peers = peers(most);
        let now = Moment::default();
        let stranger = [address(most + 1)];
        peers.add_peers(now, &stranger);
        assert!(peers.known.values().all(|peer| peer.at != stranger[0]), "nobody has failed yet");
        let (bad, gone) = (peers.next_calls(now, 2)[0].0, peers.next_calls(now, 2).len());
        assert_eq!(gone, 0);
        peers.connection_ended(now, bad, false, &DisconnectReason::Lost);
        peers.add_peers(now, &stranger);
        assert_eq!(peers.known.len(), PEERS_PER_DOWNLOAD);
        assert!(peers.known.values().any(|peer| peer.at == stranger[0]));
        assert_eq!(
            peers.sent_bad_piece(bad, PieceIndex(0)),
            None,
            "it is forgotten, and its number is not reused"
        );
    }

    #[test]
    fn the_pause_grows_until_a_piece_was_delivered() {
        let mut peers = peers(1);
        let mut now = Moment::default();
        for pause_ms in [1_000, 2_000, 1_000] {
            let number = peers.next_calls(now, 1)[0].0;
            peers.connection_opened(number);
            if pause_ms == 1_000 {
                peers.piece_delivered(number);
            }
            peers.connection_ended(now, number, true, &DisconnectReason::Lost);
            assert_eq!(peers.next_calls(now.plus_ms(pause_ms - 1), 1), []);
            now = now.plus_ms(pause_ms);
        }
    }

    #[test]
    fn a_changed_file_is_told_of_until_its_peer_delivers_again() {
        let mut peers = peers(1);
        let now = Moment::default();
        let number = peers.next_calls(now, 1)[0].0;
        peers.connection_opened(number);
        assert_eq!(peers.next_calls(now, 2).len(), 1);
        peers.connection_ended(now, number, true, &DisconnectReason::SourceChanged);
        // The second was let in before the first was told.
        peers.connection_opened(number);
        assert!(peers.any_source_changed());
        peers.connection_ended(now, number, true, &DisconnectReason::Refused(RefusedCode::NotShared));
        assert!(peers.any_source_changed());
        peers.piece_delivered(number);
        assert!(!peers.any_source_changed());
    }

    #[test]
    fn a_crowd_of_its_own_is_no_failure() {
        let mut peers = peers(1);
        let mut now = Moment::default();
        for _ in 0..5 {
            let number = peers.next_calls(now, 1)[0].0;
            peers.connection_ended(now, number, false, &DisconnectReason::ConnectionLimit);
            assert!(peers.any_at_connection_limit());
            now = now.plus_ms(RETRY_FIRST_MS);
        }
    }

    #[test]
    fn the_second_bad_piece_drops_a_peer_for_good() {
        let mut peers = peers(1);
        let number = peers.next_calls(Moment::default(), 1)[0].0;
        assert_eq!(peers.sent_bad_piece(number, PieceIndex(1)), None);
        assert_eq!(peers.sent_bad_piece(number, PieceIndex(2)), Some(address(1)));
        peers.connection_released(number, false);
        peers.add_peers(Moment::default(), &[address(1)]);
        assert_eq!(peers.next_calls(Moment::default().plus_ms(1 << 40), 1), []);
    }
}
