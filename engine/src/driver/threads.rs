//! Threads that work for one download for a while: they look at what is there, prove holes, finish. Whoever stops the node waits for
//! them, and for nothing that they leave behind.
//!
//! Invariant: a thread that has ended is forgotten with the next that starts, so there are never more than work.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The threads of a node that come and go.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    /// Starts one.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub(crate) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut running = self.lock();
        running.retain(|thread| !thread.is_finished());
        running.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }

    /// Waits until all that were started have ended. Blocks.
    pub(crate) fn join(&self) {
        let running = std::mem::take(&mut *self.lock());
        for thread in running {
            // A panic has been reported on its thread already.
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
