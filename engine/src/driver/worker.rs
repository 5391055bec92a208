//! A worker: one thread, one ring, and the tasks of its connections.
//!
//! The first worker also accepts, and hands what it accepts to all in turn.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::backend::IoKind;
use super::consumer;
use super::context::Context;
use super::drive;
use super::jobs::{Job, Told, Workers};
use super::limits::{ACCEPT_RETRY_MS, STOP_MS};
use super::local::Local;
use super::provider;
use super::verify;
use super::vital::spawn_vital;
use crate::ends::EndsByPanic;

/// What one worker is started with.
pub(crate) struct Start {
    /// Its number, for its thread's name.
    pub(crate) number: usize,
    /// What all workers share.
    pub(crate) context: Arc<Context>,
    /// Its jobs.
    pub(crate) jobs: mpsc::Receiver<Told>,
    /// The way to the others.
    pub(crate) workers: Arc<Workers>,
    /// For the worker that accepts.
    pub(crate) listener: Option<std::net::TcpListener>,
}

/// Starts a worker's thread.
pub(crate) fn start(start: Start) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", start.number);
    std::thread::Builder::new().name(name).spawn(move || {
        let _ends = EndsByPanic;
        let io = start.context.io;
        if let Err(error) = io.run(|io| work(start, io)) {
            tracing::error!(%error, "a worker could not start its event loop");
        }
    })
}

async fn work(start: Start, io: IoKind) {
    let Start { number, context, mut jobs, workers, listener } = start;
    let local = Rc::new(Local::new(context, number, io));
    spawn_vital(verify::verify(Rc::clone(&local)));
    spawn_vital(verify::write(Rc::clone(&local)));
    if let Some(listener) = listener {
        spawn_vital(accept(listener, Arc::clone(&workers)));
    }
    while let Some(job) = jobs.recv().await {
        match job {
            Told::Do(Job::Serve(socket)) => spawn_vital(provider::serve(Rc::clone(&local), socket)),
            Told::Do(Job::Fetch(download, call)) => {
                spawn_vital(consumer::fetch(Rc::clone(&local), download, call))
            }
            Told::Do(Job::Drive(download)) => {
                spawn_vital(drive::drive(Rc::clone(&local), Arc::clone(&workers), download))
            }
            Told::Stop => break,
        };
    }
    // The kernel must be done with every buffer before the ring goes.
    let all_gone = async {
        while local.shutdown() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(STOP_MS), all_gone).await;
}

async fn accept(listener: std::net::TcpListener, workers: Arc<Workers>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot wait for peers"),
    };
    loop {
        let accepted = listener.accept().await.and_then(|(socket, _)| socket.into_std());
        match accepted {
            // A worker with too much to do drops the connection; its consumer calls again later.
            Ok(socket) => {
                if !workers.submit(Job::Serve(socket)) {
                    tracing::debug!("a worker has too much to do to serve one more");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}
