//! The places of connections that serve, over all workers, with their sockets.
//!
//! The table decides who loses a place; here the socket of that connection is shut down for reading, which wakes its reading
//! task wherever it runs. It says goodbye then. Invariant: a place is taken from the moment of the accept until its
//! [`ServingPlaceGuard`] is dropped, so places bound the descriptors of all connections that serve.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, getrlimit};
use socket2::SockRef;

use crate::lock::lock;
use crate::proto::codec;
use crate::proto::frame::{Message, RefusedCode};
use crate::proto::places::{NodePlaceLimits, NodePlaceTable, PlaceEnd, PlaceId};
use crate::proto::ticket::UnixSeconds;
use crate::proto::time::Moment;

/// The places of connections that serve.
#[derive(Debug)]
pub(crate) struct ServingPlaces(Mutex<PlacesState>);

#[derive(Debug)]
struct PlacesState {
    table: NodePlaceTable,
    sockets: BTreeMap<PlaceId, Arc<TcpStream>>,
}

/// A peer that has connected, with its place.
pub(crate) struct AcceptedPeer {
    pub(crate) socket: TcpStream,
    /// A second descriptor of the socket.
    pub(crate) control: Arc<TcpStream>,
    pub(crate) place: ServingPlaceGuard,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct ServingPlaceGuard {
    places: Arc<ServingPlaces>,
    id: PlaceId,
}

impl ServingPlaces {
    /// As many places as this process has descriptors for.
    pub(crate) fn new() -> ServingPlaces {
        let limits = NodePlaceLimits::for_descriptors(getrlimit(Resource::Nofile).current);
        ServingPlaces(Mutex::new(PlacesState {
            table: NodePlaceTable::new(limits),
            sockets: BTreeMap::new(),
        }))
    }

    /// Gives a place to a peer that has connected. `None`: there is none, and the peer was told so.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub(crate) fn accept(self: &Arc<Self>, socket: TcpStream) -> io::Result<Option<AcceptedPeer>> {
        let ip = socket.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let control = Arc::new(socket.try_clone()?);
        let mut state = lock(&self.0);
        let Some(accepted) = state.table.accept(ip) else {
            refuse_busy(&socket);
            return Ok(None);
        };
        state.close(accepted.ended);
        state.sockets.insert(accepted.id, Arc::clone(&control));
        drop(state);
        let place = ServingPlaceGuard { places: Arc::clone(self), id: accepted.id };
        Ok(Some(AcceptedPeer { socket, control, place }))
    }

    /// Ends the connections whose tickets are over at `time`, by the tracker's clock.
    pub(crate) fn end_expired(&self, now: Moment, time: UnixSeconds) {
        let mut state = lock(&self.0);
        for id in state.table.expire(now, time) {
            state.close(Some(id));
        }
    }
}

impl PlacesState {
    fn close(&self, ended: Option<PlaceId>) {
        if let Some(socket) = ended.and_then(|id| self.sockets.get(&id)) {
            // ENOTCONN: the peer has closed it already.
            let _ = SockRef::from(&**socket).shutdown(Shutdown::Read);
        }
    }
}

impl ServingPlaceGuard {
    /// Keeps the place for a consumer with a valid ticket, if there is room among those.
    ///
    /// # Errors
    /// Why the place is lost.
    pub(crate) fn admit(&self, now: Moment, user: &str, expires: UnixSeconds) -> Result<(), PlaceEnd> {
        let mut state = lock(&self.places.0);
        let ended = state.table.admit(now, self.id, user, expires)?;
        state.close(ended);
        Ok(())
    }

    /// The consumer has shown a later ticket.
    pub(crate) fn renew(&self, expires: UnixSeconds) {
        lock(&self.places.0).table.renew(self.id, expires);
    }

    /// A piece was sent.
    pub(crate) fn note_use(&self, now: Moment) {
        lock(&self.places.0).table.note_use(now, self.id);
    }

    /// Counts a rejection. Returns how long to wait before it is sent, in milliseconds.
    pub(crate) fn reserve_rejection(&self, now: Moment) -> u64 {
        lock(&self.places.0).table.reserve_rejection(now, self.id)
    }

    /// Why the place was lost, if it was.
    pub(crate) fn end(&self) -> Option<PlaceEnd> {
        lock(&self.places.0).table.end_of(self.id)
    }
}

impl Drop for ServingPlaceGuard {
    fn drop(&mut self) {
        let mut state = lock(&self.places.0);
        state.table.remove(self.id);
        state.sockets.remove(&self.id);
    }
}

/// Tells a peer that has just connected that there is no place for it. Its socket takes so few bytes at once.
pub(crate) fn refuse_busy(mut socket: &TcpStream) {
    // The peer may be gone.
    let _ = socket.write(&codec::encode_message(&busy_message()));
}

/// The refusal for lack of places.
pub(crate) fn busy_message() -> Message {
    Message::Refused { code: RefusedCode::Busy, message: "too many connections".to_owned() }
}
