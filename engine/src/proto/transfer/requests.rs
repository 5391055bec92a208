//! Whom to call, and what to ask of whom: the window of each connection is kept full, the silent and the slow lose
//! what they were asked for to those who are waiting for something to do.

use std::collections::BTreeMap;

use super::super::frame::Message;
use super::super::limits::{OUTSTANDING_MAX_PIECES, REQUEST_MAX_PIECES};
use super::super::picker::{self, ConnectionId};
use super::super::time::Moment;
use super::super::units::{PIECE_BYTES, PieceIndex};
use super::{Action, Connection, Open, Owed, Transfer};

/// A connection that would need longer than this for what it owes gives some of it to one that has nothing to do.
const TAKE_OVER_MS: u64 = 100;

/// Of what a connection owes, this many pieces may be under way already: they are left to it.
const UNDER_WAY_PIECES: usize = 8;

/// Silent for this long, a connection is one whose last pieces are asked for a second time.
const DOUBT_MS: u64 = 500;

impl Transfer {
    pub(super) fn call(&mut self, now: Moment) {
        let missing = self.picker.needed().as_usize() + self.picker.in_flight();
        if self.on_hold || missing == 0 {
            return;
        }
        for (peer, at) in self.peers.calls(now, missing) {
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            self.connections.insert(connection, Connection { peer, open: None });
            self.actions.push(Action::Connect { connection, peer: at });
        }
    }

    /// A silent connection's requests go to others; whatever of them still comes is welcome.
    pub(super) fn give_up_on(&mut self, connection: ConnectionId) {
        let Some(open) = self.open_connection(connection) else { return };
        open.stalled = true;
        let owed = open.owes.keys().copied().collect();
        self.take_back(connection, owed);
    }

    /// Cancels what a connection owes, so that others can be asked for it. `pieces` ascend.
    fn take_back(&mut self, connection: ConnectionId, mut pieces: Vec<PieceIndex>) {
        let Some(open) = self.open_connection(connection) else { return };
        pieces
            .retain(|index| open.owes.get_mut(index).is_some_and(|owed| std::mem::take(&mut owed.expected)));
        for index in &pieces {
            self.picker.abandoned(connection, *index);
        }
        for (first, count) in picker::requests(&pieces, REQUEST_MAX_PIECES) {
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
            if self.take_over_for(now, connection) {
                picked = self.pick(connection, avoid, count);
            } else {
                picked.extend(self.pick_duplicate(now, connection));
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
        picked.retain(|index| !open.owes.contains_key(index));
        for index in &picked {
            open.owes.insert(*index, Owed { expected: true, order: self.next_order });
            self.next_order += 1;
        }
        open.window.requested(now, u32::try_from(picked.len()).expect("at most a window"));
        for (first, count) in picker::requests(&picked, REQUEST_MAX_PIECES) {
            self.actions.push(Action::Send { connection, message: Message::Request { first, count } });
        }
    }

    /// The piece that the connection's peer has sent wrong, as long as another peer has it.
    fn to_avoid(&self, connection: ConnectionId) -> Option<PieceIndex> {
        let peer = self.connections.get(&connection)?.peer;
        let index = self.peers.avoid(peer)?;
        let elsewhere = |other: &Connection| {
            other.peer != peer && other.open.as_ref().is_some_and(|open| open.has.has(index))
        };
        self.connections.values().any(elsewhere).then_some(index)
    }

    /// Takes back the later half of what the slowest connection owes, if `idle` is faster; whether it did.
    fn take_over_for(&mut self, now: Moment, idle: ConnectionId) -> bool {
        let Some(own_rate) = self.rate(now, idle).filter(|rate| *rate > 0) else { return false };
        let mut slowest = None;
        for (connection, open) in others(&mut self.connections, idle) {
            let owed = open.owes.values().filter(|owed| owed.expected).count();
            let rate = open.window.rate(now);
            let drain_ms = owed as u64 * u64::from(PIECE_BYTES) * 1_000 / rate.max(1);
            if owed > UNDER_WAY_PIECES && rate <= own_rate && drain_ms > TAKE_OVER_MS {
                slowest = slowest.max(Some((drain_ms, connection)));
            }
        }
        let Some((_, connection)) = slowest else { return false };
        let Some(open) = self.open_connection(connection) else { return false };
        let mut by_order: Vec<(u64, PieceIndex)> = open
            .owes
            .iter()
            .filter(|(_, owed)| owed.expected)
            .map(|(index, owed)| (owed.order, *index))
            .collect();
        by_order.sort_unstable();
        let kept = (by_order.len() / 2).max(UNDER_WAY_PIECES);
        let mut pieces: Vec<PieceIndex> = by_order[kept..].iter().map(|(_, index)| *index).collect();
        pieces.sort_unstable();
        self.take_back(connection, pieces);
        true
    }

    /// Near the end: a piece that a slower peer owes, asked for a second time.
    fn pick_duplicate(&mut self, now: Moment, idle: ConnectionId) -> Option<PieceIndex> {
        let own_rate = self.rate(now, idle)?;
        let peer = self.connections.get(&idle)?.peer;
        let mut slower = Vec::new();
        for (connection, found) in &mut self.connections {
            let Some(open) = &mut found.open else { continue };
            let lags = open.window.rate(now) < own_rate / 2 || open.window.silent_ms(now) > DOUBT_MS;
            if found.peer != peer && lags {
                slower.push(*connection);
            }
        }
        let Connection { open: Some(open), .. } = self.connections.get(&idle)? else { return None };
        self.picker.pick_duplicate(idle, &open.has, |asked| slower.contains(&asked))
    }

    fn rate(&mut self, now: Moment, connection: ConnectionId) -> Option<u64> {
        Some(self.open_connection(connection)?.window.rate(now))
    }
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
