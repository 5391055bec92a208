//! The partial file of a download: opened or created by name, locked, reserved, and renamed in the end.
//!
//! Invariants:
//! * The lock is held from opening until the download ends: at most one download writes a partial file, in
//!   this process and in others.
//! * A file that was created here and could not be reserved is removed again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::proto::units::Digest;
use crate::storage::destination::{Destination, DestinationEntry, partial_name, path_of_descriptor};
use crate::storage::error::{
    StorageError, StorageErrorKind, StorageOperation, add_space_details, to_storage_error,
};
use crate::storage::file_state::FileState;
use crate::storage::filesystem_threads::FilesystemId;
use crate::storage::limits::{EXACT_TIMES_MAGIC, OPEN_ATTEMPTS_MAX, TMPFS_MAGIC};
use crate::storage::source::non_regular_kind;

/// Unit of `st_blocks`, in bytes (stat(2)).
pub(super) const BLOCK_BYTES: u64 = 512;

/// What a download reserves.
#[derive(Clone, Copy, Debug)]
pub struct TargetLayout<'a> {
    /// Length of the whole file in bytes; the longest possible one while only the number of pieces is known.
    pub length: u64,
    /// Ranges to reserve, in bytes, ascending: all but the pieces of zeros.
    pub reserved_ranges: &'a [Range<u64>],
}

