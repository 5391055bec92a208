//! Whom to call, and what to ask of whom: the window of each connection is kept full, the silent and the slow lose
//! what they were asked for to those who are waiting for something to do.

use std::collections::BTreeMap;

use super::super::frame::Message;
use super::super::limits::{OUTSTANDING_MAX_PIECES, REQUEST_MAX_PIECES};
use super::super::picker::{self, ConnectionId};
use super::super::time::Moment;
use super::super::units::{PIECE_BYTES, PieceIndex};
use super::{OpenConnection, PeerConnection, PendingRequest, RequestState, Transfer, TransferAction};

/// A connection that would need longer than this for what it owes gives some of it to one that has nothing to do.
const TAKE_OVER_MS: u64 = 100;

/// Of what a connection owes, this many pieces may be under way already: they are left to it.
const UNDER_WAY_PIECES: usize = 8;

/// A connection that has owed a piece for this long, and needs as long again, crawls: it loses what is under way too.
/// Without this a peer that sends a byte now and then would hold its pieces for ever.
const CRAWL_MS: u64 = 3_000;

/// Silent for this long, a connection is one whose last pieces are asked for a second time.
const DOUBT_MS: u64 = 500;

impl Transfer {
    pub(super) fn call_peers(&mut self, now: Moment) {
        let missing = self.picker.needed().as_usize() + self.picker.in_flight();
        if self.is_on_hold || missing == 0 {
            return;
        }
        // One that has nothing to give takes no place of one that has.
        let useless = |connection: &&PeerConnection| {
            connection.open.as_ref().is_some_and(|open| !open.is_useful(now, &self.picker))
        };
        let wanted = missing + self.connections.values().filter(useless).count();
        for (peer, at) in self.peers.next_calls(now, wanted) {
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            let further = self.connections.values().any(|other| other.peer == peer);
            self.connections.insert(connection, PeerConnection { peer, called_at: now, open: None });
            self.actions.push(TransferAction::Connect { connection, peer: at, is_additional: further });
        }
    }

    /// Cancels all that a connection owes, and lets others be asked for it at once.
    pub(super) fn reassign_requests(&mut self, connection: ConnectionId) {
        let Some(open) = self.connections.get_mut(&connection).and_then(|found| found.open.as_mut()) else {
            return;
        };
        let mut to_cancel = Vec::new();
        for (index, owed) in &mut open.pending {
            match std::mem::replace(&mut owed.state, RequestState::Reassigned) {
                RequestState::Expected => to_cancel.push(*index),
                RequestState::Cancelled => {}
                RequestState::Reassigned => continue,
            }
            self.picker.abandon(connection, *index);
        }
        self.send_cancel(connection, &to_cancel);
    }

    fn send_cancel(&mut self, connection: ConnectionId, ascending: &[PieceIndex]) {
        for (first, count) in picker::join_requests(ascending, REQUEST_MAX_PIECES) {
            self.actions.push(TransferAction::Send { connection, message: Message::Cancel { first, count } });
        }
    }

