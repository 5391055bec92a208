//! A worker: one thread, one ring, and the tasks of its connections.
//!
//! The first worker also accepts peers, and hands them to all workers in turn. Invariant: each worker reports once, before its
//! first job, which back end it runs or why it cannot.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::backend::IoKind;
use super::consumer;
use super::context::NodeContext;
use super::drive;
use super::jobs::{EngineWorkers, WorkerJob, WorkerMessage};
use super::limits::{ACCEPT_RETRY_MS, STOP_MS, STOP_POLL_MS};
use super::places;
use super::provider;
use super::verify;
use super::worker_state::WorkerState;
use crate::abort::{AbortOnPanic, spawn_critical};

/// What a worker is started with.
pub(crate) struct WorkerStart {
    /// Its number, counted from 0.
    pub(crate) number: usize,
    pub(crate) context: Arc<NodeContext>,
    pub(crate) jobs: mpsc::Receiver<WorkerMessage>,
    /// All workers, to hand on accepted peers and connections to make.
    pub(crate) workers: Arc<EngineWorkers>,
    /// For the worker that accepts peers.
    pub(crate) listener: Option<std::net::TcpListener>,
    /// Takes the report. Its capacity is the number of workers, so that no report blocks.
    pub(crate) started: SyncSender<io::Result<IoKind>>,
}

/// Starts a worker's thread.
pub(crate) fn start_worker(start: WorkerStart) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", start.number);
    std::thread::Builder::new().name(name).spawn(move || {
        let _abort = AbortOnPanic;
        let (io, started) = (start.context.io, start.started.clone());
        if let Err(error) = io.run(|io| run_worker(start, io)) {
            // The receiver is gone when another worker could not start either.
            let _ = started.send(Err(error));
        }
    })
}

async fn run_worker(start: WorkerStart, io: IoKind) {
    let WorkerStart { number, context, mut jobs, workers, listener, started } = start;
    let listener = match listener.map(tokio::net::TcpListener::from_std).transpose() {
        Ok(listener) => listener,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let worker = Rc::new(WorkerState::new(context, number, io));
    spawn_critical(verify::run_verifier(Rc::clone(&worker)));
    spawn_critical(verify::run_writer(Rc::clone(&worker)));
    if let Some(listener) = listener {
        spawn_critical(accept_peers(listener, Arc::clone(&worker.context), Arc::clone(&workers)));
    }
    let _ = started.send(Ok(io));
    drop(started);
    while let Some(message) = jobs.recv().await {
        match message {
            WorkerMessage::Run(WorkerJob::Serve(peer)) => {
                spawn_critical(provider::serve_peer(Rc::clone(&worker), peer))
            }
            WorkerMessage::Run(WorkerJob::Fetch(download, request)) => {
                spawn_critical(consumer::fetch_from_peer(Rc::clone(&worker), download, request))
            }
            WorkerMessage::Run(WorkerJob::Drive(download)) => {
                spawn_critical(drive::drive_download(Rc::clone(&worker), Arc::clone(&workers), download))
            }
            WorkerMessage::Stop => break,
        };
    }
    // The kernel must return every buffer before the ring goes.
    let all_closed = async {
        while worker.shutdown_streams() > 0 {
            tokio::time::sleep(Duration::from_millis(STOP_POLL_MS)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(STOP_MS), all_closed).await;
}

async fn accept_peers(
    listener: tokio::net::TcpListener,
    context: Arc<NodeContext>,
    workers: Arc<EngineWorkers>,
) {
    loop {
        let socket = listener.accept().await.and_then(|(socket, _)| socket.into_std());
        match socket.and_then(|socket| context.places.accept(socket)) {
            Ok(Some(peer)) => {
                let control = Arc::clone(&peer.control);
                if !workers.submit(WorkerJob::Serve(peer)) {
                    places::refuse_busy(&control);
                }
            }
            Ok(None) => tracing::debug!("no place for another peer"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::mpsc::sync_channel;

    use super::super::context::tests::epoll_context;
    use super::*;

    /// Starts a worker that accepts by this listener; returns what it reports.
    fn start_report(listener: std::net::TcpListener) -> io::Result<IoKind> {
        let (queue, jobs) = mpsc::channel(1);
        let workers = Arc::new(EngineWorkers::new(vec![queue]));
        let (context, listener) = (Arc::new(epoll_context()), Some(listener));
        let (started, reports) = sync_channel(1);
        let stop = Arc::clone(&workers);
        let thread =
            start_worker(WorkerStart { number: 0, context, jobs, workers, listener, started }).unwrap();
        let report = reports.recv().expect("every worker reports");
        stop.stop();
        thread.join().unwrap();
        report
    }

    #[test]
    fn a_worker_reports_its_back_end_or_its_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(start_report(listener).unwrap(), IoKind::Epoll);
        // epoll_ctl(2) refuses regular files.
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let file = tempfile::NamedTempFile::new().unwrap();
        let file: OwnedFd = rustix::fs::open(file.path(), flags, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(start_report(file.into()).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
