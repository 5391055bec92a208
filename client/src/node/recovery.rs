//! Brings back what an earlier process had, or what this one could not do yet: shares are served and told to the trackers,
//! downloads go on; what cannot go on now is tried again.
//!
//! Invariants: one thread a node does this, and leaves nothing but comparing to another ([`downloads`](crate::node::revival)), so
//! nothing is brought back twice; a lost tracker is tried after a pause that
//! doubles, so is a missing file or directory; with nothing left to do the thread sleeps until the bell rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::exit::ClientFault;
use crate::limits;
use crate::node::core::NodeCore;
use crate::node::downloads::DownloadTable;
use crate::node::retry_policy::PendingWork;
use crate::node::revival::DownloadRecovery;
use crate::node::shares;

/// What is to be brought back.
#[derive(Debug, Default)]
pub(super) struct NodeRecovery {
    is_started: AtomicBool,
    includes_downloads: AtomicBool,
    downloads: DownloadRecovery,
}

impl NodeRecovery {
    /// Begins with it, or goes on: shares, and `downloads` too where this node stays.
    ///
    /// # Errors
    /// A fault when the system gives no thread.
    pub(super) fn start(
        self: &Arc<Self>,
        core: &Arc<NodeCore>,
        all: &Arc<DownloadTable>,
        downloads: bool,
    ) -> Result<(), ClientFault> {
        self.includes_downloads.fetch_or(downloads, Ordering::SeqCst);
        core.recovery_wakeup.set();
        if self.is_started.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let (comeback, core, all) = (Arc::clone(self), Arc::clone(core), Arc::clone(all));
        std::thread::Builder::new()
            .name("comeback".into())
            .spawn(move || comeback.run(&core, &all))
            .map(drop)
            .map_err(|error| {
                // Whoever asks next tries again.
                self.is_started.store(false, Ordering::SeqCst);
                ClientFault::no_thread(&error)
            })
    }

    fn run(&self, core: &Arc<NodeCore>, all: &Arc<DownloadTable>) {
        let mut waited = 0;
        let mut before = PendingWork::Nothing;
        while !core.shutdown.is_set() {
            let left = self.run_round(core, all);
            if left != before {
                (before, waited) = (left, 0);
            }
            waited = if core.recovery_wakeup.wait(retry_pause(left, waited)) { 0 } else { waited + 1 };
        }
    }

    fn run_round(&self, core: &Arc<NodeCore>, all: &Arc<DownloadTable>) -> PendingWork {
        let Some(user) = core.trackers.user() else { return PendingWork::Nothing };
        let shares = shares::restore_shares(core, &user);
        let downloads = match self.includes_downloads.load(Ordering::SeqCst) {
            true => self.downloads.resume_all(core, all, &user),
            false => PendingWork::Nothing,
        };
        shares.max(downloads)
    }
}

/// How long to wait after a round that left this to do, and after so many pauses for the same; `None`: until the bell rings.
fn retry_pause(left: PendingWork, waited: u32) -> Option<Duration> {
    let (first, most) = match left {
        PendingWork::Nothing => return None,
        PendingWork::Retry => (limits::RECHECK_FIRST_MS, limits::RECHECK_MAX_MS),
        PendingWork::Trackers => (limits::RECONNECT_FIRST_MS, limits::RECONNECT_MAX_MS),
    };
    Some(Duration::from_millis(first.saturating_mul(2_u64.saturating_pow(waited)).min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        assert_eq!(retry_pause(PendingWork::Nothing, 3), None);
        for (left, first, most) in [
            (PendingWork::Retry, limits::RECHECK_FIRST_MS, limits::RECHECK_MAX_MS),
            (PendingWork::Trackers, limits::RECONNECT_FIRST_MS, limits::RECONNECT_MAX_MS),
        ] {
            let of = |waited| retry_pause(left, waited).map(|pause| pause.as_millis());
            assert_eq!(of(0), Some(first.into()));
            assert_eq!(of(1), Some((2 * first).into()));
            assert_eq!(of(u32::MAX), Some(most.into()));
        }
    }
}
