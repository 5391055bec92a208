//! Writes to stdout and stderr.

use std::io::{self, ErrorKind, Write};

/// Writes data to stdout. A reader that went away (`| head`) is not an error.
///
/// # Errors
/// Those of the stream.
pub(super) fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes text to stderr.
pub(super) fn write_stderr(text: &str) {
    // There is no other place to report a failure to write to stderr.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
