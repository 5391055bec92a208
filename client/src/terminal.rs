//! Terminal modes while a line is read: rustyline sets raw mode, and this module restores the saved modes at exit.
//!
//! A thread other than the reading one must end the process with [`exit_with_terminal_restored`]. A background process never
//! touches the terminal, since another job owns it.

use std::io::Write;
use std::sync::Mutex;

use engine::lock::lock;
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::exit::ExitCause;

/// Modes to restore; `None` while no line is read.
static SAVED_MODES: Mutex<Option<Termios>> = Mutex::new(None);

/// Turns bracketed paste off, which rustyline turns on while it reads.
const BRACKETED_PASTE_OFF: &str = "\x1b[?2004l";

/// A line is being read as long as this value lives.
pub(crate) struct LineReadGuard(());

impl LineReadGuard {
    /// Saves the terminal's modes, if stdin is one.
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

pub(crate) fn is_reading_line() -> bool {
    lock(&SAVED_MODES).is_some()
}

/// Restores the saved modes and begins a new line; does nothing if no line is being read.
pub(crate) fn restore_terminal() {
    // Taken, so that a second call does nothing.
    let Some(before) = lock(&SAVED_MODES).take() else { return };
    let stdin = std::io::stdin();
    if tcgetpgrp(&stdin).ok() != Some(getpgrp()) {
        return;
    }
    // The process is about to end: a failure here cannot be reported.
    let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
    let text = format!("{BRACKETED_PASTE_OFF}\n");
    let _ = match std::fs::OpenOptions::new().write(true).open("/dev/tty") {
        Ok(mut terminal) => terminal.write_all(text.as_bytes()),
        Err(_) => std::io::stdout().write_all(text.as_bytes()),
    };
}

/// Ends the process after restoring the terminal.
pub(crate) fn exit_with_terminal_restored(exit: ExitCause) -> ! {
    restore_terminal();
    std::process::exit(exit.code().into())
}
