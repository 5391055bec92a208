//! State of a file: its length, and the times of its last write and of its last status change. Every write
//! to the file changes it.
//!
//! A program can set the time of the last write, but not that of the last status change. Both come from a
//! clock with ticks of a few milliseconds, and two writes in one tick look alike. So a state is stored only
//! when it has lasted for a tick (`settled_state`).

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::limits::FILE_TIME_TICK_MS;
use crate::proto::sealed::FieldReader;

/// Encoded length of a time: seconds, then nanoseconds.
const TIME_BYTES: usize = size_of::<i64>() + size_of::<u32>();

/// Encoded length: length, last write, last status change.
pub(super) const STATE_BYTES: usize = size_of::<u64>() + 2 * TIME_BYTES;

/// Length and times of a file at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    length: u64,
    /// Last write: seconds and nanoseconds since 1970.
    modified: (i64, u32),
    /// Last status change: seconds and nanoseconds since 1970.
    status_changed: (i64, u32),
}

impl FileState {
    pub(super) fn of(file: &File) -> io::Result<FileState> {
        let metadata = file.metadata()?;
        // The system gives less than 10^9.
        let nanoseconds = |count: i64| u32::try_from(count).unwrap_or(0);
        Ok(FileState {
            length: metadata.len(),
            modified: (metadata.mtime(), nanoseconds(metadata.mtime_nsec())),
            status_changed: (metadata.ctime(), nanoseconds(metadata.ctime_nsec())),
        })
    }

    /// This state after a rename, which changed the status alone; `renamed` is the state after it.
    pub(super) fn with_status_of(self, renamed: FileState) -> FileState {
        FileState { status_changed: renamed.status_changed, ..self }
    }

    /// The on-disk form.
    pub(super) fn to_bytes(self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        let (length, times) = bytes.split_at_mut(size_of::<u64>());
        length.copy_from_slice(&self.length.to_le_bytes());
        for ((seconds, nanoseconds), time) in
            [self.modified, self.status_changed].into_iter().zip(times.chunks_exact_mut(TIME_BYTES))
        {
            let (first, second) = time.split_at_mut(size_of::<i64>());
            first.copy_from_slice(&seconds.to_le_bytes());
            second.copy_from_slice(&nanoseconds.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`FileState::to_bytes`] wrote.
    pub(super) fn read_from(parts: &mut FieldReader<'_>) -> Option<FileState> {
        let length = parts.u64()?;
        let mut time = || Some((i64::from_le_bytes(parts.array()?), parts.u32()?));
        Some(FileState { length, modified: time()?, status_changed: time()? })
    }
}

/// The state that `current` returns, if every later write will change it: it has lasted for a tick. `None`
/// while the file is being written, and where the filesystem keeps whole seconds only. Blocks for the tick.
pub(super) fn settled_state(current: impl Fn() -> Option<FileState>) -> Option<FileState> {
    let state = current().filter(|state| state.status_changed.1 != 0)?;
    std::thread::park_timeout(Duration::from_millis(FILE_TIME_TICK_MS));
    (current() == Some(state)).then_some(state)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;

    const STATE: FileState =
        FileState { length: 9, modified: (1_000, 5), status_changed: (2_000, 600_000_000) };

    #[test]
    fn a_state_is_settled_when_it_lasts() {
        assert_eq!(settled_state(|| Some(STATE)), Some(STATE));
        let writes = Cell::new(0);
        let being_written = || {
            writes.set(writes.get() + 1);
            Some(FileState { length: writes.get(), ..STATE })
        };
        assert_eq!(settled_state(being_written), None);
        assert_eq!(settled_state(|| Some(FileState { status_changed: (2_000, 0), ..STATE })), None);
        assert_eq!(settled_state(|| None), None);
    }

    #[test]
    fn every_change_gives_another_state() {
        let file = tempfile::tempfile().unwrap();
        let settled = || settled_state(|| FileState::of(&file).ok());
        file.write_all_at(b"some bytes", 0).unwrap();
        let written = settled();
        if written.is_none() {
            eprintln!("skipped: the filesystem of temporary files keeps coarse times");
            return;
        }
        assert_eq!(settled(), written, "nothing was changed");
        // The same bytes again, and the time of the last write set back.
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"some bytes", 0).unwrap();
        file.set_modified(modified).unwrap();
        let rewritten = settled();
        assert_ne!(rewritten, written);
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        assert_ne!(settled(), rewritten);
    }

    #[test]
    fn the_on_disk_form_reads_back() {
        let bytes = STATE.to_bytes();
        assert_eq!(FileState::read_from(&mut FieldReader::of(&bytes)), Some(STATE));
        assert_eq!(FileState::read_from(&mut FieldReader::of(&bytes[1..])), None, "cut");
    }
}
