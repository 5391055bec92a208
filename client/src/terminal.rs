//! The terminal while a line is read on it: raw, so that each key is heard; and as it was, however the process ends.
//!
//! Invariant: whoever ends the process from another thread than the one that reads a line does it by [`exit_with_terminal_restored`]. A process in
//! the background never touches the terminal, which is another's by then.

use std::io::Write;
use std::sync::Mutex;

use engine::lock::lock;
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::exit::ExitCause;

/// The terminal's modes before the line that is being read.
static SAVED_MODES: Mutex<Option<Termios>> = Mutex::new(None);

/// Has the terminal no longer mark what is pasted, as it is told to while a line is read.
const BRACKETED_PASTE_OFF: &str = "\x1b[?2004l";

/// A line is being read until this is dropped.
pub(crate) struct LineReadGuard(());

impl LineReadGuard {
    /// Remembers how the terminal is, if there is one.
    pub(crate) fn begin() -> LineReadGuard {
        *lock(&SAVED_MODES) = tcgetattr(std::io::stdin()).ok();
        LineReadGuard(())
    }
}

impl Drop for LineReadGuard {
    fn drop(&mut self) {
        *lock(&SAVED_MODES) = None;
    }
}

/// Whether a line is being read on the terminal.
pub(crate) fn is_reading_line() -> bool {
    lock(&SAVED_MODES).is_some()
}

/// Gives the terminal back as it was before the line that is being read, on a line of its own; nothing if none is.
pub(crate) fn restore_terminal() {
    // Taken out: this is done once.
    let Some(before) = lock(&SAVED_MODES).take() else { return };
    let stdin = std::io::stdin();
    if tcgetpgrp(&stdin).ok() != Some(getpgrp()) {
        return;
    }
    // The process is about to end, and there is nobody to tell that it ends badly.
    let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
    let text = format!("{BRACKETED_PASTE_OFF}\n");
    let _ = match std::fs::OpenOptions::new().write(true).open("/dev/tty") {
        Ok(mut terminal) => terminal.write_all(text.as_bytes()),
        Err(_) => std::io::stdout().write_all(text.as_bytes()),
    };
}

/// Ends the process, with the terminal as it was.
pub(crate) fn exit_with_terminal_restored(exit: ExitCause) -> ! {
    restore_terminal();
    std::process::exit(exit.code().into())
}
