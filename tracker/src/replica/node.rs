//! This tracker's replica: a handle to the thread that runs the consensus library.
//!
//! Invariants: a command is answered only after its entry is durable and applied. Commands that wait at the same time share
//! one entry, and so one sync. On a full disk, commands are refused before anything is written, and reads continue. After
//! a failed write the log is reopened until it accepts writes; until then it is read through an overlay.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::state::command::LogCommand;

use super::fault::ReplicaFault;
use super::limits::{BATCH_MAX_BYTES, WAITING_MAX_BYTES, WAITING_MAX_COMMANDS};
use super::location::LogLocation;
use super::proposal::{Proposal, ProposalError, command_bytes};
use super::published::{PublishedState, ReplicaOptions};
use super::raft_types::ApplyResult;
use super::runner;
use super::tables::TablesView;

/// Counters since the log was opened last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounters {
    /// Syncs of the log's file.
    pub fsyncs: u64,
    /// Entries appended.
    pub entries: u64,
    /// Commands applied.
    pub commands: u64,
}

/// Handle to the replica's thread. Dropping it stops the thread.
#[derive(Debug)]
pub struct Replica {
    proposals: mpsc::Sender<Proposal>,
    waiting_bytes: Arc<Semaphore>,
    shared: Arc<PublishedState>,
    cluster: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Replica {
    /// Opens the log and runs it. Returns when every entry is applied, so that reads are current.
    ///
    /// # Errors
    /// [`ReplicaFault`] when the log cannot be used.
    pub fn start(home: impl LogLocation, options: ReplicaOptions) -> Result<Replica, ReplicaFault> {
        let (proposals, inbox) = mpsc::channel(WAITING_MAX_COMMANDS);
        let (stop, stopped) = oneshot::channel();
        let (ready, begun) = std_mpsc::sync_channel(1);
        let shared = Arc::new(PublishedState::default());
        let (name, cluster) = (home.name(), options.cluster.clone());
        let run = {
            let shared = Arc::clone(&shared);
            move || runner::run_log(Box::new(home), &options, inbox, stopped, &shared, ready)
        };
        let thread = std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn(run)
            .map_err(|source| ReplicaFault::io(name.as_ref(), "start a thread", source))?;
        let stopped = || ReplicaFault::Stopped { path: name.into(), reason: "its thread ended".to_owned() };
        begun.recv().unwrap_or_else(|_| Err(stopped()))?;
        let waiting_bytes = Arc::new(Semaphore::new(WAITING_MAX_BYTES));
        Ok(Replica { proposals, waiting_bytes, shared, cluster, stop: Some(stop), thread: Some(thread) })
    }

    /// Proposes a command. `reply` is called once, from the replica's thread, when the command is durable and applied or has
    /// failed; it must not block.
    ///
    /// # Errors
    /// [`ProposalError::TooLarge`], [`ProposalError::Busy`] or [`ProposalError::Unavailable`]; then `reply` is not called.
    pub fn propose(
        &self,
        command: LogCommand,
        reply: impl FnOnce(Result<ApplyResult, ProposalError>) + Send + 'static,
    ) -> Result<(), ProposalError> {
        let bytes = command_bytes(&command);
        if bytes > BATCH_MAX_BYTES {
            return Err(ProposalError::TooLarge { bytes });
        }
        let permits = u32::try_from(bytes).expect("BATCH_MAX_BYTES is far below 4 GiB");
        let permit = Arc::clone(&self.waiting_bytes)
            .try_acquire_many_owned(permits)
            .map_err(|_| ProposalError::Busy)?;
        let proposal = Proposal { command, bytes, reply: Box::new(reply), _permit: permit };
        self.proposals.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposalError::Busy,
            mpsc::error::TrySendError::Closed(_) => {
                ProposalError::Unavailable("its log has stopped".to_owned())
            }
        })
    }

    /// The current tables. A view after an answer contains the answered change.
    ///
    /// # Errors
    /// [`ReplicaFault`] while the log is being reopened.
    pub fn view(&self) -> Result<TablesView, ReplicaFault> {
        let store = self.shared.store();
        match store {
            Some(store) => TablesView::of(&store),
            None => Err(ReplicaFault::Stopped {
                path: "the log".into(),
                reason: "it is being reopened".to_owned(),
            }),
        }
    }

    /// Changes whenever the log was reopened. Earlier views can read nothing more.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// Changes whenever a tracker begins to lead, also the same one again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch()
    }

    /// Id of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Number of the last change: it never decreases, unless an older copy of the log takes the place of this one. `None`
    /// while the log is being reopened.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        let applied = self.shared.store()?.gauges().applied.load(Ordering::Relaxed);
        (applied > 0).then_some(applied)
    }

    /// Why changes are refused at the moment, if they are.
    #[must_use]
    pub fn write_trouble(&self) -> Option<String> {
        self.shared.write_trouble()
    }

    /// Counters since the log was opened last.
    #[must_use]
    pub fn counters(&self) -> ReplicaCounters {
        let store = self.shared.store();
        store.map_or_else(ReplicaCounters::default, |store| {
            let gauges = store.gauges();
            ReplicaCounters {
                fsyncs: gauges.fsyncs.load(Ordering::Relaxed),
                entries: gauges.entries.load(Ordering::Relaxed),
                commands: gauges.commands.load(Ordering::Relaxed),
            }
        })
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}
