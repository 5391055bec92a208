//! Connections that never opened, and connections that are of no use while others wait for their place.

use super::super::limits::{HANDSHAKE_TIMEOUT_MS, SILENCE_TIMEOUT_MS};
use super::super::picker::{ConnectionId, PiecePicker};
use super::super::time::Moment;
use super::{ByeCode, OpenConnection, PeerConnection, Transfer};

/// A call that has come to nothing by now will come to nothing: the connection and its handshake have a timeout each.
const CALL_MAX_MS: u64 = 3 * HANDSHAKE_TIMEOUT_MS;

/// A connection that was of no use for this long makes way for a peer that waits for a place.
const USELESS_MS: u64 = 5_000;

impl OpenConnection {
    /// Whether it brings pieces in any time that is worth waiting for, or has one that is missing.
    pub(super) fn is_useful(&self, now: Moment, picker: &PiecePicker) -> bool {
        let late = self.pending.values().any(|owed| now.ms_since(owed.requested_at) > SILENCE_TIMEOUT_MS);
        let crawls = late && !self.is_receive_paused(now);
        !self.is_stalled && !crawls && (!self.pending.is_empty() || picker.lacks_any_of(&self.has))
    }
}

impl Transfer {
    /// The driver ends its calls by itself; where its thread does not come to that, the peer is called by another.
    pub(super) fn close_stuck_calls(&mut self, now: Moment) {
        let lost = |connection: &PeerConnection| {
            let is_lost = connection.open.is_none() && now.ms_since(connection.called_at) > CALL_MAX_MS;
            is_lost.then_some(())
        };
        for (connection, ()) in self.select_connections(lost) {
            self.close(now, connection, ByeCode::Timeout);
        }
    }

    /// Where all places are taken and a peer waits, the connection that was of no use for longest goes.
    pub(super) fn free_slot(&mut self, now: Moment) {
        for open in self.connections.values_mut().filter_map(|connection| connection.open.as_mut()) {
            if open.is_useful(now, &self.picker) {
                open.last_useful = now;
            }
        }
        if !self.peers.any_waits_for_slot(now) {
            return;
        }
        let since = |connection: &PeerConnection| Some(connection.open.as_ref()?.last_useful);
        let least = self.select_connections(since).into_iter().min_by_key(|(_, useful)| *useful);
        if let Some((connection, useful)) = least
            && now.ms_since(useful) > USELESS_MS
        {
            let peer = self.connections[&connection].peer;
            self.close(now, connection, ByeCode::Done);
            self.peers.back_off(now, peer);
        }
    }

    /// Connections of which there is something to say.
    fn select_connections<T>(&self, what: impl Fn(&PeerConnection) -> Option<T>) -> Vec<(ConnectionId, T)> {
        self.connections.iter().filter_map(|(id, connection)| Some((*id, what(connection)?))).collect()
    }
}
