//! Errors of file operations: what was tried, on which path, why it failed and what the user can do.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::proto::geometry::{FileTooLong, MAX_FILE_BYTES};

/// A failed operation on a file.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.description(), kind.advice())]
pub struct StorageError {
    /// The operation that failed.
    pub operation: StorageOperation,
    /// The file or directory it was on.
    pub path: PathBuf,
    /// Why it failed. Not a `source()`, since the message already includes its text.
    pub kind: StorageErrorKind,
}

/// An operation on a file; `Display` shows it as the verb of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageOperation {
    /// Opening a file or directory.
    Open,
    /// Mapping a file for reading.
    Map,
    /// Reading a file, to hash or to serve it.
    Read,
    /// Creating the partial file.
    Create,
    /// Taking the partial file's lock.
    Lock,
    /// Reserving disk space.
    Reserve,
    /// Writing a piece.
    Write,
    /// Setting the file's length.
    Resize,
    /// Flushing to the disk.
    Sync,
    /// Giving the file its final name.
    Rename,
    /// Removing a file.
    Remove,
}

impl std::fmt::Display for StorageOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StorageOperation::Open => "open",
            StorageOperation::Map => "map",
            StorageOperation::Read => "read",
            StorageOperation::Create => "create",
            StorageOperation::Lock => "lock",
            StorageOperation::Reserve => "reserve space for",
            StorageOperation::Write => "write to",
            StorageOperation::Resize => "set the length of",
            StorageOperation::Sync => "flush to disk",
            StorageOperation::Rename => "finish",
            StorageOperation::Remove => "remove",
        })
    }
}

impl StorageError {
    /// The message without advice.
    #[must_use]
    pub fn description(&self) -> String {
        format!("cannot {} {}: {}", self.operation, self.path.display(), self.kind)
    }

    /// SHA-1 values stored at `place` became unreadable, so no piece can be verified by them.
    pub(crate) fn hashes_lost(place: String) -> StorageError {
        let error = io::Error::other("the hashes stored there can no longer be read");
        StorageError {
            operation: StorageOperation::Read,
            path: place.into(),
            kind: StorageErrorKind::Io(error),
        }
    }
}

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageErrorKind {
    /// The file does not exist.
    #[error("it does not exist")]
    Missing,
    /// The system denies it to this user.
    #[error("permission denied")]
    NotPermitted,
    /// The name is taken by something else than a regular file, such as "a directory".
    #[error("it is {0}, not a regular file")]
    NotAFile(&'static str),
    /// The path is not an existing directory.
    #[error("it is not an existing directory")]
    NotADirectory,
    /// The name is too long for the filesystem.
    #[error("the name is too long for the filesystem")]
    NameTooLong,
    /// The file has this many bytes, more than Shoal can share.
    #[error("{0} bytes are more than the {MAX_FILE_BYTES} that a file may have")]
    TooLong(u64),
    /// The disk or the user's quota is full.
    #[error("{needed} bytes are needed and {free} are free")]
    NoSpace {
        /// Bytes yet to be written.
        needed: u64,
        /// Bytes that the filesystem has free for this user; a quota may be tighter.
        free: u64,
    },
    /// The filesystem is mounted read-only.
    #[error("the filesystem is read-only")]
    ReadOnly,
    /// The final name is taken.
    #[error("a file of that name exists")]
    Exists,
    /// Another download holds the partial file's lock.
    #[error("another download is writing it")]
    Locked,
    /// The name now belongs to another file than the one that was opened, or to none.
    #[error("it was removed or replaced meanwhile")]
    Replaced,
    /// The partial file belongs to another user.
    #[error("it belongs to another user, who could change what was verified")]
    WrongOwner,
    /// An earlier flush failed, and the system may have dropped unwritten data.
    #[error("an earlier flush failed, so bytes may be lost")]
    FlushFailed,
    /// The source changed since it was opened.
    #[error("{0}")]
    Changed(SourceChange),
    /// The filesystem has not answered in time.
    #[error("its filesystem does not answer")]
    NoAnswer,
    /// Any other error of the system.
    #[error("{0}")]
    Io(io::Error),
}

impl StorageErrorKind {
    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            StorageErrorKind::Missing => "check the path",
            StorageErrorKind::NotPermitted => "change its mode, or choose another path",
            StorageErrorKind::NotAFile(_) => "choose another path",
            StorageErrorKind::NotADirectory => "create it, or choose another path",
            StorageErrorKind::NameTooLong => "choose a shorter name",
            StorageErrorKind::TooLong(_) => "choose a shorter file",
            StorageErrorKind::NoSpace { .. } => "make room, or choose another disk",
            StorageErrorKind::ReadOnly => "choose another destination",
            StorageErrorKind::Exists => "use `--overwrite`, or choose another destination",
            StorageErrorKind::Locked => "wait until it ends, or choose another destination",
            StorageErrorKind::Replaced => "start the download again",
            StorageErrorKind::WrongOwner => "choose another destination",
            StorageErrorKind::FlushFailed => "remove it, check the disk and start the download again",
            StorageErrorKind::Changed(_) => "upload it again",
            StorageErrorKind::NoAnswer => "check that disk or server, or unmount it",
            StorageErrorKind::Io(_) => "check the disk and try again",
        }
    }
}

