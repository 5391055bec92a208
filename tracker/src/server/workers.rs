//! A few threads beside the loop, for work that would hold it up: jobs go in bounded, results come back with a wake-up.
//!
//! Invariants: at most `threads` jobs run and `waiting` wait; each accepted job gives exactly one result, even when it
//! panics; results never block a worker, since there is room for all that can be under way. What a bench holds counts for
//! nothing before a job has written it: a job that panicked may have left anything there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;

use super::slots::ConnectionToken;

/// A pool of threads that turn jobs into results.
pub(super) struct WorkerPool<J, R> {
    jobs: SyncSender<(ConnectionToken, J)>,
    results: Receiver<(ConnectionToken, Option<R>)>,
}

impl<J: Send + 'static, R: Send + 'static> WorkerPool<J, R> {
    /// Starts `threads` threads, each with a bench of its own for what it keeps from one job to the next; up to `waiting` jobs wait
    /// for them.
    pub(super) fn start<B: Default + 'static>(
        name: &str,
        threads: usize,
        waiting: usize,
        waker: &Arc<Waker>,
        work: fn(&mut B, J) -> R,
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

    /// Hands a job over; gives it back when too many wait.
    pub(super) fn submit(&self, whose: ConnectionToken, job: J) -> Result<(), J> {
        self.jobs.try_send((whose, job)).map_err(|refused| match refused {
            TrySendError::Full((_, job)) | TrySendError::Disconnected((_, job)) => job,
        })
    }

    /// The next result, if there is one; `None` inside it when the job panicked.
    pub(super) fn next_result(&self) -> Option<(ConnectionToken, Option<R>)> {
        self.results.try_recv().ok()
    }
}

/// One worker's life: it ends when the pool is dropped.
fn run_worker<B: Default, J, R>(
    queue: &Mutex<Receiver<(ConnectionToken, J)>>,
    finished: &SyncSender<(ConnectionToken, Option<R>)>,
    waker: &Waker,
    work: fn(&mut B, J) -> R,
) {
    let mut bench = B::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((whose, job)) = next else { return };
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut bench, job))).ok();
        if finished.send((whose, result)).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            tracing::error!(%error, "the loop cannot be woken");
        }
    }
}
