//! Which peers are called, and which pieces are requested on which connection.
//!
//! Owns the picker, the peers and the connections of one transfer, and the actions for the driver. The window of each
//! connection is kept full; silent and slow connections lose their requests to idle ones. Every request that was sent is
//! either answered, or given up and sent elsewhere.

use super::super::action::{NamedPeer, PeerAddress, TransferAction};
use super::super::frame::{ByeCode, Message, RefusedCode, RejectCode};
use super::super::geometry::Geometry;
use super::super::limits::{DEFERRED_MAX, OUTSTANDING_MAX_PIECES, REQUEST_MAX_PIECES, SILENCE_TIMEOUT_MS};
use super::super::peer_trouble::{DisconnectReason, PeerTroubles};
use super::super::peers::{PeerNumber, PeerTable};
use super::super::picker::{self, ConnectionId, PieceArrival, PiecePicker};
use super::super::session::{ProviderFile, Violation};
use super::super::ticket::Ticket;
use super::super::time::Moment;
use super::super::units::{PieceCount, PieceIndex, PieceRange};
use super::connections::{ConnectionTable, OpenConnection, PeerConnection, RequestState};
use super::stall::{LocalStallTracker, STALL_MS};

/// A connection that was not useful for this long is closed when another peer waits for a slot.
const USELESS_MS: u64 = 5_000;

// A connection loses its requests to others well before it is closed.
const _: () = assert!(STALL_MS < USELESS_MS && USELESS_MS < SILENCE_TIMEOUT_MS);

/// For this long after its start a transfer without any known peer waits for the first to be named.
pub(super) const FIRST_OFFER_MS: u64 = 500;

/// Calls peers and distributes requests among connections.
#[derive(Debug)]
pub(super) struct RequestScheduler {
    pub(super) picker: PiecePicker,
    pub(super) peers: PeerTable,
    pub(super) connections: ConnectionTable,
    pub(super) actions: Vec<TransferAction>,
    pub(super) is_suspended: bool,
    /// When the transfer began, or was last resumed or retried.
    started_at: Moment,
    stalls: LocalStallTracker,
}

/// A piece that arrived as the answer to a request.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) peer: PeerNumber,
    pub(super) requested_at: Moment,
    /// The layout of the peer's file.
    pub(super) geometry: Geometry,
    pub(super) arrival: PieceArrival,
}

impl RequestScheduler {
    pub(super) fn new(picker: PiecePicker, now: Moment) -> RequestScheduler {
        RequestScheduler {
            picker,
            peers: PeerTable::default(),
            connections: ConnectionTable::default(),
            actions: Vec::new(),
            is_suspended: false,
            started_at: now,
            stalls: LocalStallTracker::new(now),
        }
    }

    /// Starts over with other pieces to fetch.
    pub(super) fn replace_picker(&mut self, picker: PiecePicker) {
        assert_eq!(self.picker.in_flight(), 0, "the pieces to fetch change only while none is requested");
        self.picker = picker;
    }

    /// Whether pieces arrive or are requested, or may be soon.
    pub(super) fn is_active(&self) -> bool {
        let now = self.stalls.last_poll();
        let is_excused = self.stalls.has_stalled_recently(now);
        let can_bring = |connection: &PeerConnection| match &connection.open {
            None => {
                is_excused
                    || (!self.peers.has_failed(connection.peer)
                        && connection.unanswered_call_ms(now).is_none())
            }
            Some(open) => !open.is_stalled && (!open.pending.is_empty() || self.picker.needs_from(&open.has)),
        };
        let expects_first_peers = !self.peers.any_known() && now.ms_since(self.started_at) < FIRST_OFFER_MS;
        self.connections.values().any(can_bring)
            || expects_first_peers
            || self.peers.any_at_connection_limit()
            || self.picker.any_arrived()
    }

    /// The peers that cannot be fetched from at the last poll.
    pub(super) fn peer_troubles(&self) -> PeerTroubles {
        let now = self.stalls.last_poll();
        PeerTroubles::new(self.peers.troubles(|peer| self.connections.unanswered(now, peer)))
    }

    pub(super) fn add_peers(&mut self, now: Moment, peers: impl IntoIterator<Item = impl Into<NamedPeer>>) {
        self.peers.add_peers(now, peers);
        self.call_peers(now);
    }

    pub(super) fn renew_ticket(&mut self, now: Moment, ticket: &Ticket) {
        self.peers.ticket_renewed(now);
        for connection in self.connections.open_ids() {
            self.send(connection, Message::Renew { ticket: ticket.clone() });
        }
        self.call_peers(now);
    }

