//! A file that is read: mapped once, watched for changes, served by windows, hashed by borrowed bytes.
//!
//! Invariants:
//! * A change is permanent: afterwards neither [`Source::check`] nor [`Source::with_bytes`] ever succeeds.
//! * A change of the file's attributes alone is no change here; who hashes the file asks [`Source::has_new_attributes`].
//! * Bytes are borrowed in one function, [`Source::with_bytes`], which discards the result if the file
//!   changed meanwhile.
//! * A source over a partial file is watched by its open descriptor only: the file is written while it is
//!   read, so its modification time means nothing, and only verified ranges of it are read.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};

use super::error::{
    SourceChange, SourceChangedError, StorageError, StorageErrorKind, StorageOperation, to_storage_error,
};
use super::fingerprint::{Fingerprint, FingerprintMatch};
use super::limits::SOURCE_CHECK_MS;
use crate::mem::mapping::Mapping;
use crate::mem::window::MappedWindow;
use crate::proto::geometry::Geometry;

#[cfg(test)]
mod tests;

/// An open, mapped file. Share it by `Arc`; every method takes `&self`, from any thread.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    length: u64,
    /// `None` for an empty file.
    mapping: Option<Arc<Mapping>>,
    detection: ChangeDetection,
    change: OnceLock<SourceChange>,
    next_check_ms: AtomicU64,
}

/// How a change of the file is detected.
#[derive(Debug)]
enum ChangeDetection {
    /// A complete file: by its fingerprint.
    Whole(Fingerprint),
    /// A partial file: by becoming shorter than this many bytes, which its writer sets.
    Partial(Arc<AtomicU64>),
}

impl Source {
    /// Opens and maps a regular file. The path may contain links; it is kept in absolute form.
    ///
    /// # Errors
    /// [`StorageError`]: it is missing, not permitted, not a regular file, too long, or cannot be mapped.
    pub fn open(path: &Path) -> Result<Source, StorageError> {
        // Only an empty path has no absolute form.
        let path = std::path::absolute(path)
            .map_err(|_| to_storage_error(StorageOperation::Open, path)(StorageErrorKind::Missing))?;
        // NONBLOCK, since opening a fifo for reading would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(to_storage_error(StorageOperation::Open, &path))?;
        Source::from_file(file.into(), path)
    }

    /// Maps an open file; `path` is its absolute path.
    ///
    /// # Errors
    /// As for [`Source::open`].
    pub fn from_file(file: File, path: PathBuf) -> Result<Source, StorageError> {
        let metadata = file.metadata().map_err(to_storage_error(StorageOperation::Open, &path))?;
        if let Some(what) = non_regular_kind(metadata.file_type()) {
            return Err(to_storage_error(StorageOperation::Open, &path)(StorageErrorKind::NotAFile(what)));
        }
        let fingerprint = Fingerprint::from(&metadata);
        Source::new(file, path, fingerprint.length, ChangeDetection::Whole(fingerprint))
    }

    /// Maps `length` bytes of a file that is still being written. `least` is the length that its writer
    /// guarantees, in bytes.
    pub(super) fn over_partial(
        file: File,
        path: PathBuf,
        length: u64,
        least: Arc<AtomicU64>,
    ) -> Result<Source, StorageError> {
        Source::new(file, path, length, ChangeDetection::Partial(least))
    }

    fn new(file: File, path: PathBuf, length: u64, watch: ChangeDetection) -> Result<Source, StorageError> {
        Geometry::new(length).map_err(to_storage_error(StorageOperation::Open, &path))?;
        let mapping = (length > 0)
            .then(|| Mapping::new(&file, length).map(Arc::new))
            .transpose()
            .map_err(to_storage_error(StorageOperation::Map, &path))?;
        Ok(Source {
            file,
            path,
            length,
            mapping,
            detection: watch,
            change: OnceLock::new(),
            next_check_ms: AtomicU64::new(0),
        })
    }

