//! The connections of one transfer: what each peer has, what it was asked for, how fast and how silent it is.
//!
//! Reports and changes single connections. Which connection gets which request is decided by the scheduler. The window of
//! an open connection counts exactly its pending requests.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bitfield::Bitfield;
use super::super::geometry::Geometry;
use super::super::limits::{CONNECT_TIMEOUT_FIRST_MS, HANDSHAKE_TIMEOUT_MS, SILENCE_TIMEOUT_MS};
use super::super::peer_trouble::PeerTroubleKind;
use super::super::peers::PeerNumber;
use super::super::picker::{ConnectionId, PiecePicker};
use super::super::session::ProviderFile;
use super::super::time::Moment;
use super::super::units::{PIECE_BYTES, PieceIndex};
use super::super::window::RequestWindow;
use super::stall::{LOCAL_STALL_MAX_MS, STALL_MS};

/// A call that is not open after this time is lost: the connection attempt and the handshake have a timeout each.
const CALL_MAX_MS: u64 = 3 * HANDSHAKE_TIMEOUT_MS;

/// A first call that is not open after this time is told as unanswered: connecting alone may take no longer.
const CALL_PATIENCE_MS: u64 = CONNECT_TIMEOUT_FIRST_MS + 500;

/// A connection lags when its pending requests would take it longer than this.
const LAG_MS: u64 = 100;

/// So many pending pieces of a lagging connection may be on the wire already, and are left to it.
const ON_THE_WIRE_PIECES: usize = 8;

/// A connection crawls when a request is this old and the rest would take as long again. It then loses all its requests:
/// otherwise a peer that sends a byte now and then would hold its pieces for ever.
const CRAWL_MS: u64 = 3_000;

/// After this silence the last pieces of a connection are requested a second time elsewhere.
const DOUBT_MS: u64 = 500;

/// All connections of one transfer, by id.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    connections: BTreeMap<ConnectionId, PeerConnection>,
    next_id: u64,
    next_order: u64,
}

/// A connection, from the call on.
#[derive(Debug)]
pub(super) struct PeerConnection {
    pub(super) peer: PeerNumber,
    called_at: Moment,
    /// `None` until the handshake is done.
    pub(super) open: Option<OpenConnection>,
}

/// A connection on which pieces can be requested.
#[derive(Debug)]
pub(super) struct OpenConnection {
    /// The peer's file, which has the exact length even where the manifest does not.
    pub(super) geometry: Geometry,
    pub(super) has: Bitfield,
    pub(super) window: RequestWindow,
    /// Where the last run of requests ended.
    pub(super) cursor: Option<PieceIndex>,
    /// Requests without an answer.
    pub(super) pending: BTreeMap<PieceIndex, PendingRequest>,
    /// The peer fell silent. Nothing is requested until it sends something.
    pub(super) is_stalled: bool,
    last_useful: Moment,
    /// Requests that the peer answered with `Busy` since its last piece.
    pub(super) deferred: usize,
    /// Since when this node does not read from the connection.
    receive_paused_since: Option<Moment>,
}

/// A request without an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRequest {
    pub(super) state: RequestState,
    /// Requests are answered about in this order.
    order: u64,
    pub(super) requested_at: Moment,
}

/// Which connection is to bring the piece of a pending request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestState {
    /// This one.
    Expected,
    /// This one, until it answers; the answer may be that the request was cancelled.
    Cancelled,
    /// Any: the piece is needed again.
    Reassigned,
}

/// A connection that is too slow for its pending requests. The worst compares greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlowConnection {
    pub(super) is_crawling: bool,
    drain_ms: u64,
    pub(super) connection: ConnectionId,
}

impl PeerConnection {
    /// How long a call has gone unanswered, in milliseconds, when that is too long.
    pub(super) fn unanswered_call_ms(&self, now: Moment) -> Option<u64> {
        let called_ms = now.ms_since(self.called_at);
        (self.open.is_none() && called_ms > CALL_PATIENCE_MS).then_some(called_ms)
    }
}

