//! Brings back what an earlier process had, or what this one could not do yet: shares are served and told to the trackers,
//! downloads go on; what cannot go on now is tried again.
//!
//! Invariants: one thread a node does this, so nothing is brought back twice; a lost tracker is tried after a pause that
//! doubles, a missing file or directory every few seconds; with nothing left to do the thread sleeps until the bell rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::core::Core;
use super::downloads::Downloads;
use super::outlook::Left;
use super::restore;
use crate::exit::{Exit, Fault};
use crate::limits;

/// What is to be brought back.
#[derive(Debug, Default)]
pub(super) struct Comeback {
    started: AtomicBool,
    downloads_too: AtomicBool,
}

impl Comeback {
    /// Begins with it, or goes on: shares, and `downloads` too where this node stays.
    ///
    /// # Errors
    /// A fault when the system gives no thread.
    pub(super) fn begin(
        self: &Arc<Self>,
        core: &Arc<Core>,
        all: &Arc<Downloads>,
        downloads: bool,
    ) -> Result<(), Fault> {
        self.downloads_too.fetch_or(downloads, Ordering::SeqCst);
        core.bell.ring();
        if self.started.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let (comeback, core, all) = (Arc::clone(self), Arc::clone(core), Arc::clone(all));
        std::thread::Builder::new()
            .name("comeback".into())
            .spawn(move || comeback.run(&core, &all))
            .map(drop)
            .map_err(|error| Fault::new(Exit::Other, format!("the system gives no thread: {error}")))
    }

    fn run(&self, core: &Arc<Core>, all: &Arc<Downloads>) {
        let first = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        let mut pause = first;
        while !core.ending.is_over() {
            let left = self.round(core, all);
            let wait = match left {
                Left::Nothing => None,
                Left::Something => Some(Duration::from_millis(limits::LOOK_AGAIN_MS)),
                Left::Trackers => Some(pause),
            };
            let rang = core.bell.wait(wait);
            pause = if rang || left != Left::Trackers {
                first
            } else {
                (pause * 2).min(Duration::from_millis(limits::RECONNECT_MAX_MS))
            };
        }
    }

    fn round(&self, core: &Arc<Core>, all: &Downloads) -> Left {
        let Some(user) = core.trackers.user() else { return Left::Nothing };
        let shares = restore::shares(core, &user);
        let downloads = match self.downloads_too.load(Ordering::SeqCst) {
            true => all.revive(core, &user),
            false => Left::Nothing,
        };
        shares.max(downloads)
    }
}
