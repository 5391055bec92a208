//! Cleans up when a signal ends the harness in the middle of a run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::descendants;
use crate::clock;
use crate::limits::END_MS;

/// Shells report a program that was ended by signal n with this exit code plus n.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Whether a signal has arrived.
static IS_SIGNALLED: AtomicBool = AtomicBool::new(false);

/// After a signal, waits for the cleaning thread, which ends the harness; otherwise returns at once.
pub(crate) fn wait_for_signal_exit() {
    while IS_SIGNALLED.load(Ordering::Acquire) {
        std::thread::park();
    }
}

/// Installs handlers for SIGHUP, SIGINT and SIGTERM. They kill every descendant, remove `place` (unless it is empty),
/// and end the harness.
pub(crate) fn clean_up_on_signal(place: PathBuf) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        IS_SIGNALLED.store(true, Ordering::Release);
        // After the renaming no process creates files under the old path.
        let aside = place.with_extension("ending");
        let _ = std::fs::rename(&place, &aside);
        let _ = clock::wait_until(Duration::from_millis(END_MS), || {
            // Again in each round: a process may have been started meanwhile.
            descendants::signal_descendants(std::process::id(), Signal::KILL);
            // A process that was just killed may have been creating a file.
            std::fs::remove_dir_all(&aside).is_ok() || !aside.exists()
        });
        std::process::exit(SIGNAL_EXIT_BASE + signal);
    })?;
    Ok(())
}
