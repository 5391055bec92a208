//! The jobs of workers, and their queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::download::{ActiveDownload, ConnectRequest};
use super::places::AcceptedPeer;

/// A job for a worker.
pub(crate) enum WorkerJob {
    /// Serve a peer that has connected.
    Serve(AcceptedPeer),
    /// Connect to a peer and fetch from it.
    Fetch(Arc<ActiveDownload>, ConnectRequest),
    /// Drive a download until its end.
    Drive(Arc<ActiveDownload>),
}

/// A message to a worker.
pub(crate) enum WorkerMessage {
    Run(WorkerJob),
    Stop,
}

/// The queues of all workers.
pub(crate) struct EngineWorkers {
    queues: Vec<mpsc::Sender<WorkerMessage>>,
    next_serve: AtomicUsize,
    next_fetch: AtomicUsize,
}

impl EngineWorkers {
    /// Takes the queues that the workers read.
    pub(crate) fn new(queues: Vec<mpsc::Sender<WorkerMessage>>) -> EngineWorkers {
        EngineWorkers { queues, next_serve: AtomicUsize::new(0), next_fetch: AtomicUsize::new(0) }
    }

    /// Gives a job to the next worker with room in its queue. Connections that serve and those that fetch are spread over
    /// the workers separately. `false`: all queues are full or closed, and the job is dropped.
    #[must_use = "a job that was not taken is lost"]
    pub(crate) fn submit(&self, job: WorkerJob) -> bool {
        let turn = match &job {
            WorkerJob::Serve(_) => &self.next_serve,
            WorkerJob::Fetch(..) | WorkerJob::Drive(_) => &self.next_fetch,
        };
        let first = turn.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let (before, from) = self.queues.split_at(first);
        let mut message = WorkerMessage::Run(job);
        for queue in from.iter().chain(before) {
            match queue.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Full(back) | TrySendError::Closed(back)) => message = back,
            }
        }
        false
    }

    /// Tells every worker to stop. Blocks while a worker's queue is full.
    ///
    /// # Panics
    /// When an asynchronous task calls it.
    pub(crate) fn stop(&self) {
        for queue in &self.queues {
            // Closed: the worker has ended already.
            let _ = queue.blocking_send(WorkerMessage::Stop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::super::places::ServingPlaces;
    use super::*;

    #[test]
    fn a_job_goes_to_a_worker_with_room() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let places = Arc::new(ServingPlaces::new());
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let job = || WorkerJob::Serve(places.accept(connect()).unwrap().unwrap());
        let (full, _kept) = mpsc::channel(1);
        full.try_send(WorkerMessage::Stop).unwrap_or_else(|_| unreachable!("it has room for one"));
        let (closed, jobs) = mpsc::channel(1);
        drop(jobs);
        let (free, mut jobs) = mpsc::channel(2);
        let workers = EngineWorkers::new(vec![full, closed, free]);
        for _ in 0..2 {
            assert!(workers.submit(job()), "any worker may be first");
        }
        assert!(!workers.submit(job()), "all queues are full or closed");
        for _ in 0..2 {
            assert!(matches!(jobs.try_recv(), Ok(WorkerMessage::Run(WorkerJob::Serve(_)))));
        }
    }

    #[test]
    fn a_stop_waits_for_room_in_a_full_queue() {
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