    pub(super) fn suspend(&mut self, now: Moment) {
        self.is_suspended = true;
        for connection in self.connections.ids() {
            self.close(now, connection, ByeCode::Done);
        }
    }

    pub(super) fn resume(&mut self, now: Moment) {
        self.is_suspended = false;
        self.started_at = now;
        self.call_peers(now);
    }

    /// Calls all peers that are not banned, without their pauses.
    pub(super) fn retry_peers(&mut self, now: Moment) {
        self.started_at = now;
        self.peers.end_pauses(now);
        self.call_peers(now);
    }

    /// Takes requests from silent connections, closes useless ones, and calls peers.
    pub(super) fn poll(&mut self, now: Moment, is_locally_stalled: bool) {
        let is_excused = self.stalls.note_poll(now, is_locally_stalled);
        if is_excused {
            self.connections.reset_silences(now);
        }
        for (connection, silent_ms) in self.connections.silent(now) {
            if silent_ms > SILENCE_TIMEOUT_MS {
                self.close_silent(now, connection, silent_ms);
            } else {
                self.mark_stalled(connection);
            }
        }
        if !is_excused {
            for (connection, called_ms) in self.connections.lost_calls(now) {
                self.close_silent(now, connection, called_ms);
            }
        }
        self.free_slot(now);
        self.call_peers(now);
        self.refill_all_windows(now);
    }

    pub(super) fn connection_opened(&mut self, now: Moment, connection: ConnectionId, file: ProviderFile) {
        let Some(peer) = self.connections.set_open(now, connection, file) else { return };
        self.peers.connection_opened(peer);
        if let Some(open) = self.connections.open(connection).filter(|open| !open.has.is_full()) {
            open.has.iter().for_each(|index| self.picker.add_partial_holder(index));
        }
        self.call_peers(now);
        self.refill_window(now, connection);
    }

    pub(super) fn connection_closed(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        reason: &DisconnectReason,
    ) {
        if let Some(PeerConnection { peer, open, .. }) = self.connections.remove(connection) {
            self.peers.connection_ended(now, peer, open.is_some(), reason);
            self.return_requests(now, connection, open);
        }
    }

    /// Takes a rejection of a request.
    ///
    /// # Errors
    /// [`Violation::Unrequested`] when there is no such request.
    pub(super) fn handle_reject(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        index: PieceIndex,
        code: RejectCode,
    ) -> Result<(), Violation> {
        let Some(open) = self.connections.open_mut(connection) else { return Ok(()) };
        let pending = *open.pending.get(&index).ok_or(Violation::Unrequested(index))?;
        if code == RejectCode::Cancelled && pending.state == RequestState::Expected {
            return Err(Violation::Unrequested(index));
        }
        // After the checks: a request of a violator stays pending, and is sent elsewhere when the connection is closed.
        open.take_answered(index);
        open.bytes_received(now, 0);
        open.deferred += usize::from(code == RejectCode::Busy);
        let is_deferred = code == RejectCode::Busy && open.deferred <= 2 * DEFERRED_MAX;
        if is_deferred {
            self.picker.defer(connection, index);
        } else {
            self.picker.abandon(connection, index);
        }
        if code != RejectCode::Cancelled && !is_deferred {
            // The peer has nothing to give for now. The pause before the next call keeps it from being asked again and
            // again. That includes `NotHeld`: only announced pieces are requested, and a peer that announced and rejected
            // the same pieces over and over, on several connections, would keep them from all others.
            let (code, reason) = match code {
                // It has the piece, and gives it for a fresh ticket.
                RejectCode::Expired => (ByeCode::Expired, DisconnectReason::Refused(RefusedCode::Expired)),
                RejectCode::SourceChanged => (ByeCode::Done, DisconnectReason::SourceChanged),
                _ => (ByeCode::Done, DisconnectReason::Withheld),
            };
            self.actions.push(TransferAction::Close { connection, code });
            self.connection_closed(now, connection, &reason);
        }
        self.refill_all_windows(now);
        Ok(())
    }

    /// Takes an announcement of pieces of a file laid out as `geometry`.
    ///
    /// # Errors
    /// [`Violation::Pieces`] when the file does not have them.
    pub(super) fn handle_have(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        ranges: &[PieceRange],
        geometry: Geometry,
    ) -> Result<(), Violation> {
        let Some(open) = self.connections.open_mut(connection) else { return Ok(()) };
        if !ranges.iter().all(|range| geometry.contains_range(*range)) {
            return Err(Violation::Pieces);
        }
        if open.has.is_full() {
            return Ok(());
        }
        for range in ranges {
            open.has.insert_range(*range, |index| self.picker.add_partial_holder(index));
        }
        if open.has.is_full() {
            self.picker.remove_partial_holder(open.has.iter());
        }
        self.refill_window(now, connection);
        Ok(())
    }

