//! Destination of a download: an open directory and a file name in it.
//!
//! Invariants:
//! * The directory is opened once, by the path that the user typed, following links. Everything afterwards is
//!   relative to that descriptor, so renaming the path cannot redirect a download. The path that is shown
//!   follows the directory (`Destination::update_path`).
//! * The name is one component and is never followed if it is a link. That is all that `openat2`'s
//!   RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS would check, so plain `openat` with O_NOFOLLOW is enough.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha1::Digest as _;

use super::error::{StorageError, StorageErrorKind, StorageOperation, to_storage_error};
use super::limits::{NAME_MAX_BYTES, PARTIAL_HASH_BYTES, PARTIAL_STEM_MAX_BYTES};
use super::source::Source;
use crate::lock::lock;
use crate::proto::manifest::FileName;
use crate::proto::units::Digest;

#[cfg(test)]
mod tests;

/// Ending of a partial file's name.
const PARTIAL_ENDING: &str = ".part";

/// An open directory and the final name in it.
#[derive(Debug)]
pub struct Destination {
    pub(super) directory: OwnedFd,
    /// Path of the directory: as it was typed, until it was moved.
    directory_path: Mutex<PathBuf>,
    name: OsString,
}

/// What is at the final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationEntry {
    /// No entry of that name.
    Absent,
    /// A regular file.
    File {
        /// Length in bytes.
        length: u64,
    },
    /// Something that is never replaced, such as "a directory".
    Other(&'static str),
}

