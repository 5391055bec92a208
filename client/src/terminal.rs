//! The terminal while a line is read on it: raw, so that each key is heard; and as it was, however the process ends.
//!
//! Invariant: whoever ends the process from another thread than the one that reads a line does it by [`leave`]. A process in
//! the background never touches the terminal, which is another's by then.

use std::io::Write;
use std::sync::Mutex;

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::exit::Exit;
use crate::lock::lock;

/// The terminal's modes before the line that is being read.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Has the terminal no longer mark what is pasted, as it is told to while a line is read.
const PASTE_UNMARKED: &str = "\x1b[?2004l";

/// A line is being read until this is dropped.
pub(crate) struct Reading(());

impl Reading {
    /// Remembers how the terminal is, if there is one.
    pub(crate) fn begin() -> Reading {
        *lock(&BEFORE) = tcgetattr(std::io::stdin()).ok();
        Reading(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        *lock(&BEFORE) = None;
    }
}

/// Whether a line is being read on the terminal.
pub(crate) fn is_read() -> bool {
    lock(&BEFORE).is_some()
}

/// Gives the terminal back as it was before the line that is being read, on a line of its own; nothing if none is.
pub(crate) fn restore() {
    // Taken out: this is done once.
    let Some(before) = lock(&BEFORE).take() else { return };
    let stdin = std::io::stdin();
    if tcgetpgrp(&stdin).ok() != Some(getpgrp()) {
        return;
    }
    // The process is about to end, and there is nobody to tell that it ends badly.
    let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
    let text = format!("{PASTE_UNMARKED}\n");
    let _ = match std::fs::OpenOptions::new().write(true).open("/dev/tty") {
        Ok(mut terminal) => terminal.write_all(text.as_bytes()),
        Err(_) => std::io::stdout().write_all(text.as_bytes()),
    };
}

/// Ends the process, with the terminal as it was.
pub(crate) fn leave(exit: Exit) -> ! {
    restore();
    std::process::exit(exit.code().into())
}
