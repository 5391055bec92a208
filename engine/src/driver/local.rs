//! What the tasks of one worker share on its thread: its open connections, deadlines, the queue of landed pieces.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::context::Context;
use super::landed::LandedQueue;
use super::stream::Stream;

/// One worker's own.
pub(crate) struct Local {
    /// What all workers share.
    pub(crate) context: Arc<Context>,
    /// The worker's number.
    pub(crate) number: usize,
    /// Pieces that have landed on this worker.
    pub(crate) landed: LandedQueue,
    streams: RefCell<Vec<Weak<Stream>>>,
}

impl Local {
    /// A worker without connections.
    pub(crate) fn new(context: Arc<Context>, number: usize) -> Local {
        Local { context, number, landed: LandedQueue::default(), streams: RefCell::default() }
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
