//! Pools of threads for work that would block the loop. Jobs go in by a bounded queue; each result wakes the
//! loop.
//!
//! Invariants: at most `threads` jobs run and `waiting` wait; each accepted job gives exactly one result,
//! even when it panics; results never block a worker, since their queue has room for all jobs in flight. A
//! job writes its scratch memory before it reads it, since a job that panicked may have left anything there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;

use super::slots::ConnectionToken;

pub(super) struct WorkerPool<J, R> {
    jobs: SyncSender<(ConnectionToken, J)>,
    results: Receiver<(ConnectionToken, Option<R>)>,
}

impl<J: Send + 'static, R: Send + 'static> WorkerPool<J, R> {
    /// Starts `threads` threads, for which up to `waiting` jobs may wait. Each thread keeps one `S` as
    /// scratch memory for all its jobs.
    pub(super) fn start<S: Default + 'static>(
        name: &str,
        threads: usize,
        waiting: usize,
        waker: &Arc<Waker>,
        work: fn(&mut S, J) -> R,
    ) -> std::io::Result<WorkerPool<J, R>> {
        let (jobs, queue) = sync_channel(waiting);
        let (finished, results) = sync_channel(waiting + threads);
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads {
            let (queue, finished, waker) = (Arc::clone(&queue), finished.clone(), Arc::clone(waker));
            thread::Builder::new()
                .name(format!("{name} {index}"))
                .spawn(move || run_worker(&queue, &finished, &waker, work))?;
        }
        Ok(WorkerPool { jobs, results })
    }

    pub(super) fn submit(&self, token: ConnectionToken, job: J) -> Result<(), J> {
        self.jobs.try_send((token, job)).map_err(|refused| match refused {
            TrySendError::Full((_, job)) | TrySendError::Disconnected((_, job)) => job,
        })
    }

    /// The next result, if one is ready. It is `None` when the job panicked.
    pub(super) fn next_result(&self) -> Option<(ConnectionToken, Option<R>)> {
        self.results.try_recv().ok()
    }
}

/// Runs one worker thread until the pool is dropped.
fn run_worker<S: Default, J, R>(
    queue: &Mutex<Receiver<(ConnectionToken, J)>>,
    finished: &SyncSender<(ConnectionToken, Option<R>)>,
    waker: &Waker,
    work: fn(&mut S, J) -> R,
) {
    let mut scratch = S::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((token, job)) = next else { return };
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut scratch, job))).ok();
        if finished.send((token, result)).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            tracing::error!(%error, "cannot wake the loop");
        }
    }
}
