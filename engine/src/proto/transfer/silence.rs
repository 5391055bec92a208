//! Who is silent, and whose fault that is: peers that say nothing lose what they were asked for; peers that this node keeps
//! waiting do not.
//!
//! Invariant: what this node does not take says nothing about who sends it, for [`LOCAL_STALL_MAX_MS`]: a node that stands
//! still for longer, since a disk hangs, lets others of its threads ask others.

use super::super::frame::ByeCode;
use super::super::limits::SILENCE_TIMEOUT_MS;
use super::super::picker::ConnectionId;
use super::super::time::Moment;
use super::{LocalStall, OpenConnection, Transfer};

/// With requests open and no byte for this long, a connection's requests go to others.
const STALL_MS: u64 = 3_000;

/// When this node itself was not looked after for this long, or a thread of its was at one thing, silence says nothing about
/// the peers.
pub const LOCAL_STALL_MS: u64 = 1_000;

/// What this node keeps waiting for longer than this counts as silent all the same.
const LOCAL_STALL_MAX_MS: u64 = 10_000;

/// For this long after a stall of its own a node asks nobody for what another owes.
const RECOVERY_MS: u64 = 1_000;

impl OpenConnection {
    /// Whether its peer waits for this node, and not for too long yet.
    pub(super) fn is_receive_paused(&self, now: Moment) -> bool {
        self.receive_paused_since.is_some_and(|since| now.ms_since(since) < LOCAL_STALL_MAX_MS)
    }
}

impl Transfer {
    /// Looks after time: calls peers again, and takes requests from the silent. To be called every 100 ms or so. `own_stall`: what
    /// has come may not have been taken, since a thread of this node has stood still.
    pub fn poll(&mut self, now: Moment, own_stall: bool) {
        let own_stall = own_stall || now.ms_since(self.last_poll) > LOCAL_STALL_MS;
        self.last_poll = now;
        let excused = own_stall && self.note_local_stall(now);
        if excused {
            let open = self.connections.values_mut().filter_map(|connection| connection.open.as_mut());
            open.for_each(|open| open.window.reset_silence(now));
        }
        let silent: Vec<(ConnectionId, u64)> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((*id, connection.open.as_ref()?)))
            .filter(|(_, open)| !open.is_receive_paused(now))
            .map(|(id, open)| (id, open.window.silent_ms(now)))
            .filter(|(_, silent_ms)| *silent_ms > STALL_MS)
            .collect();
        for (connection, silent_ms) in silent {
            if silent_ms > SILENCE_TIMEOUT_MS {
                self.close(now, connection, ByeCode::Timeout);
            } else {
                self.mark_stalled(connection);
            }
        }
        if !excused {
            self.close_stuck_calls(now);
        }
        self.free_slot(now);
        self.call_peers(now);
        self.refill_all_windows(now);
    }

    /// From now on, or no longer, a connection's peer waits for this node to take what it sends.
    pub fn set_receive_paused(&mut self, now: Moment, connection: ConnectionId, held_up: bool) {
        if let Some(open) = self.open_connection(connection) {
            open.receive_paused_since = held_up.then_some(now);
            open.window.reset_silence(now);
        }
    }

    /// Notes a stall of this node's own; whether it is short enough to excuse the peers.
    fn note_local_stall(&mut self, now: Moment) -> bool {
        let goes_on = self.local_stall.filter(|stall| now.ms_since(stall.last) <= STALL_MS);
        let first = goes_on.map_or(now, |stall| stall.first);
        self.local_stall = Some(LocalStall { first, last: now });
        now.ms_since(first) < LOCAL_STALL_MAX_MS
    }

    /// Whether what looks slow or silent may have been this node's own doing.
    pub(super) fn has_stalled_recently(&self, now: Moment) -> bool {
        self.local_stall.is_some_and(|stall| {
            now.ms_since(stall.last) < RECOVERY_MS && now.ms_since(stall.first) < LOCAL_STALL_MAX_MS
        })
    }

    /// A silent connection's requests go to others; whatever of them still comes is welcome.
    fn mark_stalled(&mut self, connection: ConnectionId) {
        if let Some(open) = self.open_connection(connection) {
            open.is_stalled = true;
            self.reassign_requests(connection);
        }
    }
}
