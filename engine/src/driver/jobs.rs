//! Work for the workers: which there are, and how it reaches them.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::download::{ActiveDownload, ConnectRequest};

/// Something for a worker to do.
pub(crate) enum WorkerJob {
    /// Serve whoever connected.
    Serve(TcpStream),
    /// Call a peer and fetch from it.
    Fetch(Arc<ActiveDownload>, ConnectRequest),
    /// Look after a download until its end.
    Drive(Arc<ActiveDownload>),
}

/// What a worker is told.
pub(crate) enum WorkerMessage {
    /// There is something to do.
    Run(WorkerJob),
    /// End.
    Stop,
}

/// All workers of a node, in turn.
pub(crate) struct EngineWorkers {
    queues: Vec<mpsc::Sender<WorkerMessage>>,
    next_serve: AtomicUsize,
    next_fetch: AtomicUsize,
}

impl EngineWorkers {
    /// By the queues that the workers read.
    pub(crate) fn new(queues: Vec<mpsc::Sender<WorkerMessage>>) -> EngineWorkers {
        EngineWorkers { queues, next_serve: AtomicUsize::new(0), next_fetch: AtomicUsize::new(0) }
    }

    /// Gives a job to the next worker that takes it: connections that serve and those that fetch are spread each by themselves.
    /// Whether it was taken: it is dropped when all workers have too much to do, or are gone.
    #[must_use = "a job that was not taken is lost"]
    pub(crate) fn submit(&self, job: WorkerJob) -> bool {
        let turn = match &job {
            WorkerJob::Serve(_) => &self.next_serve,
            WorkerJob::Fetch(..) | WorkerJob::Drive(_) => &self.next_fetch,
        };
        let first = turn.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let (before, from) = self.queues.split_at(first);
        let mut told = WorkerMessage::Run(job);
        for queue in from.iter().chain(before) {
            match queue.try_send(told) {
                Ok(()) => return true,
                Err(TrySendError::Full(back) | TrySendError::Closed(back)) => told = back,
            }
        }
        false
    }

    /// Tells every worker to end. Blocks while a worker's queue is full: it takes its jobs first.
    ///
    /// # Panics
    /// When an asynchronous task calls it.
    pub(crate) fn stop(&self) {
        for queue in &self.queues {
            // Closed: it has ended already.
            let _ = queue.blocking_send(WorkerMessage::Stop);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_to_whichever_worker_takes_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let job = || WorkerJob::Serve(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (full, _kept) = mpsc::channel(1);
        full.try_send(WorkerMessage::Stop).unwrap_or_else(|_| unreachable!("it has room for one"));
        let (gone, jobs) = mpsc::channel(1);
        drop(jobs);
        let (free, mut jobs) = mpsc::channel(2);
        let workers = EngineWorkers::new(vec![full, gone, free]);
        for _ in 0..2 {
            assert!(workers.submit(job()), "whoever comes first in turn");
        }
        assert!(!workers.submit(job()), "all have too much to do");
        for _ in 0..2 {
            assert!(matches!(jobs.try_recv(), Ok(WorkerMessage::Run(WorkerJob::Serve(_)))));
        }
    }

    #[test]
    fn a_full_queue_loses_no_stop() {
        let (queue, mut jobs) = mpsc::channel(1);
        queue.try_send(WorkerMessage::Stop).unwrap_or_else(|_| unreachable!("it has room for one"));
        let workers = EngineWorkers::new(vec![queue]);
        std::thread::scope(|scope| {
            scope.spawn(|| workers.stop());
            for _ in 0..2 {
                assert!(matches!(jobs.blocking_recv(), Some(WorkerMessage::Stop)));
            }
        });
    }
}