    /// Takes a piece that arrived whole; `None` when it answers no request.
    pub(super) fn piece_received(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        index: PieceIndex,
    ) -> Option<Delivery> {
        let peer = self.connections.peer(connection)?;
        let open = self.connections.open_mut(connection)?;
        let requested_at = open.take_answered(index)?.requested_at;
        open.deferred = 0;
        let geometry = open.geometry;
        let arrival = self.picker.piece_arrived(connection, index);
        self.refill_window(now, connection);
        Some(Delivery { peer, requested_at, geometry, arrival })
    }

    /// A piece of a peer was wrong and is needed again. Returns the peer's address when that gets it banned.
    pub(super) fn piece_was_wrong(
        &mut self,
        now: Moment,
        peer: PeerNumber,
        index: PieceIndex,
    ) -> Option<PeerAddress> {
        self.picker.retry_piece(index);
        let banned = self.peers.sent_bad_piece(peer, index);
        if banned.is_some() {
            for connection in self.connections.ids_of(peer) {
                self.close(now, connection, ByeCode::BadPiece);
            }
        }
        self.refill_all_windows(now);
        banned
    }

    /// A piece is written: cancels the requests for it that are still pending.
    pub(super) fn complete_piece(&mut self, index: PieceIndex) {
        for connection in self.picker.complete_piece(index) {
            let Some(open) = self.connections.open_mut(connection) else { continue };
            if let Some(pending) = open.pending.get_mut(&index) {
                pending.state = RequestState::Cancelled;
                self.send(connection, Message::Cancel { first: index, count: PieceCount(1) });
            }
        }
    }

    /// Ends a connection on which the peer has sent nothing for too long.
    fn close_silent(&mut self, now: Moment, connection: ConnectionId, for_ms: u64) {
        self.actions.push(TransferAction::Close { connection, code: ByeCode::Timeout });
        self.connection_closed(now, connection, &DisconnectReason::Silent { for_ms });
    }

    /// Ends a connection from this side, for no fault of the peer.
    fn close(&mut self, now: Moment, connection: ConnectionId, code: ByeCode) {
        if let Some(PeerConnection { peer, open, .. }) = self.connections.remove(connection) {
            self.peers.connection_released(peer, open.is_some());
            self.actions.push(TransferAction::Close { connection, code });
            self.return_requests(now, connection, open);
        }
    }

    /// Makes the pending requests of a closed connection available to others.
    fn return_requests(&mut self, now: Moment, connection: ConnectionId, open: Option<OpenConnection>) {
        let Some(open) = open else { return };
        if !open.has.is_full() {
            self.picker.remove_partial_holder(open.has.iter());
        }
        open.pending.keys().for_each(|index| self.picker.abandon(connection, *index));
        self.refill_all_windows(now);
    }

    /// When all slots are taken and a peer waits, closes the connection that has not been useful for longest.
    fn free_slot(&mut self, now: Moment) {
        self.connections.note_useful(now, &self.picker);
        if !self.peers.any_waits_for_slot(now) {
            return;
        }
        if let Some((connection, peer, last_useful)) = self.connections.least_useful()
            && now.ms_since(last_useful) > USELESS_MS
        {
            self.close(now, connection, ByeCode::Done);
            self.peers.back_off(now, peer);
        }
    }

    fn call_peers(&mut self, now: Moment) {
        let missing = self.picker.needed().as_usize() + self.picker.in_flight();
        if self.is_suspended || missing == 0 {
            return;
        }
        // A connection without anything to give does not take the slot of one that has.
        let is_useless = |connection: &&PeerConnection| {
            connection.open.as_ref().is_some_and(|open| !open.is_useful(now, &self.picker))
        };
        let wanted = missing + self.connections.values().filter(is_useless).count();
        for (number, peer) in self.peers.next_calls(now, wanted) {
            let is_additional = self.connections.values().any(|other| other.peer == number);
            let connection = self.connections.add_call(now, number);
            let timeout_ms = self.peers.connect_timeout_ms(number);
            self.actions.push(TransferAction::Connect { connection, peer, is_additional, timeout_ms });
        }
    }

    fn refill_all_windows(&mut self, now: Moment) {
        for connection in self.connections.ids() {
            self.refill_window(now, connection);
        }
    }