impl OpenConnection {
    fn new(now: Moment, file: ProviderFile) -> OpenConnection {
        let geometry = Geometry::new(file.length).expect("the handshake checks the length");
        assert_eq!(
            geometry.pieces(),
            file.pieces.pieces(),
            "the handshake checks the bit field against the file"
        );
        OpenConnection {
            geometry,
            has: file.pieces,
            window: RequestWindow::new(now),
            cursor: None,
            pending: BTreeMap::new(),
            is_stalled: false,
            last_useful: now,
            deferred: 0,
            receive_paused_since: None,
        }
    }

    /// Whether this node does not read from the connection, and has not for too long: then silence is no fault of the peer.
    fn is_receive_paused(&self, now: Moment) -> bool {
        self.receive_paused_since.is_some_and(|since| now.ms_since(since) < LOCAL_STALL_MAX_MS)
    }

    pub(super) fn set_receive_paused(&mut self, now: Moment, is_paused: bool) {
        self.receive_paused_since = is_paused.then_some(now);
        self.window.reset_silence(now);
    }

    /// Whether pieces can be expected in reasonable time: some are pending, or the peer has some that are missing.
    pub(super) fn is_useful(&self, now: Moment, picker: &PiecePicker) -> bool {
        let is_late =
            self.pending.values().any(|pending| now.ms_since(pending.requested_at) > SILENCE_TIMEOUT_MS);
        let is_crawling = is_late && !self.is_receive_paused(now);
        !self.is_stalled && !is_crawling && (!self.pending.is_empty() || picker.lacks_any_of(&self.has))
    }

    /// Counts bytes of pieces: the peer is not silent.
    pub(super) fn bytes_received(&mut self, now: Moment, bytes: u64) {
        self.window.received(now, bytes);
        self.is_stalled = false;
    }

    /// Takes the request that an answer belongs to.
    pub(super) fn take_answered(&mut self, index: PieceIndex) -> Option<PendingRequest> {
        let request = self.pending.remove(&index)?;
        self.window.answered();
        assert_eq!(
            self.window.in_flight() as usize,
            self.pending.len(),
            "the window counts the pending requests"
        );
        Some(request)
    }

    /// Gives up on all pending requests, so that the pieces can be requested elsewhere. Returns the pieces to cancel, and
    /// those that this connection no longer has to bring; both ascending.
    pub(super) fn reassign_pending(&mut self) -> (Vec<PieceIndex>, Vec<PieceIndex>) {
        let (mut to_cancel, mut reassigned) = (Vec::new(), Vec::new());
        for (index, pending) in &mut self.pending {
            match std::mem::replace(&mut pending.state, RequestState::Reassigned) {
                RequestState::Expected => to_cancel.push(*index),
                RequestState::Cancelled => {}
                RequestState::Reassigned => continue,
            }
            reassigned.push(*index);
        }
        (to_cancel, reassigned)
    }

    /// Marks the later half of the expected requests as cancelled and returns it, ascending. What is probably on the wire
    /// stays.
    pub(super) fn cancel_later_half(&mut self) -> Vec<PieceIndex> {
        let mut expected: Vec<(&PieceIndex, &mut PendingRequest)> =
            self.pending.iter_mut().filter(|(_, pending)| pending.state == RequestState::Expected).collect();
        expected.sort_unstable_by_key(|(_, pending)| pending.order);
        let kept = (expected.len() / 2).max(ON_THE_WIRE_PIECES);
        let mut pieces = Vec::new();
        for (index, pending) in expected.into_iter().skip(kept) {
            pending.state = RequestState::Cancelled;
            pieces.push(*index);
        }
        pieces.sort_unstable();
        pieces
    }

