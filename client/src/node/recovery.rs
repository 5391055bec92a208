//! The recovery thread: resumes what an earlier process had, and what this one could not do yet. It restores
//! shares and resumes downloads; what cannot be done now is tried again.
//!
//! Always true: one thread does this, so that nothing is resumed twice. It sleeps until it is woken when no
//! work is left; else for a pause that doubles. A download whose destination has a file is resumed by a
//! second thread, since comparing that file may take hours. A filesystem that does not answer holds up only
//! its own shares and downloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::storage::filesystem_threads::{FilesystemId, FilesystemThreads, NoAnswer};

use super::disk::records::DownloadRecord;
use super::downloads::{Downloads, is_destination_occupied};
use super::retry_policy::PendingWork;
use super::shares::restore_shares;
use crate::exit::ClientFault;
use crate::limits;

/// The recovery of one node.
pub(super) struct NodeRecovery {
    downloads: Arc<Downloads>,
    is_started: AtomicBool,
    /// Threads that look at destinations, whose filesystems may never answer.
    file_calls: FilesystemThreads,
    /// Whether the thread that compares runs.
    is_comparing: Arc<AtomicBool>,
}

impl NodeRecovery {
    /// A recovery that has not started.
    pub(super) fn new(downloads: Arc<Downloads>) -> NodeRecovery {
        NodeRecovery {
            downloads,
            is_started: AtomicBool::new(false),
            file_calls: FilesystemThreads::new("destination", 1),
            is_comparing: Arc::default(),
        }
    }

    /// Starts the thread, or wakes it. Downloads are resumed too once `includes_downloads` was given: the
    /// node does not end with its command.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(self: &Arc<Self>, includes_downloads: bool) -> Result<(), ClientFault> {
        if includes_downloads {
            self.downloads.begin_resuming();
        }
        self.downloads.shares.core.recovery_wakeup.set();
        if self.is_started.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let recovery = Arc::clone(self);
        std::thread::Builder::new().name("recovery".into()).spawn(move || recovery.run()).map(drop).map_err(
            |error| {
                // The next call tries again.
                self.is_started.store(false, Ordering::SeqCst);
                ClientFault::no_thread(&error)
            },
        )
    }

    fn run(&self) {
        let core = &self.downloads.shares.core;
        let mut pauses = 0;
        let mut before = PendingWork::Nothing;
        while !core.shutdown.is_set() {
            let pending = self.run_round();
            if pending != before {
                (before, pauses) = (pending, 0);
            }
            pauses = if core.recovery_wakeup.wait(retry_pause(pending, pauses)) { 0 } else { pauses + 1 };
        }
    }

    fn run_round(&self) -> PendingWork {
        let shares = &self.downloads.shares;
        let Some(user) = shares.core.trackers.user() else { return PendingWork::Nothing };
        let pending = restore_shares(shares, &user);
        match self.downloads.resumes_recorded() {
            true => pending.max(self.resume_downloads(&user)),
            false => pending,
        }
    }

    fn resume_downloads(&self, user: &str) -> PendingWork {
        let (mut long, mut short) = (Vec::new(), Vec::new());
        let mut pending = PendingWork::Nothing;
        for record in self.downloads.resumable(user) {
            let (place, examined) = (FilesystemId::of_directory(&record.destination), record.clone());
            match self.file_calls.call(place, move || is_destination_occupied(&examined)) {
                Ok(true) => long.push(record),
                Ok(false) => short.push(record),
                Err(NoAnswer) => {
                    self.downloads.note_no_answer(&record);
                    pending = PendingWork::Retry;
                }
            }
        }
        let pending = pending.max(resume_each(&self.downloads, user, &short));
        if long.is_empty() { pending } else { pending.max(self.start_comparing(user, long)) }
    }

    /// Starts the second thread, unless it runs: then a later round starts it again.
    fn start_comparing(&self, user: &str, records: Vec<DownloadRecord>) -> PendingWork {
        if self.is_comparing.swap(true, Ordering::SeqCst) {
            return PendingWork::Retry;
        }
        let guard = CompareThreadGuard(Arc::clone(&self.is_comparing));
        let (downloads, user) = (Arc::clone(&self.downloads), user.to_owned());
        let compare = move || {
            let pending = resume_each(&downloads, &user, &records);
            drop(guard);
            // Downloads that came up meanwhile are next. If one of these is left, its pause comes first.
            if pending == PendingWork::Nothing {
                downloads.shares.core.recovery_wakeup.set();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("comparing".into()).spawn(compare) {
            tracing::warn!("files at destinations are compared later: the system gives no thread: {error}");
        }
        PendingWork::Retry
    }
}

/// Resets the flag of the second thread when that ends, also by a panic.
struct CompareThreadGuard(Arc<AtomicBool>);

impl Drop for CompareThreadGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Resumes downloads one after the other, as long as their user is logged in.
fn resume_each(downloads: &Downloads, user: &str, records: &[DownloadRecord]) -> PendingWork {
    let core = &downloads.shares.core;
    let mut pending = PendingWork::Nothing;
    for record in records {
        if core.shutdown.is_set() || core.trackers.user().as_deref() != Some(user) {
            break;
        }
        pending = pending.max(downloads.resume(user, &record.key));
        if pending == PendingWork::Trackers {
            // The others would ask the same trackers.
            break;
        }
    }
    pending
}

/// How long to wait after a round, by what it left and how often that was waited for. `None`: until the
/// thread is woken.
fn retry_pause(pending: PendingWork, pauses: u32) -> Option<Duration> {
    let (first_ms, max_ms) = match pending {
        PendingWork::Nothing => return None,
        PendingWork::Retry => (limits::RECHECK_FIRST_MS, limits::RECHECK_MAX_MS),
        PendingWork::Trackers => (limits::RECONNECT_FIRST_MS, limits::RECONNECT_MAX_MS),
    };
    Some(Duration::from_millis(first_ms.saturating_mul(2_u64.saturating_pow(pauses)).min(max_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        assert_eq!(retry_pause(PendingWork::Nothing, 3), None);
        for (pending, first_ms, max_ms) in [
            (PendingWork::Retry, limits::RECHECK_FIRST_MS, limits::RECHECK_MAX_MS),
            (PendingWork::Trackers, limits::RECONNECT_FIRST_MS, limits::RECONNECT_MAX_MS),
        ] {
            let pause_ms = |pauses| retry_pause(pending, pauses).map(|pause| pause.as_millis());
            assert_eq!(pause_ms(0), Some(first_ms.into()));
            assert_eq!(pause_ms(1), Some((2 * first_ms).into()));
            assert_eq!(pause_ms(u32::MAX), Some(max_ms.into()));
        }
    }
}