    /// Requests as many pieces as the window of a connection has room for.
    fn refill_window(&mut self, now: Moment, connection: ConnectionId) {
        let avoid = self.piece_to_avoid(connection);
        let is_on_hold = self.is_suspended;
        let Some(open) = self.connections.open_mut(connection) else { return };
        let free = open.window.free_pieces(now);
        // Half a window at once, so that one request names many pieces and few frames are sent.
        if is_on_hold || open.is_stalled || free == 0 || free < open.window.in_flight() {
            return;
        }
        let count = free.min(OUTSTANDING_MAX_PIECES.saturating_sub(open.window.in_flight()));
        let is_idle = open.pending.is_empty();
        let mut picked = self.pick_pieces(connection, avoid, count);
        if picked.is_empty() && is_idle {
            picked = self.take_over_pieces(now, connection, avoid, count);
        }
        self.connections.add_requests(now, connection, &mut picked);
        for (first, count) in picker::join_requests(&picked, REQUEST_MAX_PIECES) {
            self.send(connection, Message::Request { first, count });
        }
    }

    fn pick_pieces(
        &mut self,
        connection: ConnectionId,
        avoid: Option<PieceIndex>,
        count: u32,
    ) -> Vec<PieceIndex> {
        let Some(open) = self.connections.open_mut(connection) else { return Vec::new() };
        self.picker.pick(connection, &open.has, &mut open.cursor, avoid, count)
    }

    /// The piece that this peer sent wrong, as long as another peer has it and can be asked for it.
    fn piece_to_avoid(&self, connection: ConnectionId) -> Option<PieceIndex> {
        let peer = self.connections.peer(connection)?;
        let index = self.peers.piece_to_avoid(peer)?;
        let can_bring = |other: &PeerConnection| {
            let is_allowed = other.peer != peer && self.peers.piece_to_avoid(other.peer) != Some(index);
            is_allowed && other.open.as_ref().is_some_and(|open| !open.is_stalled && open.has.has(index))
        };
        self.connections.values().any(can_bring).then_some(index)
    }

    /// Finds work for an idle connection: what the slowest has to bring, or near the end a piece that a slower one has.
    ///
    /// A crawling connection loses all requests at once. A lagging one is told to drop the later half, and a piece goes to
    /// another connection only when its rejection has come: what was on the wire already is not sent twice.
    fn take_over_pieces(
        &mut self,
        now: Moment,
        idle: ConnectionId,
        avoid: Option<PieceIndex>,
        count: u32,
    ) -> Vec<PieceIndex> {
        let is_local_stall = self.stalls.has_stalled_recently(now);
        match self.connections.slowest(now, idle, is_local_stall) {
            None => self.pick_duplicate(now, idle, avoid).into_iter().collect(),
            Some(slow) if slow.is_crawling => {
                self.reassign_requests(slow.connection);
                self.pick_pieces(idle, avoid, count)
            }
            Some(slow) => {
                let open = self.connections.open_mut(slow.connection);
                let cancelled = open.map(OpenConnection::cancel_later_half).unwrap_or_default();
                self.send_cancel(slow.connection, &cancelled);
                Vec::new()
            }
        }
    }

    /// Near the end: a piece that a slower connection has to bring, for a second request.
    fn pick_duplicate(
        &mut self,
        now: Moment,
        idle: ConnectionId,
        avoid: Option<PieceIndex>,
    ) -> Option<PieceIndex> {
        let idle_rate = self.connections.open_mut(idle)?.window.rate(now);
        let peer = self.connections.peer(idle)?;
        if self.stalls.has_stalled_recently(now) {
            return None;
        }
        let slower = self.connections.slower_than(now, peer, idle_rate);
        let has = &self.connections.open(idle)?.has;
        self.picker.pick_duplicate(idle, has, avoid, |asked| slower.contains(&asked))
    }

    /// Requests nothing more on a silent connection, and gives its requests to others. A late answer is still used.
    fn mark_stalled(&mut self, connection: ConnectionId) {
        if let Some(open) = self.connections.open_mut(connection) {
            open.is_stalled = true;
            self.reassign_requests(connection);
        }
    }

    /// Cancels all pending requests of a connection, so that they can be sent elsewhere at once.
    fn reassign_requests(&mut self, connection: ConnectionId) {
        let Some(open) = self.connections.open_mut(connection) else { return };
        let (to_cancel, reassigned) = open.reassign_pending();
        reassigned.into_iter().for_each(|index| self.picker.abandon(connection, index));
        self.send_cancel(connection, &to_cancel);
    }

    fn send_cancel(&mut self, connection: ConnectionId, ascending: &[PieceIndex]) {
        for (first, count) in picker::join_requests(ascending, REQUEST_MAX_PIECES) {
            self.send(connection, Message::Cancel { first, count });
        }
    }

    fn send(&mut self, connection: ConnectionId, message: Message) {
        self.actions.push(TransferAction::Send { connection, message });
    }
}
