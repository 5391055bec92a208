//! What happens when the harness is told to end in the middle of a run: nothing is left behind.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::usage;

/// What a shell adds to a signal's number to tell that it ended a program.
const BY_SIGNAL: i32 = 128;

/// From now on a signal to end kills every descendant, removes `place`, and ends the harness.
pub(crate) fn clean_up_on_signal(place: PathBuf) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        let own = std::process::id();
        for pid in usage::tree(own).into_iter().filter(|pid| *pid != own) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = std::fs::remove_dir_all(&place);
        std::process::exit(BY_SIGNAL + signal);
    })?;
    Ok(())
}
