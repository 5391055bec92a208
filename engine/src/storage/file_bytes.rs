//! The bytes of an open file: mapped, or read where the system refuses to map the file.
//!
//! Some filesystems cannot be mapped (FUSE with `direct_io`, 9p), and a process may have no room for a mapping
//! (`ulimit -v`, `vm.max_map_count`). Reading costs a copy of every byte and works everywhere.
//!
//! Always true: a read fills its whole buffer or fails, so a file that became shorter is noticed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};

use super::error::StorageErrorKind;
use crate::lock::lock;
use crate::mem::mapping::Mapping;

/// How the bytes of a file are reached.
#[derive(Debug)]
pub(super) enum FileBytes {
    Mapped(Arc<Mapping>),
    Read(Box<FileReader>),
}

impl FileBytes {
    /// The first `length` bytes of a file, mapped if the system allows it. `path` is for messages.
    pub(super) fn open(file: &Arc<File>, length: u64, path: &Path) -> FileBytes {
        if length > 0 {
            match Mapping::new(file, length) {
                Ok(mapping) => return FileBytes::Mapped(Arc::new(mapping)),
                Err(error) => report_unmapped(path, error),
            }
        }
        FileBytes::Read(Box::new(FileReader::new(Arc::clone(file))))
    }

    /// Copies the bytes from `at` on; zeros where they cannot be read, and then [`FileBytes::has_failed`].
    pub(super) fn copy(&self, at: usize, into: &mut [u8]) {
        match self {
            FileBytes::Mapped(mapping) => mapping.copy(at, into),
            FileBytes::Read(reader) => reader.copy(at as u64, into),
        }
    }

    /// Whether bytes were lost: the file became shorter, or its disk failed.
    pub(super) fn has_failed(&self) -> bool {
        match self {
            FileBytes::Mapped(mapping) => mapping.has_faulted(),
            FileBytes::Read(reader) => reader.has_failed.load(Ordering::Acquire),
        }
    }
}

/// Says once for each process that files are read: it is slower, and the limit may be raised.
fn report_unmapped(path: &Path, error: io::Error) {
    static REPORT: Once = Once::new();
    REPORT.call_once(|| {
        let why = StorageErrorKind::from(error);
        tracing::warn!(
            path = %path.display(), %why,
            "the system does not map this file into memory; such files are read instead, which is slower"
        );
    });
}

/// Reads ranges of a file. For a reader from start to end it holds the next range ready.
#[derive(Debug)]
pub(super) struct FileReader {
    file: Arc<File>,
    buffers: Mutex<ReadBuffers>,
    has_failed: AtomicBool,
}

/// At most two buffers: one is in use while the other is filled.
#[derive(Debug, Default)]
struct ReadBuffers {
    ahead: Option<(Range<u64>, Vec<u8>)>,
    spare: Vec<u8>,
}

impl FileReader {
    pub(super) fn new(file: Arc<File>) -> FileReader {
        FileReader { file, buffers: Mutex::default(), has_failed: AtomicBool::new(false) }
    }

    /// The file, to read from it on another thread.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Calls `use_bytes` with a range of the file, which may have been read before.
    pub(super) fn with_range<R>(
        &self,
        range: Range<u64>,
        use_bytes: impl FnOnce(&[u8]) -> R,
    ) -> io::Result<R> {
        let bytes = match self.take_read_ahead(&range) {
            Some(bytes) => bytes,
            None => self.read(range)?,
        };
        let result = use_bytes(&bytes);
        lock(&self.buffers).spare = bytes;
        Ok(result)
    }

    /// Reads a range that [`FileReader::with_range`] will ask for next. Blocks.
    pub(super) fn read_ahead(&self, range: Range<u64>) {
        // An unreadable range shows when it is asked for.
        if let Ok(bytes) = self.read(range.clone()) {
            lock(&self.buffers).ahead = Some((range, bytes));
        }
    }

    fn take_read_ahead(&self, range: &Range<u64>) -> Option<Vec<u8>> {
        let (ahead, bytes) = lock(&self.buffers).ahead.take()?;
        (ahead == *range).then_some(bytes)
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut lock(&self.buffers).spare);
        read_range(&self.file, range, &mut bytes).map(|()| bytes)
    }

    fn copy(&self, at: u64, into: &mut [u8]) {
        if self.file.read_exact_at(into, at).is_err() {
            self.has_failed.store(true, Ordering::Release);
            into.fill(0);
        }
    }
}

/// Replaces `bytes` by a range of a file. Blocks.
///
/// # Errors
/// `UnexpectedEof` when the file is shorter; any error of the system.
pub(super) fn read_range(file: &File, range: Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    bytes.resize(length, 0);
    file.read_exact_at(bytes, range.start)
}
