//! The recovery thread: resumes what an earlier process had, and what this one could not do yet. It restores
//! shares and resumes downloads; what cannot be done now is tried again.
//!
//! Always true: one thread does this, so that nothing is resumed twice. It sleeps until it is woken when no
//! work is left; else for a pause that doubles. A download whose destination has a file is resumed by a
//! thread of that filesystem, since comparing that file may take hours. A filesystem that does not answer
//! holds up only its own shares and downloads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::lock::lock;
use engine::storage::filesystem_threads::{FilesystemId, FilesystemThreads, NoAnswer};
use tracker::api::GroupFile;

use super::disk::records::DownloadRecord;
use super::downloads::{Downloads, occupied_filesystem};
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
    /// Threads that resume downloads whose destinations have a file.
    comparers: FilesystemThreads,
    /// Downloads that such threads resume now or next.
    compared: ComparedDownloads,
}

impl NodeRecovery {
    /// A recovery that has not started.
    pub(super) fn new(downloads: Arc<Downloads>) -> NodeRecovery {
        NodeRecovery {
            downloads,
            is_started: AtomicBool::new(false),
            file_calls: FilesystemThreads::new("destination", 1),
            comparers: FilesystemThreads::new("comparing", 1),
            compared: ComparedDownloads::default(),
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
        let mut vacant = Vec::new();
        let mut pending = PendingWork::Nothing;
        for record in self.downloads.resumable(user) {
            let (place, examined) = (FilesystemId::of_directory(&record.destination), record.clone());
            match self.file_calls.call(place, move || occupied_filesystem(&examined)) {
                Ok(Some(filesystem)) => {
                    self.start_comparing(user, filesystem, record);
                    pending = PendingWork::Retry;
                }
                Ok(None) => vacant.push(record),
                Err(NoAnswer) => {
                    self.downloads.note_no_answer(&record);
                    pending = PendingWork::Retry;
                }
            }
        }
        pending.max(resume_each(&self.downloads, user, &vacant))
    }

    /// Has a download resumed by a thread of its filesystem, unless one does. A later round starts it again if need be.
    fn start_comparing(&self, user: &str, filesystem: FilesystemId, record: DownloadRecord) {
        let Some(compared) = self.compared.insert(&record.key) else { return };
        let (downloads, user) = (Arc::clone(&self.downloads), user.to_owned());
        let compare = move || {
            let pending = resume_each(&downloads, &user, &[record]);
            drop(compared);
            // If the download is left, its pause comes first.
            if pending == PendingWork::Nothing {
                downloads.shares.core.recovery_wakeup.set();
            }
        };
        if let Err(error) = self.comparers.submit(filesystem, compare) {
            tracing::warn!("a file at a destination is compared later: {error}");
        }
    }
}

/// Downloads whose destinations are compared now or next.
#[derive(Clone, Default)]
struct ComparedDownloads(Arc<Mutex<BTreeSet<GroupFile>>>);

impl ComparedDownloads {
    /// Adds a download until the returned value is dropped; `None` if it is there.
    fn insert(&self, key: &GroupFile) -> Option<ComparedDownload> {
        let is_new = lock(&self.0).insert(key.clone());
        is_new.then(|| ComparedDownload { all: self.clone(), key: key.clone() })
    }
}

/// One of the [`ComparedDownloads`], also when its thread panics or its work is dropped.
struct ComparedDownload {
    all: ComparedDownloads,
    key: GroupFile,
}

impl Drop for ComparedDownload {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.key);
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
