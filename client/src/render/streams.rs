//! The process's two output streams: data to one, everything else to the other.

use std::io::{self, ErrorKind, Write};

/// Writes data.
///
/// # Errors
/// What the system says; a reader that has gone away (`| head`) is no reason to fail: what it wanted, it has.
pub(super) fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes for people.
pub(super) fn write_stderr(text: &str) {
    // There is nowhere to say that stderr is gone.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
