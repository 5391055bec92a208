//! The process's two output streams: data to one, everything else to the other.

use std::io::Write;

/// Writes data.
pub(super) fn to_stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A reader that has gone away (`| head`) is no reason to fail: what it wanted, it has.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes for people.
pub(super) fn to_stderr(text: &str) {
    // There is nowhere to say that stderr is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
