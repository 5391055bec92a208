//! Errors of file operations: what was tried, on which path, why it failed and what the user can do.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use rustix::process::{Resource, getrlimit};

use crate::proto::geometry::{FileTooLong, MAX_FILE_BYTES};
use crate::proto::units::format_size;

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
            kind: StorageErrorKind::DiskFailed(error),
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
    /// The disk is full.
    #[error("{}", describe_lack(*needed, *free))]
    NoSpace {
        /// Bytes yet to be written; those that are reserved already are not counted.
        needed: u64,
        /// Bytes that the filesystem has free for this user.
        free: u64,
    },
    /// The user's quota is full.
    #[error("{}", describe_quota(*needed))]
    QuotaFull {
        /// Bytes yet to be written; those that are reserved already are not counted.
        needed: u64,
    },
    /// The file is longer than this process may write, in bytes; `None`: than the filesystem allows.
    #[error("{}", describe_length_limit(*.0))]
    TooLongToWrite(Option<u64>),
    /// The process has as many files open as it may, if that is known.
    #[error("{}", describe_file_limit(*.0))]
    TooManyFiles(Option<u64>),
    /// All processes together have as many files open as the system allows.
    #[error("the system has as many files open as it allows (fs.file-max)")]
    TooManyFilesInSystem,
    /// The process gets no more memory, address space or mappings.
    #[error("the system gives no more memory, address space (`ulimit -v`) or mappings (vm.max_map_count)")]
    NoMemory,
    /// The process gets no more threads.
    #[error("the system gives no more threads (`ulimit -u`)")]
    NoThreads,
    /// The node has as much work as it accepts.
    #[error("{0}")]
    NodeBusy(String),
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
    #[error("it was deleted or replaced by another program")]
    Replaced,
    /// The open file has this path by now.
    #[error("another program has moved it to {}", .0.display())]
    Moved(PathBuf),
    /// The open directory has no path any more.
    #[error("its directory was deleted, or its filesystem was unmounted")]
    DirectoryLost,
    /// Another download is fetching a file to the same path, into this partial file.
    #[error("another download is fetching a file to it, into {}", .0.display())]
    Claimed(PathBuf),
    /// Another program wrote to the partial file, so what is in it has to be hashed again.
    #[error("another program has changed it")]
    ChangedOutside,
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
    /// The file server no longer knows the file.
    #[error("the file server does not know it any more (stale file handle)")]
    Stale,
    /// The filesystem has lost its server.
    #[error("its filesystem does not answer ({0})")]
    Disconnected(io::Error),
    /// The disk reports a fault.
    #[error("{0}")]
    DiskFailed(io::Error),
    /// Any other error of the system.
    #[error("{0}")]
    Io(io::Error),
}

impl StorageErrorKind {
    /// Whether the open file can no longer be reached by its name.
    #[must_use]
    pub fn is_lost_name(&self) -> bool {
        matches!(
            self,
            StorageErrorKind::Replaced | StorageErrorKind::Moved(_) | StorageErrorKind::DirectoryLost
        )
    }

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
            StorageErrorKind::QuotaFull { .. } => "remove files of this user there, or choose another disk",
            StorageErrorKind::TooLongToWrite(Some(_)) => "raise that limit, and start the node again",
            StorageErrorKind::TooLongToWrite(None) => "choose another filesystem",
            StorageErrorKind::TooManyFiles(_) => {
                "raise that limit (`ulimit -n 65536`), and start the node again"
            }
            StorageErrorKind::TooManyFilesInSystem => {
                "raise that limit, or end some programs; then try again"
            }
            StorageErrorKind::NoMemory => "raise that limit, or end some programs; then try again",
            StorageErrorKind::NoThreads => "raise that limit, or end some programs; then try again",
            StorageErrorKind::NodeBusy(_) => "wait for a download to end, then try again",
            StorageErrorKind::ReadOnly => "choose another destination",
            StorageErrorKind::Exists => "use `--overwrite`, or choose another destination",
            StorageErrorKind::Locked => "wait until it ends, or choose another destination",
            StorageErrorKind::Replaced => "give the same command again",
            StorageErrorKind::Moved(_) => "move it back, and give the same command again",
            StorageErrorKind::DirectoryLost => "give the command again with a directory that exists",
            StorageErrorKind::Claimed(_) => "wait until that ends, or choose another destination",
            StorageErrorKind::ChangedOutside => {
                "give the same command again; everything in it is checked first"
            }
            StorageErrorKind::WrongOwner => "choose another destination",
            StorageErrorKind::FlushFailed => "remove it, check the disk and start the download again",
            StorageErrorKind::Changed(_) => "upload it again",
            StorageErrorKind::NoAnswer => "check that disk or server, or unmount it",
            StorageErrorKind::Stale | StorageErrorKind::Disconnected(_) => {
                "mount the filesystem again, then try again"
            }
            StorageErrorKind::DiskFailed(_) => "check the disk and try again",
            StorageErrorKind::Io(_) => "try again",
        }
    }

    /// Whether the cause is in the system and not in the path: the same operation may succeed later.
    #[must_use]
    pub fn is_in_system(&self) -> bool {
        matches!(
            self,
            StorageErrorKind::NoSpace { .. }
                | StorageErrorKind::QuotaFull { .. }
                | StorageErrorKind::TooLongToWrite(_)
                | StorageErrorKind::TooManyFiles(_)
                | StorageErrorKind::TooManyFilesInSystem
                | StorageErrorKind::NoMemory
                | StorageErrorKind::NoThreads
                | StorageErrorKind::FlushFailed
                | StorageErrorKind::Stale
                | StorageErrorKind::NoAnswer
                | StorageErrorKind::Disconnected(_)
                | StorageErrorKind::DiskFailed(_)
                | StorageErrorKind::Io(_)
        )
    }
}

