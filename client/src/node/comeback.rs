//! Brings back what an earlier process had, or what this one could not do yet: shares are served and told to the trackers,
//! downloads go on; what cannot go on now is tried again.
//!
//! Invariants: one thread a node does this, and leaves nothing but comparing to another ([`revival`](super::revival)), so
//! nothing is brought back twice; a lost tracker is tried after a pause that
//! doubles, so is a missing file or directory; with nothing left to do the thread sleeps until the bell rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::core::Core;
use super::downloads::Downloads;
use super::outlook::Left;
use super::restore;
use super::revival::Revival;
use crate::exit::Fault;
use crate::limits;

/// What is to be brought back.
#[derive(Debug, Default)]
pub(super) struct Comeback {
    started: AtomicBool,
    downloads_too: AtomicBool,
    revival: Revival,
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
            .map_err(|error| {
                // Whoever asks next tries again.
                self.started.store(false, Ordering::SeqCst);
                Fault::no_thread(&error)
            })
    }

    fn run(&self, core: &Arc<Core>, all: &Arc<Downloads>) {
        let mut waited = 0;
        let mut before = Left::Nothing;
        while !core.ending.is_over() {
            let left = self.round(core, all);
            if left != before {
                (before, waited) = (left, 0);
            }
            waited = if core.bell.wait(pause(left, waited)) { 0 } else { waited + 1 };
        }
    }

    fn round(&self, core: &Arc<Core>, all: &Arc<Downloads>) -> Left {
        let Some(user) = core.trackers.user() else { return Left::Nothing };
        let shares = restore::shares(core, &user);
        let downloads = match self.downloads_too.load(Ordering::SeqCst) {
            true => self.revival.round(core, all, &user),
            false => Left::Nothing,
        };
        shares.max(downloads)
    }
}

/// How long to wait after a round that left this to do, and after so many pauses for the same; `None`: until the bell rings.
fn pause(left: Left, waited: u32) -> Option<Duration> {
    let (first, most) = match left {
        Left::Nothing => return None,
        Left::Something => (limits::LOOK_AGAIN_MS, limits::LOOK_AGAIN_MAX_MS),
        Left::Trackers => (limits::RECONNECT_FIRST_MS, limits::RECONNECT_MAX_MS),
    };
    Some(Duration::from_millis(first.saturating_mul(2_u64.saturating_pow(waited)).min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        assert_eq!(pause(Left::Nothing, 3), None);
        for (left, first, most) in [
            (Left::Something, limits::LOOK_AGAIN_MS, limits::LOOK_AGAIN_MAX_MS),
            (Left::Trackers, limits::RECONNECT_FIRST_MS, limits::RECONNECT_MAX_MS),
        ] {
            let of = |waited| pause(left, waited).map(|pause| pause.as_millis());
            assert_eq!(of(0), Some(first.into()));
            assert_eq!(of(1), Some((2 * first).into()));
            assert_eq!(of(u32::MAX), Some(most.into()));
        }
    }
}
