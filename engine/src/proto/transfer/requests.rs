//! Whom to call, and what to ask of whom: the window of each connection is kept full, the silent and the slow lose
//! what they were asked for to those who are waiting for something to do.

use std::collections::BTreeMap;

use super::super::frame::Message;
use super::super::limits::{OUTSTANDING_MAX_PIECES, REQUEST_MAX_PIECES};
use super::super::picker::{self, ConnectionId};
use super::super::time::Moment;
use super::super::units::{PIECE_BYTES, PieceIndex};
use super::{Action, Connection, Open, Owed, OwedState, Transfer};

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
    pub(super) fn call(&mut self, now: Moment) {
        let missing = self.picker.needed().as_usize() + self.picker.in_flight();
        if self.on_hold || missing == 0 {
            return;
        }
        // One that has nothing to give takes no place of one that has.
        let useless = |connection: &&Connection| {
            connection.open.as_ref().is_some_and(|open| !open.is_useful(now, &self.picker))
        };
        let wanted = missing + self.connections.values().filter(useless).count();
        for (peer, at) in self.peers.calls(now, wanted) {
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            let further = self.connections.values().any(|other| other.peer == peer);
            self.connections.insert(connection, Connection { peer, called: now, open: None });
            self.actions.push(Action::Connect { connection, peer: at, further });
        }
    }

    /// Cancels all that a connection owes, and lets others be asked for it at once.
    pub(super) fn take_all_from(&mut self, connection: ConnectionId) {
        let Some(open) = self.connections.get_mut(&connection).and_then(|found| found.open.as_mut()) else {
            return;
        };
        let mut to_cancel = Vec::new();
        for (index, owed) in &mut open.owes {
            match std::mem::replace(&mut owed.state, OwedState::GivenUp) {
                OwedState::Expected => to_cancel.push(*index),
                OwedState::Cancelled => {}
                OwedState::GivenUp => continue,
            }
            self.picker.abandoned(connection, *index);
        }
        self.send_cancel(connection, &to_cancel);
    }

    fn send_cancel(&mut self, connection: ConnectionId, ascending: &[PieceIndex]) {
        for (first, count) in picker::requests(ascending, REQUEST_MAX_PIECES) {
            self.actions.push(Action::Send { connection, message: Message::Cancel { first, count } });
        }
    }

    pub(super) fn refill_all(&mut self, now: Moment) {
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.refill(now, connection);
        }
    }

    /// Asks a connection for as much as its window has room for.
    pub(super) fn refill(&mut self, now: Moment, connection: ConnectionId) {
        let avoid = self.to_avoid(connection);
        let on_hold = self.on_hold;
        let Some(open) = self.open_connection(connection) else { return };
        let room = open.window.room(now);
        // Half a window at once, so that a request names many pieces and few frames are sent.
        if on_hold || open.stalled || room == 0 || room < open.window.in_flight() {
            return;
        }
        let count = room.min(OUTSTANDING_MAX_PIECES.saturating_sub(open.window.in_flight()));
        let idle = open.owes.is_empty();
        let mut picked = self.pick(connection, avoid, count);
        if picked.is_empty() && idle {
            match self.relieve_slowest(now, connection) {
                Relief::Taken => picked = self.pick(connection, avoid, count),
                Relief::Cancelled => {}
                Relief::None => picked.extend(self.pick_duplicate(now, connection, avoid)),
            }
        }
        self.request(now, connection, picked);
    }

    fn pick(&mut self, connection: ConnectionId, avoid: Option<PieceIndex>, count: u32) -> Vec<PieceIndex> {
        let Some(open) = self.connections.get_mut(&connection).and_then(|found| found.open.as_mut()) else {
            return Vec::new();
        };
        self.picker.pick(connection, &open.has, &mut open.cursor, avoid, count)
    }

    fn request(&mut self, now: Moment, connection: ConnectionId, mut picked: Vec<PieceIndex>) {
        let Some(open) = self.connections.get_mut(&connection).and_then(|found| found.open.as_mut()) else {
            return;
        };
        // What it was asked for before and was given up on is owed still, and will be answered.
        picked
            .retain(|index| open.owes.get_mut(index).map(|owed| owed.state = OwedState::Cancelled).is_none());
        for index in &picked {
            let order = self.next_order;
            open.owes.insert(*index, Owed { state: OwedState::Expected, order, asked: now });
            self.next_order += 1;
        }
        open.window.requested(now, u32::try_from(picked.len()).expect("at most a window"));
        for (first, count) in picker::requests(&picked, REQUEST_MAX_PIECES) {
            self.actions.push(Action::Send { connection, message: Message::Request { first, count } });
        }
    }

    /// The piece that the connection's peer has sent wrong, as long as another peer has it that may be asked for it.
    fn to_avoid(&self, connection: ConnectionId) -> Option<PieceIndex> {
        let peer = self.connections.get(&connection)?.peer;
        let index = self.peers.avoid(peer)?;
        let elsewhere = |other: &Connection| {
            let may = other.peer != peer && self.peers.avoid(other.peer) != Some(index);
            may && other.open.as_ref().is_some_and(|open| !open.stalled && open.has.has(index))
        };
        self.connections.values().any(elsewhere).then_some(index)
    }

    /// Sees to it that the slowest connection owes less, if `idle` is faster. One that crawls loses everything at once. One
    /// that lags is told to drop the later half, and a piece goes to another connection only when its rejection has
    /// come: what was on its way already is not sent twice.
    fn relieve_slowest(&mut self, now: Moment, idle: ConnectionId) -> Relief {
        let Some(open) = self.open_connection(idle) else { return Relief::None };
        let own_rate = open.window.measured(now);
        let own_stall = self.has_stalled_itself(now);
        let mut slowest = None;
        for (connection, open) in others(&mut self.connections, idle) {
            let rate = open.window.rate(now);
            let drain_ms = |pieces: usize| pieces as u64 * u64::from(PIECE_BYTES) * 1_000 / rate.max(1);
            let wanted = open.owes.values().filter(|owed| owed.state != OwedState::GivenUp);
            // Against one that crawls even a connection that was never tried is the better choice.
            let crawls = !own_stall
                && !open.is_held_up(now)
                && own_rate.is_none_or(|own| rate < own / 2)
                && wanted.clone().any(|owed| now.ms_since(owed.asked) > CRAWL_MS)
                && drain_ms(wanted.count()) > CRAWL_MS;
            let expected = open.owes.values().filter(|owed| owed.state == OwedState::Expected).count();
            let lags = own_rate.is_some_and(|own| own > 0 && rate <= own)
                && expected > UNDER_WAY_PIECES
                && drain_ms(expected) > TAKE_OVER_MS;
            if crawls || lags {
                slowest = slowest.max(Some((crawls, drain_ms(expected), connection)));
            }
        }
        match slowest {
            None => Relief::None,
            Some((true, _, connection)) => {
                self.take_all_from(connection);
                Relief::Taken
            }
            Some((false, _, connection)) => {
                self.cancel_later_half(connection);
                Relief::Cancelled
            }
        }
    }

    fn cancel_later_half(&mut self, connection: ConnectionId) {
        let Some(open) = self.open_connection(connection) else { return };
        let mut expected: Vec<(&PieceIndex, &mut Owed)> =
            open.owes.iter_mut().filter(|(_, owed)| owed.state == OwedState::Expected).collect();
        expected.sort_unstable_by_key(|(_, owed)| owed.order);
        let kept = (expected.len() / 2).max(UNDER_WAY_PIECES);
        let mut pieces = Vec::new();
        for (index, owed) in expected.into_iter().skip(kept) {
            owed.state = OwedState::Cancelled;
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
        if self.has_stalled_itself(now) {
            return None;
        }
        let mut slower = Vec::new();
        for (connection, found) in &mut self.connections {
            let Some(open) = &mut found.open else { continue };
            let lags = open.window.rate(now) < own_rate / 2 || open.window.silent_ms(now) > DOUBT_MS;
            if found.peer != peer && lags && !open.is_held_up(now) {
                slower.push(*connection);
            }
        }
        let Connection { open: Some(open), .. } = self.connections.get(&idle)? else { return None };
        self.picker.pick_duplicate(idle, &open.has, avoid, |asked| slower.contains(&asked))
    }

    fn rate(&mut self, now: Moment, connection: ConnectionId) -> Option<u64> {
        Some(self.open_connection(connection)?.window.rate(now))
    }
}

/// What became of the wish to relieve a slow connection.
enum Relief {
    /// Nobody is slow enough.
    None,
    /// Pieces were cancelled; they are needed again when their rejections come.
    Cancelled,
    /// Pieces are needed again.
    Taken,
}

fn others(
    connections: &mut BTreeMap<ConnectionId, Connection>,
    but: ConnectionId,
) -> impl Iterator<Item = (ConnectionId, &mut Open)> {
    connections
        .iter_mut()
        .filter(move |(connection, _)| **connection != but)
        .filter_map(|(connection, found)| Some((*connection, found.open.as_mut()?)))
}