/// Words for a full disk. A file whose space is reserved needs no more, and may still find no room.
pub(crate) fn describe_lack(needed: u64, free: u64) -> String {
    if needed > free {
        format!("{} are needed and {} are free", format_size(needed), format_size(free))
    } else {
        "the disk is full".to_owned()
    }
}

/// Words for a full quota.
pub(crate) fn describe_quota(needed: u64) -> String {
    match needed {
        0 => "this user's disk quota is full".to_owned(),
        _ => format!("this user's disk quota has no room for the {} that are needed", format_size(needed)),
    }
}

fn describe_length_limit(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => {
            format!("this program may not write files of more than {} (`ulimit -f`)", format_size(limit))
        }
        None => "it is longer than a file on this filesystem may be".to_owned(),
    }
}

fn describe_file_limit(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!("this program may have only {limit} files open (`ulimit -n`)"),
        None => "this program may open no more files".to_owned(),
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
    /// It can no longer be examined or read.
    #[error("it cannot be read any more")]
    Unreadable,
}

/// A source has changed since it was opened. This never reverts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {change}", path.display())]
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
            Errno::NOSPC => StorageErrorKind::NoSpace { needed: 0, free: 0 },
            Errno::DQUOT => StorageErrorKind::QuotaFull { needed: 0 },
            Errno::FBIG => StorageErrorKind::TooLongToWrite(getrlimit(Resource::Fsize).current),
            Errno::MFILE => StorageErrorKind::TooManyFiles(getrlimit(Resource::Nofile).current),
            Errno::NFILE => StorageErrorKind::TooManyFilesInSystem,
            Errno::NOMEM => StorageErrorKind::NoMemory,
            Errno::STALE => StorageErrorKind::Stale,
            Errno::NOTCONN
            | Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::CONNREFUSED
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::SHUTDOWN
            | Errno::TIMEDOUT => StorageErrorKind::Disconnected(errno.into()),
            Errno::IO
            | Errno::UCLEAN
            | Errno::BADMSG
            | Errno::NODEV
            | Errno::NXIO
            | Errno::NOMEDIUM
            | Errno::REMOTEIO => StorageErrorKind::DiskFailed(errno.into()),
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

/// Adds the numbers to a full disk or quota. `needed` are the bytes yet to be written.
pub(super) fn add_space_details(
    kind: StorageErrorKind,
    place: BorrowedFd<'_>,
    needed: u64,
) -> StorageErrorKind {
    match kind {
        StorageErrorKind::NoSpace { .. } => {
            let free =
                rustix::fs::fstatvfs(place).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
            StorageErrorKind::NoSpace { needed, free }
        }
        StorageErrorKind::QuotaFull { .. } => StorageErrorKind::QuotaFull { needed },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_operation_path_cause_and_advice() {
        let error = StorageError {
            operation: StorageOperation::Reserve,
            path: "/data/disk.img".into(),
            kind: StorageErrorKind::NoSpace { needed: 3 << 29, free: 3 },
        };
        assert_eq!(
            error.to_string(),
            "cannot reserve space for /data/disk.img: 1.5 GiB are needed and 3 B are free; make room, or choose \
             another disk"
        );
        let changed = SourceChangedError { path: "a".into(), change: SourceChange::Removed };
        assert_eq!(
            StorageError::from(changed).to_string(),
            "cannot read a: it was removed or renamed; upload it again"
        );
    }

    #[test]
    fn the_disk_is_blamed_for_its_own_faults_only() {
        let blames_disk = |errno: Errno| {
            let kind = StorageErrorKind::from(errno);
            kind.advice().contains("check the disk")
        };
        for errno in [Errno::IO, Errno::UCLEAN, Errno::NODEV] {
            assert!(blames_disk(errno), "{errno}");
        }
        let files =
            getrlimit(Resource::Nofile).current.map_or("no more files".to_owned(), |limit| limit.to_string());
        for (errno, word) in [
            (Errno::MFILE, files.as_str()),
            (Errno::NFILE, "fs.file-max"),
            (Errno::NOMEM, "`ulimit -v`"),
            (Errno::FBIG, "longer than a file on this filesystem may be"),
            (Errno::DQUOT, "quota"),
            (Errno::NOSPC, "the disk is full"),
            (Errno::ROFS, "read-only"),
            (Errno::STALE, "stale"),
            (Errno::NOTCONN, "does not answer"),
            (Errno::BUSY, "busy"),
        ] {
            let kind = StorageErrorKind::from(errno);
            assert!(kind.to_string().contains(word), "{errno}: {kind}");
            assert!(!blames_disk(errno), "{errno}");
        }
    }
}
