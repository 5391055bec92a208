//! This tracker's replica: one thread on which the consensus library runs, and the handle that everybody else has.
//!
//! Invariants: a command is answered only after its entry is durable and applied; commands that wait at the same time share one
//! entry, and so one sync. When the disk has no room, commands are refused before anything is written, and reading goes on.
//! When a write fails nevertheless, the log is opened anew until it takes writes again; meanwhile it is read through an
//! overlay.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::state::command::Command;

use super::fault::Fault;
use super::home::Home;
use super::kinds::Answer;
use super::life;
use super::limits::{WAITING_MAX_BYTES, WAITING_MAX_COMMANDS};
use super::proposal::{BATCH_MAX_BYTES, Proposal, Unproposed, length};
use super::shared::{Options, Shared};
use super::tables::View;

/// What the log did since it was opened last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Syncs of the log's file.
    pub fsyncs: u64,
    /// Entries appended.
    pub entries: u64,
    /// Commands applied.
    pub commands: u64,
}

/// The handle. Dropping it stops the replica.
#[derive(Debug)]
pub struct Replica {
    proposals: mpsc::Sender<Proposal>,
    share: Arc<Semaphore>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Replica {
    /// Opens the log and runs it; returns when every entry in it is applied, so that reads are right.
    ///
    /// # Errors
    /// [`Fault`] says why the log cannot be used.
    pub fn start(home: impl Home, options: Options) -> Result<Replica, Fault> {
        let (proposals, inbox) = mpsc::channel(WAITING_MAX_COMMANDS);
        let (stop, stopped) = oneshot::channel();
        let (ready, begun) = std_mpsc::sync_channel(1);
        let shared = Arc::new(Shared::default());
        let name = home.name();
        let run = {
            let shared = Arc::clone(&shared);
            move || life::run(Box::new(home), &options, inbox, stopped, &shared, ready)
        };
        let thread = std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn(run)
            .map_err(|source| Fault::io(name.as_ref(), "start a thread", source))?;
        let stopped = || Fault::Stopped { path: name.into(), reason: "its thread ended".to_owned() };
        begun.recv().unwrap_or_else(|_| Err(stopped()))?;
        let share = Arc::new(Semaphore::new(WAITING_MAX_BYTES));
        Ok(Replica { proposals, share, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Proposes a command. `reply` is called once, from the replica's thread, when the command is durable and applied or when it
    /// has failed; it must not block.
    ///
    /// # Errors
    /// [`Unproposed::TooLarge`], [`Unproposed::Busy`] or [`Unproposed::Unavailable`]; then `reply` is not called.
    pub fn propose(
        &self,
        command: Command,
        reply: impl FnOnce(Result<Answer, Unproposed>) + Send + 'static,
    ) -> Result<(), Unproposed> {
        let bytes = length(&command);
        if bytes > BATCH_MAX_BYTES {
            return Err(Unproposed::TooLarge { bytes });
        }
        let share = u32::try_from(bytes).expect("an entry's limit is far below 4 GiB");
        let share = Arc::clone(&self.share).try_acquire_many_owned(share).map_err(|_| Unproposed::Busy)?;
        let proposal = Proposal { command, bytes, reply: Box::new(reply), _share: share };
        self.proposals.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unproposed::Busy,
            mpsc::error::TrySendError::Closed(_) => Unproposed::Unavailable("its log has stopped".to_owned()),
        })
    }

    /// The tables as they are now. Whoever was answered sees what was answered.
    ///
    /// # Errors
    /// [`Fault`] while the log is being opened anew.
    pub fn view(&self) -> Result<View, Fault> {
        let store = self.shared.store();
        match store {
            Some(store) => View::of(&store),
            None => {
                Err(Fault::Stopped { path: "the log".into(), reason: "it is being opened anew".to_owned() })
            }
        }
    }

    /// A number that changes whenever the log was opened anew: views from before read nothing any more.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// A number that changes whenever another tracker leads, or the same one again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch()
    }

    /// What the log did since it was opened last.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let store = self.shared.store();
        store.map_or_else(Counters::default, |store| {
            let gauges = store.gauges();
            Counters {
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
            // A panic there was reported when it happened; there is nothing to add while dropping.
            let _ = thread.join();
        }
    }
}