impl TargetLayout<'_> {
    fn reserved_bytes(&self) -> u64 {
        self.reserved_ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// A locked partial file and its destination.
#[derive(Debug)]
pub(super) struct PartialFile {
    pub(super) destination: Destination,
    pub(super) file: File,
    name: OsString,
    reserved_bytes: u64,
    /// Length in bytes when it was opened; `None` when it did not exist.
    pub(super) initial_length: Option<u64>,
    /// State when it was opened; `None` when it did not exist.
    pub(super) initial_state: Option<FileState>,
    pub(super) filesystem: FilesystemId,
    /// Whether the filesystem sets file times at the write itself.
    has_exact_times: bool,
}

impl PartialFile {
    /// Opens or creates the file, takes its lock, sets its length and reserves the wanted ranges.
    pub(super) fn open(
        destination: Destination,
        group: &str,
        content: Digest,
        layout: TargetLayout<'_>,
    ) -> Result<PartialFile, StorageError> {
        let name = partial_name(destination.name(), group, content);
        let reserved_bytes = layout.reserved_bytes();
        let OpenedPartial { file, initial_length, filesystem } =
            open_locked(&destination, &name, reserved_bytes)?;
        // A state that cannot be read makes a record count for nothing.
        let initial_state = initial_length.and_then(|_| FileState::of(&file).ok());
        let has_exact_times = rustix::fs::fstatfs(&file)
            .is_ok_and(|stat| EXACT_TIMES_MAGIC.iter().any(|magic| stat.f_type == i64::from(*magic)));
        let partial = PartialFile {
            destination,
            file,
            name,
            reserved_bytes,
            initial_length,
            initial_state,
            filesystem,
            has_exact_times,
        };
        // The own lock is held, so of two downloads that begin at once one or both see the other.
        let claimed = partial.check_sole_claim();
        if let Err(error) = claimed.and_then(|()| partial.reserve(layout)) {
            if initial_length.is_none() {
                // The first error matters more than one of the cleanup.
                let _ = partial.remove();
            }
            return Err(error);
        }
        Ok(partial)
    }

    /// Refuses a final path to which another download is fetching.
    fn check_sole_claim(&self) -> Result<(), StorageError> {
        match self.destination.other_partial_in_use(&self.name)? {
            None => Ok(()),
            Some(other) => {
                let kind = StorageErrorKind::Claimed(other);
                Err(to_storage_error(StorageOperation::Create, &self.destination.path())(kind))
            }
        }
    }

    /// Whether the file is where it was created: its directory has a path, and its name belongs to it.
    pub(super) fn check_name(&self) -> Result<(), StorageError> {
        self.destination.update_path()?;
        if self.is_named(&self.name)? {
            return Ok(());
        }
        Err(self.error(StorageOperation::Write, self.lost_name()))
    }

    /// Releases the lock.
    pub(super) fn unlock(&self) {
        if let Err(error) = rustix::fs::flock(&self.file, FlockOperation::Unlock) {
            tracing::debug!(%error, "the lock of a partial file is held until it is closed");
        }
    }

    /// Why the file no longer has its name.
    fn lost_name(&self) -> StorageErrorKind {
        let ours = self.file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let leads_there = |path: &PathBuf| {
            path.symlink_metadata().ok().map(|metadata| (metadata.dev(), metadata.ino())) == ours
        };
        match path_of_descriptor(self.file.as_fd()).filter(leads_there) {
            Some(path) => StorageErrorKind::Moved(path),
            None => StorageErrorKind::Replaced,
        }
    }

    /// Whether the file has its final name already.
    pub(super) fn has_final_name(&self) -> Result<bool, StorageError> {
        Ok(!self.is_named(&self.name)? && self.is_named(self.destination.name())?)
    }

    /// The current state, where it lasts until the next change.
    pub(super) fn exact_state(&self) -> Option<FileState> {
        if self.has_exact_times { FileState::of(&self.file).ok() } else { None }
    }

    /// Its path, absolute.
    pub(super) fn path(&self) -> PathBuf {
        self.destination.path().with_file_name(&self.name)
    }

    /// Removes the file, unless another file has its name by now.
    pub(super) fn remove(&self) -> Result<(), StorageError> {
        if !self.is_named(&self.name)? {
            return Ok(());
        }
        rustix::fs::unlinkat(&self.destination.directory, &self.name, AtFlags::empty())
            .map_err(|errno| self.error(StorageOperation::Remove, errno))
    }

    /// Gives the file its final name.
    pub(super) fn rename_to_final(&self, overwrite: bool) -> Result<(), StorageError> {
        let error = |kind| self.error(StorageOperation::Rename, kind);
        self.check_name()?;
        if let DestinationEntry::Other(what) = self.destination.existing_entry()? {
            return Err(error(StorageErrorKind::NotAFile(what)));
        }
        let directory = &self.destination.directory;
        let (from, to) = (&self.name, self.destination.name());
        let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let result = match rustix::fs::renameat_with(directory, from, directory, to, flags) {
            // Filesystems without RENAME_NOREPLACE still refuse to link over an existing name.
            Err(Errno::INVAL | Errno::NOSYS) if !overwrite => {
                rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())
                    .and_then(|()| rustix::fs::unlinkat(directory, from, AtFlags::empty()))
            }
            other => other,
        };
        result.map_err(|errno| error(errno.into()))
    }

    /// Opens this file for reading, under its current name.
    pub(super) fn reopen_for_reading(&self) -> Result<File, StorageError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let ours = self.file.metadata().map_err(|error| self.error(StorageOperation::Open, error))?;
        for name in [self.name.as_os_str(), self.destination.name()] {
            let file = match rustix::fs::openat(&self.destination.directory, name, flags, Mode::empty()) {
                Ok(descriptor) => File::from(descriptor),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.error(StorageOperation::Open, errno)),
            };
            let theirs = file.metadata().map_err(|error| self.error(StorageOperation::Open, error))?;
            if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
                return Ok(file);
            }
        }
        Err(self.error(StorageOperation::Open, StorageErrorKind::Replaced))
    }

    /// An error with the path of the partial file; a failed rename names the final path.
    pub(super) fn error(
        &self,
        operation: StorageOperation,
        cause: impl Into<StorageErrorKind>,
    ) -> StorageError {
        let is_rename = operation == StorageOperation::Rename;
        let path = if is_rename { self.destination.path() } else { self.path() };
        let kind = add_space_details(cause.into(), self.file.as_fd(), self.missing_bytes());
        to_storage_error(operation, &path)(kind)
    }

    /// Sets the length and reserves the wanted ranges.
    fn reserve(&self, layout: TargetLayout<'_>) -> Result<(), StorageError> {
        // Setting the same length again would change the file's times.
        if self.initial_length != Some(layout.length) {
            self.file.set_len(layout.length).map_err(|error| self.error(StorageOperation::Resize, error))?;
        }
        if is_on_tmpfs(&self.file) {
            return self.check_free_space();
        }
        if self.initial_length.is_some() && self.missing_bytes() == 0 {
            return Ok(());
        }
        let Some(first) = layout.reserved_ranges.first() else { return Ok(()) };
        // A filesystem that cannot reserve refuses this too. A full disk then fails a write.
        if matches!(self.reserve_range(first.start..first.start + 1), Err(Errno::NOTSUP | Errno::NOSYS)) {
            return Ok(());
        }
        // A reservation that fails keeps what it got, and would be counted as neither free nor missing.
        self.check_free_space()?;
        for range in layout.reserved_ranges {
            self.reserve_range(range.clone())
                .map_err(|errno| self.error(StorageOperation::Reserve, errno))?;
        }
        Ok(())
    }

    fn reserve_range(&self, range: Range<u64>) -> rustix::io::Result<()> {
        let len = range.end - range.start;
        rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&self.file, FallocateFlags::empty(), range.start, len)
        })
    }

    /// Fails when there is too little free space for what is missing. It is not kept free; a filesystem that
    /// fills up later fails a write.
    fn check_free_space(&self) -> Result<(), StorageError> {
        let stat =
            rustix::fs::fstatvfs(&self.file).map_err(|errno| self.error(StorageOperation::Reserve, errno))?;
        let is_unlimited = stat.f_blocks == 0;
        if is_unlimited || self.missing_bytes() <= stat.f_bavail.saturating_mul(stat.f_frsize) {
            return Ok(());
        }
        Err(self.error(StorageOperation::Reserve, Errno::NOSPC))
    }

    /// Bytes to be reserved that are not allocated yet.
    fn missing_bytes(&self) -> u64 {
        let allocated = self.file.metadata().map_or(0, |metadata| metadata.blocks() * BLOCK_BYTES);
        self.reserved_bytes.saturating_sub(allocated)
    }

    /// Whether the directory's entry `name` is this file.
    fn is_named(&self, name: &OsStr) -> Result<bool, StorageError> {
        let ours = self.file.metadata().map_err(|error| self.error(StorageOperation::Open, error))?;
        let named =
            self.destination.stat_name(name).map_err(|errno| self.error(StorageOperation::Open, errno))?;
        Ok(named.is_some_and(|named| (named.st_dev, named.st_ino) == (ours.dev(), ours.ino())))
    }
}