impl Destination {
    /// Reads DEST as typed: an existing directory, to which `name` is added, or a path whose last component
    /// is the name. A path that ends in `/` is a directory. No directory is created.
    ///
    /// # Errors
    /// [`StorageError`]: the directory does not exist or cannot be opened, or the name is too long for it.
    pub fn resolve(dest: &Path, name: &FileName) -> Result<Destination, StorageError> {
        let must_be_directory = dest.as_os_str().as_bytes().ends_with(b"/");
        let (directory_path, name) = match (dest.file_name(), must_be_directory || dest.is_dir()) {
            (Some(file_name), false) => (parent_directory(dest), file_name.to_owned()),
            _ => (dest, OsString::from(name.as_str())),
        };
        // Only an empty path has no absolute form.
        let directory_path = std::path::absolute(directory_path).map_err(|_| {
            to_storage_error(StorageOperation::Open, directory_path)(StorageErrorKind::NotADirectory)
        })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&directory_path, flags, Mode::empty())
            .map_err(|errno| match errno {
                Errno::NOENT => StorageErrorKind::NotADirectory,
                other => other.into(),
            })
            .map_err(to_storage_error(StorageOperation::Open, &directory_path))?;
        let destination = Destination { directory, directory_path: Mutex::new(directory_path), name };
        // Fails now, before anything is fetched, when the name is too long.
        destination.existing_entry()?;
        Ok(destination)
    }

    /// The final path, absolute, when `Destination::update_path` was called last.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        lock(&self.directory_path).join(&self.name)
    }

    /// Whether both are the same name in the same directory.
    #[must_use]
    pub fn is_same_place(&self, other: &Destination) -> bool {
        let directory = |place: &Destination| rustix::fs::fstat(&place.directory).ok();
        let is_same = |(one, two): (Stat, Stat)| (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino);
        self.name == other.name && directory(self).zip(directory(other)).is_some_and(is_same)
    }

    /// Finds out where the open directory is now.
    ///
    /// # Errors
    /// [`StorageErrorKind::DirectoryLost`]: no path leads to it; or it cannot be examined.
    pub(super) fn update_path(&self) -> Result<(), StorageError> {
        let known = lock(&self.directory_path).clone();
        let opened =
            rustix::fs::fstat(&self.directory).map_err(to_storage_error(StorageOperation::Open, &known))?;
        let leads_there = |path: &Path| {
            rustix::fs::stat(path)
                .is_ok_and(|found| (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino))
        };
        if leads_there(&known) {
            return Ok(());
        }
        match path_of_descriptor(self.directory.as_fd()).filter(|path| leads_there(path)) {
            Some(path) => {
                *lock(&self.directory_path) = path;
                Ok(())
            }
            None => {
                Err(to_storage_error(StorageOperation::Open, &self.path())(StorageErrorKind::DirectoryLost))
            }
        }
    }

    /// Another partial file for the same final path that a download, of this process or another one, writes
    /// now. `own` is left out.
    pub(super) fn other_partial_in_use(&self, own: &OsStr) -> Result<Option<PathBuf>, StorageError> {
        let path = self.path();
        let entries = rustix::fs::Dir::read_from(&self.directory)
            .map_err(to_storage_error(StorageOperation::Open, &path))?;
        for entry in entries {
            let entry = entry.map_err(to_storage_error(StorageOperation::Open, &path))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != own && is_partial_name_of(name, &self.name) && self.is_locked(name) {
                return Ok(Some(path.with_file_name(name)));
            }
        }
        Ok(None)
    }

    /// Whether a download holds the lock of a partial file.
    fn is_locked(&self, name: &OsStr) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // One that cannot be opened was finished or removed meanwhile, or belongs to another user.
        let Ok(file) = rustix::fs::openat(&self.directory, name, flags, Mode::empty()) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// The final name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Looks up the final name. A link is not followed.
    ///
    /// # Errors
    /// [`StorageError`]: the directory cannot be searched, or the name is too long.
    pub fn existing_entry(&self) -> Result<DestinationEntry, StorageError> {
        let stat =
            self.stat_name(&self.name).map_err(to_storage_error(StorageOperation::Open, &self.path()))?;
        let Some(stat) = stat else { return Ok(DestinationEntry::Absent) };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => DestinationEntry::File {
                length: u64::try_from(stat.st_size).expect("no file has a negative length"),
            },
            FileType::Symlink => DestinationEntry::Other("a symbolic link"),
            FileType::Directory => DestinationEntry::Other("a directory"),
            FileType::Fifo => DestinationEntry::Other("a fifo"),
            FileType::Socket => DestinationEntry::Other("a socket"),
            _ => DestinationEntry::Other("a device"),
        })
    }

    /// Opens the file at the final name, to compare or to share it.
    ///
    /// # Errors
    /// [`StorageError`]: it is missing, a link or not a regular file, or cannot be read.
    pub fn open_existing(&self) -> Result<Source, StorageError> {
        let path = self.path();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())
            .map_err(to_storage_error(StorageOperation::Open, &path))?;
        Source::from_file(file.into(), path)
    }

    /// Status of a name in the directory, without following a link; `None` when there is none.
    pub(super) fn stat_name(&self, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// The directory of a path with a last component; `.` for a bare name.
fn parent_directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Name of a download's partial file, at most 255 bytes: the start of the final name, eight hex digits that
/// depend on group and content, and `.part`.
#[must_use]
pub fn partial_name(name: &OsStr, group: &str, content: Digest) -> OsString {
    sibling_name(name, group, content, PARTIAL_ENDING)
}

/// As [`partial_name`], with another ending, for files that belong to the partial file.
#[must_use]
pub fn sibling_name(name: &OsStr, group: &str, content: Digest, ending: &str) -> OsString {
    let hash = sha1::Sha1::new().chain_update(group).chain_update([0]).chain_update(content.0).finalize();
    let hash: String = hash[..PARTIAL_HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    let rest = format!(".{hash}{ending}");
    let room = PARTIAL_STEM_MAX_BYTES.min(NAME_MAX_BYTES - rest.len());
    let mut sibling = truncate_stem(name.as_bytes(), room).to_vec();
    sibling.extend_from_slice(rest.as_bytes());
    OsString::from_vec(sibling)
}

/// Whether `partial` may be the partial file of a download to `name`, of any content.
fn is_partial_name_of(partial: &OsStr, name: &OsStr) -> bool {
    let pattern = partial_name(name, "", Digest([0; 20]));
    let (pattern, partial) = (pattern.as_bytes(), partial.as_bytes());
    let hash_at = pattern.len() - PARTIAL_ENDING.len() - 2 * PARTIAL_HASH_BYTES;
    partial.len() == pattern.len()
        && partial[..hash_at] == pattern[..hash_at]
        && partial.ends_with(PARTIAL_ENDING.as_bytes())
        && partial[hash_at..][..2 * PARTIAL_HASH_BYTES].iter().all(u8::is_ascii_hexdigit)
}

/// Path of an open file, as the system has it now. It may say that the file was deleted, and then leads nowhere.
pub(super) fn path_of_descriptor(descriptor: BorrowedFd<'_>) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).ok()
}

/// The longest prefix of a name within `room` bytes that ends before a UTF-8 character.
fn truncate_stem(name: &[u8], room: usize) -> &[u8] {
    /// Continuation bytes of the longest UTF-8 character. Names that are not UTF-8 are cut anywhere.
    const CONTINUATION_MAX: usize = 3;
    if name.len() <= room {
        return name;
    }
    let starts_character = |&at: &usize| name[at] & 0xC0 != 0x80;
    let cut = (room - CONTINUATION_MAX..=room).rev().find(starts_character);
    &name[..cut.unwrap_or(room)]
}

/// Removes a name of a directory, if it exists.
pub(super) fn remove_name(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Flushes a directory, so that its names are durable. Some network filesystems cannot do that, and need not.
pub(super) fn sync_directory(directory: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::fsync(directory) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}
