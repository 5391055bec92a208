//! What time brings: connections that fell silent, that never opened, that are of no use while others wait for their place.

use super::super::limits::{HANDSHAKE_TIMEOUT_MS, SILENCE_TIMEOUT_MS};
use super::super::picker::{ConnectionId, PiecePicker};
use super::super::time::Moment;
use super::{ByeCode, Connection, Open, Transfer};

/// With requests open and no byte for this long, a connection's requests go to others.
const STALL_MS: u64 = 3_000;

/// When this node itself was not looked after for this long, silence says nothing about the peers.
const OWN_STALL_MS: u64 = 1_000;

/// A call that has come to nothing by now will come to nothing: the connection and its handshake have a timeout each.
const CALL_MAX_MS: u64 = 3 * HANDSHAKE_TIMEOUT_MS;

/// A connection that was of no use for this long makes way for a peer that waits for a place.
const USELESS_MS: u64 = 5_000;

impl Open {
    /// Whether it brings pieces, or would if it were asked.
    pub(super) fn is_useful(&self, picker: &PiecePicker) -> bool {
        !self.stalled && (!self.owes.is_empty() || picker.wants_from(&self.has))
    }
}

impl Transfer {
    /// Looks after time: calls peers again, and takes requests from the silent. To be called every 100 ms or so.
    pub fn poll(&mut self, now: Moment) {
        let own_stall = now.ms_since(self.last_poll) > OWN_STALL_MS;
        self.last_poll = now;
        if !own_stall {
            self.look_for_silence(now);
            self.look_for_lost_calls(now);
        }
        self.make_way(now);
        self.call(now);
        self.refill_all(now);
    }

    fn look_for_silence(&mut self, now: Moment) {
        let silence = |connection: &Connection| Some(connection.open.as_ref()?.window.silent_ms(now));
        for (connection, silent_ms) in self.which(silence) {
            if silent_ms > SILENCE_TIMEOUT_MS {
                self.close(now, connection, ByeCode::Timeout);
            } else if silent_ms > STALL_MS {
                self.give_up_on(connection);
            }
        }
    }

    /// The driver ends its calls by itself; where its thread does not come to that, the peer is called by another.
    fn look_for_lost_calls(&mut self, now: Moment) {
        let lost = |connection: &Connection| {
            let is_lost = connection.open.is_none() && now.ms_since(connection.called) > CALL_MAX_MS;
            is_lost.then_some(())
        };
        for (connection, ()) in self.which(lost) {
            self.close(now, connection, ByeCode::Timeout);
        }
    }

    /// Where all places are taken and a peer waits, the connection that was of no use for longest goes.
    fn make_way(&mut self, now: Moment) {
        for open in self.connections.values_mut().filter_map(|connection| connection.open.as_mut()) {
            if open.is_useful(&self.picker) {
                open.useful = now;
            }
        }
        if !self.peers.any_waits_for_a_place(now) {
            return;
        }
        let since = |connection: &Connection| Some(connection.open.as_ref()?.useful);
        let least = self.which(since).into_iter().min_by_key(|(_, useful)| *useful);
        if let Some((connection, useful)) = least
            && now.ms_since(useful) > USELESS_MS
        {
            let peer = self.connections[&connection].peer;
            self.close(now, connection, ByeCode::Done);
            self.peers.rest(now, peer);
        }
    }

    /// Connections of which there is something to say.
    fn which<T>(&self, what: impl Fn(&Connection) -> Option<T>) -> Vec<(ConnectionId, T)> {
        self.connections.iter().filter_map(|(id, connection)| Some((*id, what(connection)?))).collect()
    }
}