    /// How the connection compares with another that has nothing to do and brings `idle_rate` bytes a second.
    fn slowness(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        idle_rate: Option<u64>,
        is_local_stall: bool,
    ) -> Option<SlowConnection> {
        let rate = self.window.rate(now);
        let drain_ms = |pieces: usize| pieces as u64 * u64::from(PIECE_BYTES) * 1_000 / rate.max(1);
        let wanted = self.pending.values().filter(|pending| pending.state != RequestState::Reassigned);
        // Against a crawling connection even one that was never measured is the better choice.
        let is_crawling = !is_local_stall
            && !self.is_receive_paused(now)
            && idle_rate.is_none_or(|idle| rate < idle / 2)
            && wanted.clone().any(|pending| now.ms_since(pending.requested_at) > CRAWL_MS)
            && drain_ms(wanted.count()) > CRAWL_MS;
        let expected =
            self.pending.values().filter(|pending| pending.state == RequestState::Expected).count();
        let is_lagging = idle_rate.is_some_and(|idle| idle > 0 && rate <= idle)
            && expected > ON_THE_WIRE_PIECES
            && drain_ms(expected) > LAG_MS;
        let slow = SlowConnection { is_crawling, drain_ms: drain_ms(expected), connection };
        (is_crawling || is_lagging).then_some(slow)
    }
}

