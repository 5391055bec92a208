//! What the tasks of one worker share on its thread: its open connections, deadlines, the queue of landed pieces,
//! the ring for sends without a copy.

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::backend::IoKind;
use super::context::Context;
use super::landed::{Landed, Proven, Queue};
use super::limits::LANDED_EACH;
use super::pulse::Pulse;
use super::stream::Stream;
use super::vital::spawn_vital;
use super::zero_copy::Route;
use crate::mem::side_ring::SideRing;

/// One worker's own.
pub(crate) struct Local {
    /// What all workers share.
    pub(crate) context: Arc<Context>,
    /// The worker's number.
    pub(crate) number: usize,
    /// The back end that runs here.
    pub(crate) io: IoKind,
    /// Pieces that have landed on this worker, to be verified.
    pub(crate) landed: Queue<Landed>,
    /// Those that are verified, to be written.
    pub(crate) proven: Queue<Proven>,
    /// What this worker is at.
    pub(crate) pulse: Pulse,
    written: Notify,
    streams: RefCell<Vec<Weak<Stream>>>,
    /// Made for the first peer that is sent to without a copy; `None`: not to be had.
    side_ring: OnceCell<Option<Rc<SideRing>>>,
}

impl Local {
    /// A worker without connections.
    pub(crate) fn new(context: Arc<Context>, number: usize, io: IoKind) -> Local {
        Local {
            pulse: context.pulses.add(),
            context,
            number,
            io,
            landed: Queue::default(),
            proven: Queue::default(),
            written: Notify::new(),
            streams: RefCell::default(),
            side_ring: OnceCell::new(),
        }
    }

    /// Whether few enough pieces wait here to be verified or written.
    pub(crate) fn has_room(&self) -> bool {
        self.landed.len() + self.proven.len() < LANDED_EACH
    }

    /// Waits until few enough pieces wait here to be verified or written: what piles up is no longer in the core's caches
    /// when its turn comes.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            self.written.notified().await;
        }
    }

    /// Pieces that waited here are written, or will not be.
    pub(crate) fn made_room(&self) {
        self.written.notify_waiters();
    }

    /// How pieces go to a peer without a copy, where they may.
    pub(crate) fn route(&self, peer: SocketAddr) -> Option<Route> {
        let zero_copy = &self.context.zero_copy;
        let ring = || match SideRing::new().map(Rc::new) {
            Ok(ring) => {
                let driven = Rc::clone(&ring);
                spawn_vital(async move { driven.run().await });
                Some(ring)
            }
            Err(error) => {
                tracing::info!(%error, "no sends without a copy");
                None
            }
        };
        let possible = self.io == IoKind::Uring && zero_copy.is_for(peer);
        let ring = possible.then(|| self.side_ring.get_or_init(ring).as_ref())??;
        Some(Route::new(Rc::clone(ring), Arc::clone(zero_copy), peer.ip()))
    }

    /// Takes a connection into the list of those that [`Local::shutdown`] ends.
    pub(crate) fn adopt(&self, stream: Stream) -> Rc<Stream> {
        let stream = Rc::new(stream);
        let mut streams = self.streams.borrow_mut();
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Rc::downgrade(&stream));
        stream
    }

    /// Ends every connection; how many there were.
    pub(crate) fn shutdown(&self) -> usize {
        let streams: Vec<_> = self.streams.borrow().iter().filter_map(Weak::upgrade).collect();
        streams.iter().for_each(|stream| stream.shutdown());
        streams.len()
    }
}

/// Shuts a connection down when its time is over, unless this is dropped first.
pub(crate) struct Deadline(AbortHandle);

impl Deadline {
    /// Starts the time.
    pub(crate) fn new(stream: &Rc<Stream>, ms: u64) -> Deadline {
        let stream = Rc::clone(stream);
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            stream.shutdown();
        });
        Deadline(task.abort_handle())
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.0.abort();
    }
}
