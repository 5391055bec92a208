//! Destination of a download: an open directory and a file name in it.
//!
//! Invariants:
//! * The directory is opened once, by the path that the user typed, following links. Everything afterwards is
//!   relative to that descriptor, so renaming the path cannot redirect a download.
//! * The name is one component and is never followed if it is a link. That is all that `openat2`'s
//!   RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS would check, so plain `openat` with O_NOFOLLOW is enough.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha1::Digest as _;

use super::error::{StorageError, StorageErrorKind, StorageOperation, to_storage_error};
use super::limits::{NAME_MAX_BYTES, PARTIAL_HASH_BYTES, PARTIAL_STEM_MAX_BYTES};
use super::source::Source;
use crate::proto::manifest::FileName;
use crate::proto::units::Digest;

#[cfg(test)]
mod tests;

/// An open directory and the final name in it.
#[derive(Debug)]
pub struct Destination {
    pub(super) directory: OwnedFd,
    directory_path: PathBuf,
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
        let destination = Destination { directory, directory_path, name };
        // Fails now, before anything is fetched, when the name is too long.
        destination.existing_entry()?;
        Ok(destination)
    }

    /// The final path, absolute.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory_path.join(&self.name)
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
    sibling_name(name, group, content, ".part")
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