impl ConnectionTable {
    /// Adds a connection that is being called.
    pub(super) fn add_call(&mut self, now: Moment, peer: PeerNumber) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let replaced = self.connections.insert(id, PeerConnection { peer, called_at: now, open: None });
        assert!(replaced.is_none(), "connection numbers are not reused");
        id
    }

    /// Opens a connection that was called; its peer, or `None` when it was closed meanwhile.
    pub(super) fn set_open(
        &mut self,
        now: Moment,
        id: ConnectionId,
        file: ProviderFile,
    ) -> Option<PeerNumber> {
        let connection = self.connections.get_mut(&id)?;
        assert!(connection.open.is_none(), "a connection opens once");
        connection.open = Some(OpenConnection::new(now, file));
        Some(connection.peer)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<PeerConnection> {
        self.connections.remove(&id)
    }

    pub(super) fn open(&self, id: ConnectionId) -> Option<&OpenConnection> {
        self.connections.get(&id)?.open.as_ref()
    }

    pub(super) fn open_mut(&mut self, id: ConnectionId) -> Option<&mut OpenConnection> {
        self.connections.get_mut(&id)?.open.as_mut()
    }

    pub(super) fn peer(&self, id: ConnectionId) -> Option<PeerNumber> {
        Some(self.connections.get(&id)?.peer)
    }

    /// All connections, called and open.
    pub(super) fn values(&self) -> impl Iterator<Item = &PeerConnection> {
        self.connections.values()
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.ids_where(|_| true)
    }

    pub(super) fn open_ids(&self) -> Vec<ConnectionId> {
        self.ids_where(|connection| connection.open.is_some())
    }

    pub(super) fn ids_of(&self, peer: PeerNumber) -> Vec<ConnectionId> {
        self.ids_where(|connection| connection.peer == peer)
    }

    /// Calls that will not open any more, with their age in milliseconds. The driver ends its calls itself, unless its
    /// thread is stuck.
    pub(super) fn lost_calls(&self, now: Moment) -> Vec<(ConnectionId, u64)> {
        let unanswered = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((*id, connection.unanswered_call_ms(now)?)));
        unanswered.filter(|(_, called_ms)| *called_ms > CALL_MAX_MS).collect()
    }

    /// What a peer has not answered, when nothing else can be expected of it: all its connections are stalled, or none is
    /// open and its calls are late.
    pub(super) fn unanswered(&self, now: Moment, peer: PeerNumber) -> Option<PeerTroubleKind> {
        let mut shortest_ms = None::<u64>;
        let mut is_open = false;
        for connection in self.connections.values().filter(|connection| connection.peer == peer) {
            let waited_ms = match &connection.open {
                Some(open) if open.is_stalled => open.window.silent_ms(now),
                Some(_) => return None,
                None => connection.unanswered_call_ms(now)?,
            };
            is_open |= connection.open.is_some();
            shortest_ms = Some(shortest_ms.map_or(waited_ms, |shortest| shortest.min(waited_ms)));
        }
        // In whole seconds, so that it is not news at every poll.
        let for_ms = shortest_ms? / 1_000 * 1_000;
        Some(PeerTroubleKind::Unanswered { for_ms, is_open })
    }

    fn ids_where(&self, applies: impl Fn(&PeerConnection) -> bool) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, connection)| applies(connection)).map(|(id, _)| *id).collect()
    }

    /// Peers with at least one open connection.
    pub(super) fn open_peers(&self) -> usize {
        let open = self.connections.values().filter(|connection| connection.open.is_some());
        open.map(|connection| connection.peer).collect::<BTreeSet<_>>().len()
    }

    /// Starts every silence anew, after this node did not read for a while.
    pub(super) fn reset_silences(&mut self, now: Moment) {
        self.all_open_mut().for_each(|(_, open)| open.window.reset_silence(now));
    }

    /// Connections with pending requests that brought no byte for longer than [`STALL_MS`], with the milliseconds.
    pub(super) fn silent(&self, now: Moment) -> Vec<(ConnectionId, u64)> {
        self.connections
            .iter()
            .filter_map(|(id, connection)| Some((*id, connection.open.as_ref()?)))
            .filter(|(_, open)| !open.is_receive_paused(now))
            .map(|(id, open)| (id, open.window.silent_ms(now)))
            .filter(|(_, silent_ms)| *silent_ms > STALL_MS)
            .collect()
    }

    /// Notes which connections are useful at the moment.
    pub(super) fn note_useful(&mut self, now: Moment, picker: &PiecePicker) {
        for (_, open) in self.all_open_mut() {
            if open.is_useful(now, picker) {
                open.last_useful = now;
            }
        }
    }

    /// The open connection that has not been useful for longest, and when it last was.
    pub(super) fn least_useful(&self) -> Option<(ConnectionId, PeerNumber, Moment)> {
        let last_useful = |(id, found): (&ConnectionId, &PeerConnection)| {
            Some((*id, found.peer, found.open.as_ref()?.last_useful))
        };
        self.connections.iter().filter_map(last_useful).min_by_key(|(.., last_useful)| *last_useful)
    }

    /// The worst of the connections that are too slow, compared with `idle`, which has nothing to do. After a stall of
    /// this node none counts as crawling.
    pub(super) fn slowest(
        &mut self,
        now: Moment,
        idle: ConnectionId,
        is_local_stall: bool,
    ) -> Option<SlowConnection> {
        let idle_rate = self.open_mut(idle)?.window.measured_rate(now);
        self.all_open_mut()
            .filter(|(id, _)| *id != idle)
            .filter_map(|(id, open)| open.slowness(now, id, idle_rate, is_local_stall))
            .max()
    }

    /// Connections to other peers that are half as fast as `idle_rate` bytes a second, or silent.
    pub(super) fn slower_than(&mut self, now: Moment, peer: PeerNumber, idle_rate: u64) -> Vec<ConnectionId> {
        let mut slower = Vec::new();
        for (id, found) in &mut self.connections {
            let Some(open) = &mut found.open else { continue };
            let is_slow = open.window.rate(now) < idle_rate / 2 || open.window.silent_ms(now) > DOUBT_MS;
            if found.peer != peer && is_slow && !open.is_receive_paused(now) {
                slower.push(*id);
            }
        }
        slower
    }

    /// Adds requests that are about to be sent, without those that are pending already: their answers are still to come.
    pub(super) fn add_requests(&mut self, now: Moment, id: ConnectionId, picked: &mut Vec<PieceIndex>) {
        let Some(open) = self.connections.get_mut(&id).and_then(|found| found.open.as_mut()) else {
            return picked.clear();
        };
        let mark_cancelled = |pending: &mut PendingRequest| pending.state = RequestState::Cancelled;
        picked.retain(|index| open.pending.get_mut(index).map(mark_cancelled).is_none());
        for index in &*picked {
            let request =
                PendingRequest { state: RequestState::Expected, order: self.next_order, requested_at: now };
            open.pending.insert(*index, request);
            self.next_order += 1;
        }
        open.window.requested(now, u32::try_from(picked.len()).expect("at most a window"));
        assert_eq!(
            open.window.in_flight() as usize,
            open.pending.len(),
            "the window counts the pending requests"
        );
    }

    fn all_open_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut OpenConnection)> {
        self.connections.iter_mut().filter_map(|(id, found)| Some((*id, found.open.as_mut()?)))
    }
}