/// How a source has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceChange {
    /// Its size or modification time differs.
    #[error("it was changed after it was hashed")]
    Modified,
    /// It is shorter, or its disk failed to return a page.
    #[error("it lost bytes while it was read")]
    Truncated,
    /// Its name is gone.
    #[error("it was removed or renamed")]
    Removed,
    /// Its name belongs to another file.
    #[error("another file has taken its name")]
    Replaced,
    /// It can no longer be examined.
    #[error("it cannot be checked any more")]
    Unreadable,
}

/// A source has changed since it was opened. This never reverts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {change}; upload it again", path.display())]
pub struct SourceChangedError {
    /// The source's path.
    pub path: PathBuf,
    /// The change that was noticed first.
    pub change: SourceChange,
}

impl From<SourceChangedError> for StorageError {
    fn from(changed: SourceChangedError) -> StorageError {
        StorageError {
            operation: StorageOperation::Read,
            path: changed.path,
            kind: StorageErrorKind::Changed(changed.change),
        }
    }
}

impl From<FileTooLong> for StorageErrorKind {
    fn from(refused: FileTooLong) -> StorageErrorKind {
        StorageErrorKind::TooLong(refused.length)
    }
}

impl From<Errno> for StorageErrorKind {
    fn from(errno: Errno) -> StorageErrorKind {
        match errno {
            Errno::NOENT => StorageErrorKind::Missing,
            Errno::ACCESS | Errno::PERM => StorageErrorKind::NotPermitted,
            Errno::LOOP => StorageErrorKind::NotAFile("a symbolic link"),
            Errno::ISDIR => StorageErrorKind::NotAFile("a directory"),
            Errno::NOTDIR => StorageErrorKind::NotADirectory,
            Errno::NAMETOOLONG => StorageErrorKind::NameTooLong,
            Errno::ROFS => StorageErrorKind::ReadOnly,
            Errno::EXIST => StorageErrorKind::Exists,
            other => StorageErrorKind::Io(other.into()),
        }
    }
}

impl From<io::Error> for StorageErrorKind {
    fn from(error: io::Error) -> StorageErrorKind {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => StorageErrorKind::Io(error),
        }
    }
}

/// Returns a closure that turns a system error into a [`StorageError`]:
/// `.map_err(to_storage_error(StorageOperation::Open, path))`.
pub(super) fn to_storage_error<E: Into<StorageErrorKind>>(
    operation: StorageOperation,
    path: &Path,
) -> impl FnOnce(E) -> StorageError + '_ {
    move |error| StorageError { operation, path: path.to_owned(), kind: error.into() }
}

/// Turns a full disk or an exhausted quota into [`StorageErrorKind::NoSpace`] with numbers.
pub(super) fn add_space_details(
    kind: StorageErrorKind,
    place: BorrowedFd<'_>,
    needed: u64,
) -> StorageErrorKind {
    let StorageErrorKind::Io(error) = &kind else { return kind };
    if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return kind;
    }
    let free = rustix::fs::fstatvfs(place).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    StorageErrorKind::NoSpace { needed, free }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_operation_path_cause_and_advice() {
        let error = StorageError {
            operation: StorageOperation::Reserve,
            path: "/data/disk.img".into(),
            kind: StorageErrorKind::NoSpace { needed: 10, free: 3 },
        };
        assert_eq!(
            error.to_string(),
            "cannot reserve space for /data/disk.img: 10 bytes are needed and 3 are free; make room, or choose \
             another disk"
        );
        let changed = SourceChangedError { path: "a".into(), change: SourceChange::Removed };
        assert_eq!(
            StorageError::from(changed).to_string(),
            "cannot read a: it was removed or renamed; upload it again"
        );
    }
}
