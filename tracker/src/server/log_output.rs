//! Standard error as the place of log lines.
//!
//! Writing a line never fails and never waits: a full disk, a pipe whose reader has gone or reads nothing, or a stopped
//! terminal costs log lines, not the program. Lost lines are counted, and the count is written before the next line.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// Bytes that a pipe takes at once when it takes any (`PIPE_BUF` on Linux).
const PIPE_BLOCK_BYTES: usize = 4_096;

/// Writes log lines to standard error.
#[derive(Debug, Default)]
pub(super) struct LogOutput {
    /// Lines that could not be written since the last one that could.
    lost: u64,
}

impl LogOutput {
    pub(super) fn write_line(&mut self, line: &[u8]) {
        self.write_line_by(line, |bytes| write_without_waiting(io::stderr(), bytes));
    }

    /// Writes a line by `write`, which returns `false` for what it cannot write.
    fn write_line_by(&mut self, line: &[u8], mut write: impl FnMut(&[u8]) -> bool) {
        let is_told = self.lost == 0 || {
            let note = format!("{} log lines could not be written\n", self.lost);
            write(note.as_bytes())
        };
        if is_told {
            self.lost = 0;
        }
        if !is_told || !write(line) {
            self.lost += 1;
        }
    }
}

/// Writes all of these bytes, unless that fails or would wait.
fn write_without_waiting(mut file: impl AsFd + Write, bytes: &[u8]) -> bool {
    bytes.chunks(PIPE_BLOCK_BYTES).all(|block| is_writable(&file) && file.write_all(block).is_ok())
}

/// Whether a write would not wait. The kernel cannot say so of regular files and some devices, which never make one wait.
fn is_writable(file: &impl AsFd) -> bool {
    let asked = || {
        let mut poll = Poll::new()?;
        let file = file.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&file), Token(0), Interest::WRITABLE)?;
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::ZERO))?;
        Ok(!events.is_empty())
    };
    asked().unwrap_or_else(|error: io::Error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn lost_lines_are_counted_before_the_next_one() {
        let (mut output, mut written) = (LogOutput::default(), Vec::new());
        for is_full in [true, true, false, false] {
            output.write_line_by(b"line\n", |bytes| {
                if !is_full {
                    written.extend_from_slice(bytes);
                }
                !is_full
            });
        }
        assert_eq!(String::from_utf8(written).unwrap(), "2 log lines could not be written\nline\nline\n");
    }

    #[test]
    fn a_pipe_that_is_not_read_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let line = [b'x'; 10_000];
        assert!((0..1_000).any(|_| !write_without_waiting(&writer, &line)), "it is full at last");
        let mut some = vec![0; 1 << 20];
        assert!(reader.read(&mut some).unwrap() > 0);
        assert!(write_without_waiting(&writer, b"again\n"));
        drop(reader);
        assert!(!write_without_waiting(&writer, b"gone\n"));
    }

    #[test]
    fn files_are_written_and_a_full_disk_is_no_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(!write_without_waiting(full, b"line\n"));
        assert!(write_without_waiting(tempfile::tempfile().unwrap(), b"line\n"));
    }
}