    pub(super) fn refill_all_windows(&mut self, now: Moment) {
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.refill_window(now, connection);
        }
    }

    /// Asks a connection for as much as its window has room for.
    pub(super) fn refill_window(&mut self, now: Moment, connection: ConnectionId) {
        let avoid = self.piece_to_avoid(connection);
        let on_hold = self.is_on_hold;
        let Some(open) = self.open_connection(connection) else { return };
        let room = open.window.free_pieces(now);
        // Half a window at once, so that a request names many pieces and few frames are sent.
        if on_hold || open.is_stalled || room == 0 || room < open.window.in_flight() {
            return;
        }
        let count = room.min(OUTSTANDING_MAX_PIECES.saturating_sub(open.window.in_flight()));
        let idle = open.pending.is_empty();
        let mut picked = self.pick_pieces(connection, avoid, count);
        if picked.is_empty() && idle {
            match self.relieve_slowest(now, connection) {
                RequestTakeover::Taken => picked = self.pick_pieces(connection, avoid, count),
                RequestTakeover::Cancelled => {}
                RequestTakeover::None => picked.extend(self.pick_duplicate(now, connection, avoid)),
            }
        }
        self.send_requests(now, connection, picked);
    }

    fn pick_pieces(
        &mut self,
        connection: ConnectionId,
        avoid: Option<PieceIndex>,
        count: u32,
    ) -> Vec<PieceIndex> {
        let Some(open) = self.connections.get_mut(&connection).and_then(|found| found.open.as_mut()) else {
            return Vec::new();
        };
        self.picker.pick(connection, &open.has, &mut open.cursor, avoid, count)
    }

    fn send_requests(&mut self, now: Moment, connection: ConnectionId, mut picked: Vec<PieceIndex>) {
        let Some(open) = self.connections.get_mut(&connection).and_then(|found| found.open.as_mut()) else {
            return;
        };
        // What it was asked for before and was given up on is owed still, and will be answered.
        picked.retain(|index| {
            open.pending.get_mut(index).map(|owed| owed.state = RequestState::Cancelled).is_none()
        });
        for index in &picked {
            let order = self.next_order;
            open.pending
                .insert(*index, PendingRequest { state: RequestState::Expected, order, requested_at: now });
            self.next_order += 1;
        }
        open.window.requested(now, u32::try_from(picked.len()).expect("at most a window"));
        for (first, count) in picker::join_requests(&picked, REQUEST_MAX_PIECES) {
            self.actions
                .push(TransferAction::Send { connection, message: Message::Request { first, count } });
        }
    }

    /// The piece that the connection's peer has sent wrong, as long as another peer has it that may be asked for it.
    fn piece_to_avoid(&self, connection: ConnectionId) -> Option<PieceIndex> {
        let peer = self.connections.get(&connection)?.peer;
        let index = self.peers.piece_to_avoid(peer)?;
        let elsewhere = |other: &PeerConnection| {
            let may = other.peer != peer && self.peers.piece_to_avoid(other.peer) != Some(index);
            may && other.open.as_ref().is_some_and(|open| !open.is_stalled && open.has.has(index))
        };
        self.connections.values().any(elsewhere).then_some(index)
    }

    /// Sees to it that the slowest connection owes less, if `idle` is faster. One that crawls loses everything at once. One
    /// that lags is told to drop the later half, and a piece goes to another connection only when its rejection has
    /// come: what was on its way already is not sent twice.
    fn relieve_slowest(&mut self, now: Moment, idle: ConnectionId) -> RequestTakeover {
        let Some(open) = self.open_connection(idle) else { return RequestTakeover::None };
        let own_rate = open.window.measured_rate(now);
        let own_stall = self.has_stalled_recently(now);
        let mut slowest = None;
        for (connection, open) in other_open_connections(&mut self.connections, idle) {
            let rate = open.window.rate(now);
            let drain_ms = |pieces: usize| pieces as u64 * u64::from(PIECE_BYTES) * 1_000 / rate.max(1);
            let wanted = open.pending.values().filter(|owed| owed.state != RequestState::Reassigned);
            // Against one that crawls even a connection that was never tried is the better choice.
            let crawls = !own_stall
                && !open.is_receive_paused(now)
                && own_rate.is_none_or(|own| rate < own / 2)
                && wanted.clone().any(|owed| now.ms_since(owed.requested_at) > CRAWL_MS)
                && drain_ms(wanted.count()) > CRAWL_MS;
            let expected = open.pending.values().filter(|owed| owed.state == RequestState::Expected).count();
            let lags = own_rate.is_some_and(|own| own > 0 && rate <= own)
                && expected > UNDER_WAY_PIECES
                && drain_ms(expected) > TAKE_OVER_MS;
            if crawls || lags {
                slowest = slowest.max(Some((crawls, drain_ms(expected), connection)));
            }
        }
        match slowest {
            None => RequestTakeover::None,
            Some((true, _, connection)) => {
                self.reassign_requests(connection);
                RequestTakeover::Taken
            }
            Some((false, _, connection)) => {
                self.cancel_later_half(connection);
                RequestTakeover::Cancelled
            }
        }
    }

    fn cancel_later_half(&mut self, connection: ConnectionId) {
        let Some(open) = self.open_connection(connection) else { return };
        let mut expected: Vec<(&PieceIndex, &mut PendingRequest)> =
            open.pending.iter_mut().filter(|(_, owed)| owed.state == RequestState::Expected).collect();
        expected.sort_unstable_by_key(|(_, owed)| owed.order);
        let kept = (expected.len() / 2).max(UNDER_WAY_PIECES);
        let mut pieces = Vec::new();
        for (index, owed) in expected.into_iter().skip(kept) {
            owed.state = RequestState::Cancelled;
            pieces.push(*index);
        }
        pieces.sort_unstable();
        self.send_cancel(connection, &pieces);
    }

    /// Near the end: a piece that a slower peer owes, asked for a second time.
    fn pick_duplicate(
        &mut self,
        now: Moment,
        idle: ConnectionId,
        avoid: Option<PieceIndex>,
    ) -> Option<PieceIndex> {
        let own_rate = self.rate(now, idle)?;
        let peer = self.connections.get(&idle)?.peer;
        if self.has_stalled_recently(now) {
            return None;
        }
        let mut slower = Vec::new();
        for (connection, found) in &mut self.connections {
            let Some(open) = &mut found.open else { continue };
            let lags = open.window.rate(now) < own_rate / 2 || open.window.silent_ms(now) > DOUBT_MS;
            if found.peer != peer && lags && !open.is_receive_paused(now) {
                slower.push(*connection);
            }
        }
        let PeerConnection { open: Some(open), .. } = self.connections.get(&idle)? else { return None };
        self.picker.pick_duplicate(idle, &open.has, avoid, |asked| slower.contains(&asked))
    }

    fn rate(&mut self, now: Moment, connection: ConnectionId) -> Option<u64> {
        Some(self.open_connection(connection)?.window.rate(now))
    }
}

/// What became of the wish to relieve a slow connection.
enum RequestTakeover {
    /// Nobody is slow enough.
    None,
    /// Pieces were cancelled; they are needed again when their rejections come.
    Cancelled,
    /// Pieces are needed again.
    Taken,
}

fn other_open_connections(
    connections: &mut BTreeMap<ConnectionId, PeerConnection>,
    but: ConnectionId,
) -> impl Iterator<Item = (ConnectionId, &mut OpenConnection)> {
    connections
        .iter_mut()
        .filter(move |(connection, _)| **connection != but)
        .filter_map(|(connection, found)| Some((*connection, found.open.as_mut()?)))
}
