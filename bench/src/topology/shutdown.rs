//! What happens when the harness is told to end in the middle of a run: nothing is left behind.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::descendants;
use super::limits::END_MS;
use crate::clock;

/// What a shell adds to a signal's number to tell that it ended a program.
const SIGNAL_EXIT_BASE: i32 = 128;

/// A signal has come.
static IS_SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Never returns when a signal has come: whoever cleans up ends the harness when it has done so.
pub(crate) fn wait_for_signal_exit() {
    while IS_SIGNALLED.load(Ordering::Acquire) {
        std::thread::park();
    }
}

/// From now on a signal to end kills every descendant, removes `place` (nothing where that is empty), and ends the harness.
pub(crate) fn clean_up_on_signal(place: PathBuf) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        IS_SIGNALLED.store(true, Ordering::Release);
        // Under its old name nobody makes anything any more, the rest of the harness included.
        let aside = place.with_extension("ending");
        let _ = std::fs::rename(&place, &aside);
        let _ = clock::wait_until(Duration::from_millis(END_MS), || {
            // Once more each time: one may have been started while it was looked.
            descendants::signal_descendants(std::process::id(), Signal::KILL);
            // What was just killed may have been in the middle of making a file.
            std::fs::remove_dir_all(&aside).is_ok() || !aside.exists()
        });
        std::process::exit(SIGNAL_EXIT_BASE + signal);
    })?;
    Ok(())
}
