//! Work for the workers: which there are, and how it reaches them.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::download::{Call, DownloadState};

/// Something for a worker to do.
pub(crate) enum Job {
    /// Serve whoever connected.
    Serve(TcpStream),
    /// Call a peer and fetch from it.
    Fetch(Arc<DownloadState>, Call),
    /// Look after a download until its end.
    Drive(Arc<DownloadState>),
    /// End.
    Stop,
}

/// All workers of a node, in turn.
pub(crate) struct Workers {
    queues: Vec<mpsc::Sender<Job>>,
    next_serve: AtomicUsize,
    next_fetch: AtomicUsize,
}

impl Workers {
    /// By the queues that the workers read.
    pub(crate) fn new(queues: Vec<mpsc::Sender<Job>>) -> Workers {
        Workers { queues, next_serve: AtomicUsize::new(0), next_fetch: AtomicUsize::new(0) }
    }

    /// Gives a job to the next worker: connections that serve and those that fetch are spread each by themselves. Gives it
    /// back when that worker has too much to do, or is gone.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Job> {
        let turn = match &job {
            Job::Serve(_) | Job::Stop => &self.next_serve,
            Job::Fetch(..) | Job::Drive(_) => &self.next_fetch,
        };
        let at = turn.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        self.queues[at].try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job) => job,
        })
    }

    /// Tells every worker to end.
    pub(crate) fn stop(&self) {
        for queue in &self.queues {
            // Full: it is told by the queue's closing, when the last job has been taken.
            let _ = queue.try_send(Job::Stop);
        }
    }
}
