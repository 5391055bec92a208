//! What the tasks of one worker share on its thread: its connections, the pieces that wait for it, its side ring.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::backend::IoKind;
use super::context::NodeContext;
use super::limits::QUEUED_PER_WORKER_MAX;
use super::piece_queue::{BufferedPiece, PieceQueue, VerifiedPiece};
use super::stall::BusyMarker;
use super::stream::PeerStream;
use super::zero_copy::ZeroCopyRoute;
use crate::abort::spawn_critical;
use crate::mem::side_ring::SideRing;

/// The state of one worker.
pub(crate) struct WorkerState {
    pub(crate) context: Arc<NodeContext>,
    /// The worker's number, counted from 0.
    pub(crate) number: usize,
    /// The back end that runs here.
    pub(crate) io: IoKind,
    pub(crate) to_verify: PieceQueue<BufferedPiece>,
    pub(crate) to_write: PieceQueue<VerifiedPiece>,
    /// Busy while this thread hashes or writes.
    pub(crate) busy: BusyMarker,
    queue_room: Notify,
    streams: RefCell<Vec<Weak<PeerStream>>>,
    /// Made for the first peer that may be sent to without a copy; `None`: the system gives none.
    side_ring: OnceCell<Option<Rc<SideRing>>>,
}

impl WorkerState {
    /// A worker without connections.
    pub(crate) fn new(context: Arc<NodeContext>, number: usize, io: IoKind) -> WorkerState {
        WorkerState {
            busy: context.stalls.add_worker(),
            context,
            number,
            io,
            to_verify: PieceQueue::default(),
            to_write: PieceQueue::default(),
            queue_room: Notify::new(),
            streams: RefCell::default(),
            side_ring: OnceCell::new(),
        }
    }

    /// Whether fewer pieces than [`QUEUED_PER_WORKER_MAX`] wait here.
    pub(crate) fn has_queue_room(&self) -> bool {
        self.to_verify.len() + self.to_write.len() < QUEUED_PER_WORKER_MAX
    }

    /// Waits for queue room. With more pieces queued, their bytes would leave the core's caches before they are hashed.
    pub(crate) async fn wait_for_queue_room(&self) {
        while !self.has_queue_room() {
            self.queue_room.notified().await;
        }
    }

    /// Pieces have left the queues.
    pub(crate) fn notify_queue_room(&self) {
        self.queue_room.notify_waiters();
    }

    /// The way to send to a peer without a copy, where the policy and the system allow it.
    pub(crate) fn zero_copy_route(&self, peer: SocketAddr) -> Option<ZeroCopyRoute> {
        let policy = &self.context.zero_copy;
        let make_ring = || match SideRing::new().map(Rc::new) {
            Ok(ring) => {
                let driven = Rc::clone(&ring);
                spawn_critical(async move { driven.run().await });
                Some(ring)
            }
            Err(error) => {
                tracing::info!(%error, "no zero-copy sends");
                None
            }
        };
        let is_possible = self.io == IoKind::Uring && policy.applies_to(peer);
        let ring = is_possible.then(|| self.side_ring.get_or_init(make_ring).as_ref())??;
        Some(ZeroCopyRoute::new(Rc::clone(ring), Arc::clone(policy), peer.ip()))
    }

    /// Registers a connection for [`WorkerState::shutdown_streams`].
    pub(crate) fn register_stream(&self, stream: PeerStream) -> Rc<PeerStream> {
        let stream = Rc::new(stream);
        let mut streams = self.streams.borrow_mut();
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Rc::downgrade(&stream));
        stream
    }

    /// Shuts down every connection; returns how many are still open.
    pub(crate) fn shutdown_streams(&self) -> usize {
        let streams: Vec<_> = self.streams.borrow().iter().filter_map(Weak::upgrade).collect();
        streams.iter().for_each(|stream| stream.shutdown());
        streams.len()
    }
}

/// Shuts a connection down after a time, unless it is dropped first.
pub(crate) struct StreamDeadline {
    task: AbortHandle,
    has_expired: Rc<Cell<bool>>,
}

impl StreamDeadline {
    /// Starts the time, in milliseconds.
    pub(crate) fn new(stream: &Rc<PeerStream>, ms: u64) -> StreamDeadline {
        let (stream, has_expired) = (Rc::clone(stream), Rc::new(Cell::new(false)));
        let expired = Rc::clone(&has_expired);
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            expired.set(true);
            stream.shutdown();
        });
        StreamDeadline { task: task.abort_handle(), has_expired }
    }

    /// Whether the time has passed, so that the connection was shut down.
    pub(crate) fn has_expired(&self) -> bool {
        self.has_expired.get()
    }
}

impl Drop for StreamDeadline {
    fn drop(&mut self) {
        self.task.abort();
    }
}