/// Whether the file is on a tmpfs. Reserving there fills memory with zeros, which costs as much as writing
/// the file once.
pub(super) fn is_on_tmpfs(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
}

/// A partial file that was opened.
struct OpenedPartial {
    file: File,
    /// Length in bytes when it was opened; `None` when it did not exist.
    initial_length: Option<u64>,
    filesystem: FilesystemId,
}

/// Opens the partial file, creating it if necessary, and takes its lock. Starts over when another download finishes or discards the file between opening and locking.
fn open_locked(
    destination: &Destination,
    name: &OsStr,
    reserved_bytes: u64,
) -> Result<OpenedPartial, StorageError> {
    let path = destination.path().with_file_name(name);
    let error = |operation, kind| to_storage_error::<StorageErrorKind>(operation, &path)(kind);
    for _ in 0..OPEN_ATTEMPTS_MAX {
        let opened = open_or_create(destination, name).map_err(|errno| {
            let kind = add_space_details(errno.into(), destination.directory.as_fd(), reserved_bytes);
            error(StorageOperation::Create, kind)
        })?;
        let Some((file, is_new)) = opened else { continue };
        let metadata = file.metadata().map_err(to_storage_error(StorageOperation::Open, &path))?;
        if let Some(what) = non_regular_kind(metadata.file_type()) {
            return Err(error(StorageOperation::Open, StorageErrorKind::NotAFile(what)));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() && !is_new {
            return Err(error(StorageOperation::Open, StorageErrorKind::WrongOwner));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => break,
            Err(errno) => return Err(error(StorageOperation::Lock, errno.into())),
        }
        let named = destination.stat_name(name).map_err(to_storage_error(StorageOperation::Open, &path))?;
        if named.is_some_and(|named| (named.st_dev, named.st_ino) == (metadata.dev(), metadata.ino())) {
            let filesystem = FilesystemId::of_device(metadata.dev());
            return Ok(OpenedPartial {
                file,
                initial_length: (!is_new).then_some(metadata.len()),
                filesystem,
            });
        }
    }
    Err(error(StorageOperation::Lock, StorageErrorKind::Locked))
}

/// The file and whether it was created; `None` when it vanished between the two attempts.
fn open_or_create(destination: &Destination, name: &OsStr) -> rustix::io::Result<Option<(File, bool)>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let open = |flags| rustix::fs::openat(&destination.directory, name, flags, mode).map(File::from);
    match open(flags | OFlags::CREATE | OFlags::EXCL) {
        Ok(file) => Ok(Some((file, true))),
        Err(Errno::EXIST) => match open(flags) {
            Ok(file) => Ok(Some((file, false))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}
