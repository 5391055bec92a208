//! A file that is read: mapped once, or read where that is refused; watched for changes, served by windows,
//! hashed by borrowed bytes.
//!
//! Invariants:
//! * A change is permanent: afterwards neither [`Source::check`] nor [`Source::with_bytes`] ever succeeds.
//! * A change of the file's attributes alone is no change here; who hashes the file asks [`Source::has_new_attributes`].
//! * Bytes are borrowed in one function, [`Source::with_bytes`], which discards the result if the file
//!   changed meanwhile.
//! * A source over a partial file is watched by its open descriptor only: the file is written while it is
//!   read, so its modification time means nothing, and only verified ranges of it are read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, Mode, OFlags};

use super::error::{
    SourceChange, SourceChangedError, StorageError, StorageErrorKind, StorageOperation, to_storage_error,
};
use super::file_bytes::{FileBytes, read_range};
use super::fingerprint::{Fingerprint, FingerprintMatch};
use super::limits::{READ_WINDOW_BYTES, SOURCE_CHECK_MS};
use crate::mem::window::{MappedWindow, SendPart};
use crate::proto::geometry::Geometry;

#[cfg(test)]
pub(super) mod tests;

/// An open file. Share it by `Arc`; every method takes `&self`, from any thread.
#[derive(Debug)]
pub struct Source {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
    bytes: FileBytes,
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
    /// Opens a regular file. The path may contain links; it is kept in absolute form.
    ///
    /// # Errors
    /// [`StorageError`]: it is missing, not permitted, not a regular file or too long.
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

    /// Takes over an open file; `path` is its absolute path.
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

    /// Of `length` bytes of a file that is still being written. `least` is the length that its writer
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
        let file = Arc::new(file);
        let bytes = FileBytes::open(&file, length, &path);
        Ok(Source {
            file,
            path,
            length,
            bytes,
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
    pub fn window(&self, range: Range<u64>) -> SourceWindow {
        self.assert_inside(&range);
        match &self.bytes {
            FileBytes::Mapped(mapping) => {
                SourceWindow::Mapped(MappedWindow::new(Arc::clone(mapping), to_usize_range(&range)))
            }
            FileBytes::Read(reader) => SourceWindow::Unread { file: Arc::clone(reader.file()), range },
        }
    }

    /// Most bytes to send by one window: each unread one takes as much memory.
    #[must_use]
    pub fn max_window_bytes(&self) -> u64 {
        match &self.bytes {
            FileBytes::Mapped(_) => u64::MAX,
            FileBytes::Read(_) => READ_WINDOW_BYTES,
        }
    }

    /// Whether the file is read and not mapped, so that borrowed bytes take memory.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.bytes, FileBytes::Read(_))
    }

    /// Advises the kernel to read ahead, since the file will be read from start to end.
    pub fn advise_sequential(&self) {
        // A failure costs only speed.
        match &self.bytes {
            FileBytes::Mapped(mapping) => drop(mapping.advise_sequential()),
            FileBytes::Read(_) => drop(rustix::fs::fadvise(&self.file, 0, None, Advice::Sequential)),
        }
    }

    /// Brings a range into memory that [`Source::with_bytes`] will borrow next. Blocks.
    ///
    /// # Panics
    /// When the range, in bytes, is empty or not within the file.
    pub fn read_ahead(&self, range: Range<u64>) {
        self.assert_inside(&range);
        match &self.bytes {
            // An unreadable range shows when it is borrowed.
            FileBytes::Mapped(mapping) => drop(mapping.populate(to_usize_range(&range))),
            FileBytes::Read(reader) => reader.read_ahead(range),
        }
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

    /// Records that the file could not be read, since loading or sending one of its windows failed with this error.
    pub fn mark_unreadable(&self, error: &io::Error) -> SourceChangedError {
        // EFAULT: a mapping has no such page any more.
        let is_shorter =
            error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(libc::EFAULT);
        let change = if is_shorter { SourceChange::Truncated } else { SourceChange::Unreadable };
        let change = *self.change.get_or_init(|| change);
        SourceChangedError { path: self.path.clone(), change }
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
        self.assert_inside(&range);
        self.check_now()?;
        let mapping = match &self.bytes {
            FileBytes::Mapped(mapping) => mapping,
            FileBytes::Read(reader) => {
                let result = reader.with_range(range, read).map_err(|error| self.mark_unreadable(&error))?;
                return self.check_now().map(|()| result);
            }
        };
        // SAFETY: `borrow` has two conditions. First, the bytes are only read as numbers: callers of this
        // function hash or copy them, and which memory that touches depends on no byte's value, so a byte
        // that changes meanwhile gives a wrong digest or copy and nothing worse. A `read` that parsed text
        // would break this. Second, the result is discarded when the file changed: the check below reads the
        // guard's flag and the fingerprint before the result is returned.
        let bytes = unsafe { mapping.borrow(to_usize_range(&range)) };
        let result = read(bytes);
        self.check_now().map(|()| result)
    }

    fn assert_inside(&self, range: &Range<u64>) {
        assert!(
            range.start < range.end && range.end <= self.length,
            "{range:?} of a source of {} bytes",
            self.length
        );
    }

    /// As [`Source::check`], by what is remembered: no system call.
    pub(crate) fn check_remembered(&self) -> Result<(), SourceChangedError> {
        self.record_change(self.bytes.has_failed().then_some(SourceChange::Truncated))
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

/// A range of a source, to be sent.
#[derive(Clone, Debug)]
pub enum SourceWindow {
    /// In a mapping, from which the kernel takes the bytes.
    Mapped(MappedWindow),
    /// To be read before it is sent.
    Unread {
        /// The source's file.
        file: Arc<File>,
        /// The range, in bytes.
        range: Range<u64>,
    },
}

impl SourceWindow {
    /// Whether sending it will probably not wait for a disk.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        match self {
            SourceWindow::Mapped(window) => window.is_resident(),
            SourceWindow::Unread { .. } => false,
        }
    }

    /// Brings it into memory, to be sent. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// EFAULT or `UnexpectedEof` where the file is shorter now; any error of the system.
    pub fn load(self) -> io::Result<SendPart> {
        match self {
            SourceWindow::Mapped(window) => window.populate().map(|()| window.into()),
            SourceWindow::Unread { file, range } => {
                let mut bytes = Vec::new();
                read_range(&file, range, &mut bytes).map(|()| bytes.into())
            }
        }
    }

    /// As [`SourceWindow::load`], but leaves it to the kernel to bring mapped bytes into memory.
    ///
    /// # Errors
    /// As for [`SourceWindow::load`].
    pub fn into_part(self) -> io::Result<SendPart> {
        match self {
            SourceWindow::Mapped(window) => Ok(window.into()),
            SourceWindow::Unread { .. } => self.load(),
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
