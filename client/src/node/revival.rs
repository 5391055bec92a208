//! Which downloads on record go on at once, and which wait until what is at their destination has been compared.
//!
//! Comparing may take hours, and nothing else that comes back waits for it: it is done on a thread of its own.
//!
//! Invariants: at most one such thread a node; whoever lets a download go on holds its claim, so that none goes on twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::storage::destination::{Destination, DestinationEntry};

use crate::node::core::NodeCore;
use crate::node::disk::records::DownloadRecord;
use crate::node::downloads::DownloadTable;
use crate::node::retry_policy::PendingWork;

/// The downloads that come back.
#[derive(Debug, Default)]
pub(super) struct DownloadRecovery {
    /// Whether the thread that compares is at work.
    is_comparing: Arc<AtomicBool>,
}

/// That the thread is at work, until this is dropped, by a panic too.
struct CompareThreadGuard(Arc<AtomicBool>);

impl Drop for CompareThreadGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl DownloadRecovery {
    /// Lets go on what `user` has on record here.
    pub(super) fn resume_all(
        &self,
        core: &Arc<NodeCore>,
        all: &Arc<DownloadTable>,
        user: &str,
    ) -> PendingWork {
        let (long, short): (Vec<DownloadRecord>, Vec<DownloadRecord>) =
            all.resumable(user).into_iter().partition(is_destination_occupied);
        let left = resume_each(core, all, user, &short);
        if long.is_empty() { left } else { left.max(self.start_comparing(core, all, user, long)) }
    }

    /// Has the thread compare, unless it does already: then a later round looks again.
    fn start_comparing(
        &self,
        core: &Arc<NodeCore>,
        all: &Arc<DownloadTable>,
        user: &str,
        long: Vec<DownloadRecord>,
    ) -> PendingWork {
        if self.is_comparing.swap(true, Ordering::SeqCst) {
            return PendingWork::Retry;
        }
        let at_work = CompareThreadGuard(Arc::clone(&self.is_comparing));
        let (core, all, user) = (Arc::clone(core), Arc::clone(all), user.to_owned());
        let compare = move || {
            let left = resume_each(&core, &all, &user, &long);
            drop(at_work);
            // What came to be compared meanwhile is next. Where something is left, a pause is due before it is tried again.
            if left == PendingWork::Nothing {
                core.recovery_wakeup.set();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("comparing".into()).spawn(compare) {
            tracing::warn!("what is at destinations is compared later: the system gives no thread: {error}");
        }
        PendingWork::Retry
    }
}

/// Lets these go on one after the other, as long as their user is here.
fn resume_each(
    core: &Arc<NodeCore>,
    all: &DownloadTable,
    user: &str,
    these: &[DownloadRecord],
) -> PendingWork {
    let mut left = PendingWork::Nothing;
    for wanted in these {
        if core.shutdown.is_set() || core.trackers.user().as_deref() != Some(user) {
            break;
        }
        left = left.max(all.resume(core, user, &wanted.key));
        if left == PendingWork::Trackers {
            // The others would ask the same ones.
            break;
        }
    }
    left
}

/// Whether a file is at the destination, which is hashed then.
fn is_destination_occupied(wanted: &DownloadRecord) -> bool {
    let existing =
        Destination::resolve(&wanted.destination, &wanted.key.name).and_then(|place| place.existing_entry());
    matches!(existing, Ok(DestinationEntry::File { .. }))
}
