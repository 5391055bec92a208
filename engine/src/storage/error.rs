//! What can go wrong with a file: what was tried, on which path, why, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::proto::geometry::{FileTooLong, MAX_FILE_BYTES};

/// A failed operation on a file.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.description(), kind.advice())]
pub struct StorageError {
    /// What was tried.
    pub operation: StorageOperation,
    /// On what.
    pub path: PathBuf,
    /// Why it failed; its text is part of this one's, so it is no separate source.
    pub kind: StorageErrorKind,
}

/// What was tried; shown as the verb of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageOperation {
    /// Opening a file or directory.
    Open,
    /// Mapping it for reading.
    Map,
    /// Reading it, to hash or to serve.
    Read,
    /// Making the partial file.
    Create,
    /// Taking its lock.
    Lock,
    /// Reserving its space.
    Reserve,
    /// Writing a piece.
    Write,
    /// Setting its length.
    Resize,
    /// Flushing it to disk.
    Sync,
    /// Giving it its final name.
    Rename,
    /// Removing it.
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
    /// What happened to what, without what to do.
    #[must_use]
    pub fn description(&self) -> String {
        format!("cannot {} {}: {}", self.operation, self.path.display(), self.kind)
    }

    /// Hashes that were kept at `place` cannot be read any more, so that nothing is to be judged by them.
    pub(crate) fn hashes_lost(place: String) -> StorageError {
        let error = io::Error::other("the hashes that were kept there cannot be read any more");
        StorageError {
            operation: StorageOperation::Read,
            path: place.into(),
            kind: StorageErrorKind::Io(error),
        }
    }
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageErrorKind {
    /// There is none.
    #[error("it does not exist")]
    Missing,
    /// The system does not let this user.
    #[error("permission denied")]
    NotPermitted,
    /// Something else has the name.
    #[error("it is {0}, not a regular file")]
    NotAFile(&'static str),
    /// A directory was wanted.
    #[error("it is not an existing directory")]
    NotADirectory,
    /// The name does not fit the filesystem.
    #[error("the name is too long for the filesystem")]
    NameTooLong,
    /// More bytes than the system can share.
    #[error("{0} bytes are more than the {MAX_FILE_BYTES} that a file may have")]
    TooLong(u64),
    /// The disk or the user's quota is full.
    #[error("{needed} bytes are needed and {free} are free")]
    NoSpace {
        /// Bytes yet to be written.
        needed: u64,
        /// Bytes that the filesystem still has for this user; a quota may be tighter.
        free: u64,
    },
    /// The filesystem is mounted read-only.
    #[error("the filesystem is read-only")]
    ReadOnly,
    /// The final name is taken.
    #[error("a file of that name exists")]
    Exists,
    /// Another download works on the same partial file.
    #[error("another download is writing it")]
    Locked,
    /// The partial file is not the one that was opened.
    #[error("it was removed or replaced meanwhile")]
    Replaced,
    /// The partial file belongs to somebody else.
    #[error("it belongs to another user, who could change what was verified")]
    WrongOwner,
    /// An earlier flush failed, and the system may have dropped what it could not write.
    #[error("an earlier flush failed, so bytes may be lost")]
    FlushFailed,
    /// A source is not what it was.
    #[error("{0}")]
    Changed(SourceChange),
    /// Anything else the system says.
    #[error("{0}")]
    Io(io::Error),
}

impl StorageErrorKind {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            StorageErrorKind::Missing => "check the path",
            StorageErrorKind::NotPermitted => "change its mode, or choose another path",
            StorageErrorKind::NotAFile(_) => "choose another path",
            StorageErrorKind::NotADirectory => "make it, or choose another path",
            StorageErrorKind::NameTooLong => "choose a shorter one as destination",
            StorageErrorKind::TooLong(_) => "choose another file",
            StorageErrorKind::NoSpace { .. } => "make room, or choose another disk",
            StorageErrorKind::ReadOnly => "choose another destination",
            StorageErrorKind::Exists => "use `--overwrite`, or choose another destination",
            StorageErrorKind::Locked => "wait for that one, or choose another destination",
            StorageErrorKind::Replaced => "start the download again",
            StorageErrorKind::WrongOwner => "choose another destination",
            StorageErrorKind::FlushFailed => "remove it, check the disk and start the download again",
            StorageErrorKind::Changed(_) => "upload it again",
            StorageErrorKind::Io(_) => "check the disk and try again",
        }
    }
}

/// How a source has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceChange {
    /// Its size or time of modification differs.
    #[error("it was changed after it was hashed")]
    Modified,
    /// It is shorter, or its disk failed to give a page.
    #[error("it lost bytes while it was read")]
    Truncated,
    /// Its name is gone.
    #[error("it was removed or renamed")]
    Removed,
    /// Its name belongs to another file.
    #[error("another file has taken its name")]
    Replaced,
    /// It cannot be looked at any more.
    #[error("it cannot be checked any more")]
    Unreadable,
}

/// A source is not what it was when it was opened, and never will be again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {change}; upload it again", path.display())]
pub struct SourceChangedError {
    /// Which file.
    pub path: PathBuf,
    /// How it shows.
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

/// Makes the closure that turns a system's error into ours: `.map_err(failed(Operation::Open, path))`.
pub(super) fn to_storage_error<E: Into<StorageErrorKind>>(
    operation: StorageOperation,
    path: &Path,
) -> impl FnOnce(E) -> StorageError + '_ {
    move |error| StorageError { operation, path: path.to_owned(), kind: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_to_what_and_what_next() {
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