    /// Length in bytes when it was opened.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The absolute path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its fingerprint when it was opened; `None` for a partial file.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self.detection {
            ChangeDetection::Whole(fingerprint) => Some(fingerprint),
            ChangeDetection::Partial(_) => None,
        }
    }

    /// A range of bytes to lend to the kernel. Reads nothing.
    ///
    /// # Panics
    /// When the range, in bytes, is empty or not within the file; callers check ranges from outside by the
    /// geometry.
    #[must_use]
    pub fn window(&self, range: Range<u64>) -> MappedWindow {
        let mapping = self.mapping.as_ref().expect("an empty file has no ranges");
        MappedWindow::new(Arc::clone(mapping), to_usize_range(&range))
    }

    /// Advises the kernel to read ahead, since the file will be read from start to end.
    pub fn advise_sequential(&self) {
        // A failure costs only speed.
        let _ = self.mapping.as_ref().map(|mapping| mapping.advise_sequential());
    }

    /// Whether the file is unchanged. The file is examined at most every [`SOURCE_CHECK_MS`]; in between the
    /// last result counts. `now_ms` is any clock that does not go back.
    ///
    /// # Errors
    /// [`SourceChangedError`], from the first change on.
    pub fn check(&self, now_ms: u64) -> Result<(), SourceChangedError> {
        let due_ms = self.next_check_ms.load(Ordering::Relaxed);
        let next_ms = now_ms.saturating_add(SOURCE_CHECK_MS);
        let mine = now_ms >= due_ms
            && self
                .next_check_ms
                .compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine { self.check_now() } else { self.check_remembered() }
    }

    /// As [`Source::check`], but examines the file now.
    ///
    /// # Errors
    /// [`SourceChangedError`], from the first change on.
    pub fn check_now(&self) -> Result<(), SourceChangedError> {
        self.check_remembered()?;
        self.record_change(self.detect_change())
    }

    /// Whether the file's mode, owner or links changed since it was opened. Then its content may have been written
    /// too, without a trace: see [`FingerprintMatch::AttributesOnly`]. Always false for a partial file.
    ///
    /// # Errors
    /// [`SourceChangedError`], from the first change on.
    pub fn has_new_attributes(&self) -> Result<bool, SourceChangedError> {
        self.check_now()?;
        let now = Fingerprint::of(&self.file).ok();
        let differs = |then: Fingerprint| now.is_none_or(|now| then.compare(&now) != FingerprintMatch::Same);
        Ok(self.fingerprint().is_some_and(differs))
    }

    /// Records that the kernel could not read the file, since sending one of its windows failed with EFAULT.
    pub fn mark_unreadable(&self) -> SourceChangedError {
        let how = *self.change.get_or_init(|| SourceChange::Truncated);
        SourceChangedError { path: self.path.clone(), change: how }
    }

    /// Calls `read` with a range of the file, and returns its result if the file was unchanged before and
    /// after.
    ///
    /// `read` may only treat the bytes as numbers (hash or copy them), since another program may write them
    /// meanwhile.
    ///
    /// # Errors
    /// [`SourceChangedError`]; the result is discarded.
    ///
    /// # Panics
    /// When the range, in bytes, is empty or not within the file.
    #[allow(unsafe_code, reason = "the only borrow of mapped bytes; see its safety comment")]
    pub fn with_bytes<R>(
        &self,
        range: Range<u64>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, SourceChangedError> {
        let mapping = self.mapping.as_ref().expect("an empty file has no ranges");
        self.check_now()?;
        // SAFETY: `borrow` has two conditions. First, the bytes are only read as numbers: callers of this
        // function hash or copy them, and which memory that touches depends on no byte's value, so a byte
        // that changes meanwhile gives a wrong digest or copy and nothing worse. A `read` that parsed text
        // would break this. Second, the result is discarded when the file changed: the check below reads the
        // guard's flag and the fingerprint before the result is returned.
        let bytes = unsafe { mapping.borrow(to_usize_range(&range)) };
        let result = read(bytes);
        self.check_now().map(|()| result)
    }

    /// As [`Source::check`], by what is remembered: no system call.
    pub(crate) fn check_remembered(&self) -> Result<(), SourceChangedError> {
        let lost = self.mapping.as_ref().is_some_and(|mapping| mapping.has_faulted());
        self.record_change(lost.then_some(SourceChange::Truncated))
    }

    /// Compares the file with its state at opening, by system calls.
    fn detect_change(&self) -> Option<SourceChange> {
        let Ok(now) = Fingerprint::of(&self.file) else { return Some(SourceChange::Unreadable) };
        match &self.detection {
            ChangeDetection::Partial(least) => {
                (now.length < least.load(Ordering::Acquire)).then_some(SourceChange::Truncated)
            }
            ChangeDetection::Whole(then) => {
                then.compare(&now).change().or_else(|| match Fingerprint::at(&self.path) {
                    Ok(named) => then.compare(&named).change(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(SourceChange::Removed),
                    Err(_) => Some(SourceChange::Unreadable),
                })
            }
        }
    }

    /// Stores a change, unless there is one already, and fails if there ever was one.
    fn record_change(&self, change: Option<SourceChange>) -> Result<(), SourceChangedError> {
        if let Some(change) = change {
            // An earlier change stays.
            let _ = self.change.set(change);
        }
        match self.change.get() {
            None => Ok(()),
            Some(&how) => Err(SourceChangedError { path: self.path.clone(), change: how }),
        }
    }
}

fn to_usize_range(range: &Range<u64>) -> Range<usize> {
    let position = |at: u64| usize::try_from(at).expect("a mapped file fits the address space");
    position(range.start)..position(range.end)
}

/// Name of a file type that is not a regular file, such as "a directory"; `None` for a regular file.
pub(super) fn non_regular_kind(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else if kind.is_fifo() {
        Some("a fifo")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}
