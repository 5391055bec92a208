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
use super::context::NodeContext;
use super::limits::QUEUED_PER_WORKER_MAX;
use super::piece_queue::{BufferedPiece, PieceQueue, VerifiedPiece};
use super::stall::BusyMarker;
use super::stream::PeerStream;
use super::zero_copy::ZeroCopyRoute;
use crate::abort::spawn_critical;
use crate::mem::side_ring::SideRing;

/// One worker's own.
pub(crate) struct WorkerState {
    /// What all workers share.
    pub(crate) context: Arc<NodeContext>,
    /// The worker's number.
    pub(crate) number: usize,
    /// The back end that runs here.
    pub(crate) io: IoKind,
    /// Pieces that have landed on this worker, to be verified.
    pub(crate) to_verify: PieceQueue<BufferedPiece>,
    /// Those that are verified, to be written.
    pub(crate) to_write: PieceQueue<VerifiedPiece>,
    /// What this worker is at.
    pub(crate) busy: BusyMarker,
    queue_room: Notify,
    streams: RefCell<Vec<Weak<PeerStream>>>,
    /// Made for the first peer that is sent to without a copy; `None`: not to be had.
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

    /// Whether few enough pieces wait here to be verified or written.
    pub(crate) fn has_queue_room(&self) -> bool {
        self.to_verify.len() + self.to_write.len() < QUEUED_PER_WORKER_MAX
    }

    /// Waits until few enough pieces wait here to be verified or written: what piles up is no longer in the core's caches
    /// when its turn comes.
    pub(crate) async fn wait_for_queue_room(&self) {
        while !self.has_queue_room() {
            self.queue_room.notified().await;
        }
    }

    /// Pieces that waited here are written, or will not be.
    pub(crate) fn notify_queue_room(&self) {
        self.queue_room.notify_waiters();
    }

    /// How pieces go to a peer without a copy, where they may.
    pub(crate) fn zero_copy_route(&self, peer: SocketAddr) -> Option<ZeroCopyRoute> {
        let zero_copy = &self.context.zero_copy;
        let ring = || match SideRing::new().map(Rc::new) {
            Ok(ring) => {
                let driven = Rc::clone(&ring);
                spawn_critical(async move { driven.run().await });
                Some(ring)
            }
            Err(error) => {
                tracing::info!(%error, "no sends without a copy");
                None
            }
        };
        let possible = self.io == IoKind::Uring && zero_copy.applies_to(peer);
        let ring = possible.then(|| self.side_ring.get_or_init(ring).as_ref())??;
        Some(ZeroCopyRoute::new(Rc::clone(ring), Arc::clone(zero_copy), peer.ip()))
    }

    /// Takes a connection into the list of those that [`WorkerState::shutdown_streams`] ends.
    pub(crate) fn register_stream(&self, stream: PeerStream) -> Rc<PeerStream> {
        let stream = Rc::new(stream);
        let mut streams = self.streams.borrow_mut();
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Rc::downgrade(&stream));
        stream
    }

    /// Ends every connection; how many there were.
    pub(crate) fn shutdown_streams(&self) -> usize {
        let streams: Vec<_> = self.streams.borrow().iter().filter_map(Weak::upgrade).collect();
        streams.iter().for_each(|stream| stream.shutdown());
        streams.len()
    }
}

/// Shuts a connection down when its time is over, unless this is dropped first.
pub(crate) struct StreamDeadline(AbortHandle);

impl StreamDeadline {
    /// Starts the time.
    pub(crate) fn new(stream: &Rc<PeerStream>, ms: u64) -> StreamDeadline {
        let stream = Rc::clone(stream);
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            stream.shutdown();
        });
        StreamDeadline(task.abort_handle())
    }
}

impl Drop for StreamDeadline {
    fn drop(&mut self) {
        self.0.abort();
    }
}
