//! A file that is read: mapped once, watched for changes, served by windows, hashed by borrowed bytes.
//!
//! Invariants:
//! * Once changed stays changed: neither [`Source::check`] nor [`Source::with_bytes`] ever succeeds again.
//! * Bytes are borrowed in one function, [`Source::with_bytes`], and what was made of them is thrown away when the file
//!   changed meanwhile.
//! * A source over a partial file is watched by its open file alone: it is written while it is read, so its time means
//!   nothing, and only verified ranges of it are asked for.

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
use super::fingerprint::Fingerprint;
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
    /// `None` for the empty file.
    mapping: Option<Arc<Mapping>>,
    detection: ChangeDetection,
    change: OnceLock<SourceChange>,
    next_check_ms: AtomicU64,
}

/// By what a change is noticed.
#[derive(Debug)]
enum ChangeDetection {
    /// A whole file: by everything that can be seen from outside.
    Whole(Fingerprint),
    /// A partial file: by being shorter than its writer left it, in bytes.
    Partial(Arc<AtomicU64>),
}

impl Source {
    /// Opens and maps a regular file. The path may lead over links; it is kept absolute.
    ///
    /// # Errors
    /// [`StorageError`]: it is missing, not permitted, not a regular file, too long, or cannot be mapped.
    pub fn open(path: &Path) -> Result<Source, StorageError> {
        // Only an empty path has no absolute form.
        let path = std::path::absolute(path)
            .map_err(|_| to_storage_error(StorageOperation::Open, path)(StorageErrorKind::Missing))?;
        // Opening a fifo for reading would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(to_storage_error(StorageOperation::Open, &path))?;
        Source::from_file(file.into(), path)
    }

    /// Maps a file that is open already, and known under `path`, which is absolute.
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

    /// Maps `length` bytes of a file that is still being written; `least` is how long its writer says that it is, in
    /// bytes.
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

    /// Where it was found, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it looked like when it was opened; `None` for a partial file.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self.detection {
            ChangeDetection::Whole(fingerprint) => Some(fingerprint),
            ChangeDetection::Partial(_) => None,
        }
    }

    /// A run of bytes to lend to the kernel. Nothing is read.
    ///
    /// # Panics
    /// When the range, in bytes, is empty or not in the file: callers check what comes from outside by the geometry.
    #[must_use]
    pub fn window(&self, range: Range<u64>) -> MappedWindow {
        let mapping = self.mapping.as_ref().expect("an empty file has no ranges");
        MappedWindow::new(Arc::clone(mapping), to_usize_range(&range))
    }

    /// Says that the file will be read from start to end, so that the kernel reads ahead.
    pub fn advise_sequential(&self) {
        // Advice that is not taken costs speed only.
        let _ = self.mapping.as_ref().map(|mapping| mapping.advise_sequential());
    }

    /// Whether the file still is what it was: looked up at most every [`SOURCE_CHECK_MS`], remembered in between.
    /// `now_ms` is any clock that does not go back.
    ///
    /// # Errors
    /// [`SourceChangedError`], once and for ever.
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

    /// As [`Source::check`], and looked up now.
    ///
    /// # Errors
    /// [`SourceChangedError`], once and for ever.
    pub fn check_now(&self) -> Result<(), SourceChangedError> {
        self.check_remembered()?;
        self.record_change(self.detect_change())
    }

    /// Notes that the kernel could not read the file: a send of one of its windows gave EFAULT.
    pub fn mark_unreadable(&self) -> SourceChangedError {
        let how = *self.change.get_or_init(|| SourceChange::Truncated);
        SourceChangedError { path: self.path.clone(), change: how }
    }

    /// Lends bytes to `read`, and gives its result if the file was what it was before and after.
    ///
    /// `read` takes bytes as numbers, and only that (it hashes or copies): somebody may be writing them meanwhile.
    ///
    /// # Errors
    /// [`SourceChangedError`]; the result is thrown away.
    ///
    /// # Panics
    /// When the range, in bytes, is empty or not in the file.
    #[allow(unsafe_code, reason = "the one borrow of mapped bytes, argued at its block")]
    pub fn with_bytes<R>(
        &self,
        range: Range<u64>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, SourceChangedError> {
        let mapping = self.mapping.as_ref().expect("an empty file has no ranges");
        self.check_now()?;
        // SAFETY: `borrow` asks its caller for two things. The bytes are read as numbers: what is passed to this
        // function hashes or copies, and which memory that touches depends on no byte's value, so a byte that changes
        // gives a wrong digest or copy and nothing worse; a `read` that parsed text would break this. And the result
        // is thrown away when the file changed: the check below asks the guard's flag and the fingerprint before it
        // is returned.
        let bytes = unsafe { mapping.borrow(to_usize_range(&range)) };
        let result = read(bytes);
        self.check_now().map(|()| result)
    }

    fn check_remembered(&self) -> Result<(), SourceChangedError> {
        let lost = self.mapping.as_ref().is_some_and(|mapping| mapping.has_faulted());
        self.record_change(lost.then_some(SourceChange::Truncated))
    }

    /// Compares the file with what it was, by system calls.
    fn detect_change(&self) -> Option<SourceChange> {
        let Ok(now) = Fingerprint::of(&self.file) else { return Some(SourceChange::Unreadable) };
        match &self.detection {
            ChangeDetection::Partial(least) => {
                (now.length < least.load(Ordering::Acquire)).then_some(SourceChange::Truncated)
            }
            ChangeDetection::Whole(then) => {
                then.difference_to(&now).or_else(|| match Fingerprint::at(&self.path) {
                    Ok(named) => then.difference_to(&named),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(SourceChange::Removed),
                    Err(_) => Some(SourceChange::Unreadable),
                })
            }
        }
    }

    /// Remembers a change, and says whether there ever was one.
    fn record_change(&self, change: Option<SourceChange>) -> Result<(), SourceChangedError> {
        if let Some(change) = change {
            // Whoever was first has named the cause.
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

/// What a thing is that is no regular file, in words.
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
