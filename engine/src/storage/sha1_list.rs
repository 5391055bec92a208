//! Builds lists of SHA-1 values. A list that is too long for memory is written to an unnamed file and mapped, or read
//! where the system refuses to map it.
//!
//! ```text
//!   push ─► pending ── short list ──────────────────────► Sha1List in memory
//!              └────── long list ─► unnamed file ──────► Sha1List in the file ─► copies of 20 bytes
//! ```
//!
//! The file cannot change: it is created in a directory of this user alone, has no name before its
//! first byte is written, and is open in this process only. (A program that reaches it through `/proc` could
//! also write this process's memory.) The remaining risk is a failing disk. `finish` syncs the file, so it fails
//! if the disk cannot store the bytes. When a page cannot be read later, the guard of [`mem`](crate::mem)
//! shows zeros instead of ending the process, and [`BackingBytes::unreadable_at`] then reports it; callers
//! ask before they blame a peer for a mismatch.
//!
//! Invariants: a finished list is never written again; its bytes have reached the disk.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{StorageError, StorageOperation, add_space_details, to_storage_error};
use super::file_bytes::FileBytes;
use super::limits::{HASHES_IN_MEMORY_MAX, HASHES_WRITTEN_BYTES};
use crate::proto::hashes::{BackingBytes, HASH_BYTES, Sha1List, Sha1Value};

/// A list under construction.
#[derive(Debug)]
pub struct Sha1ListBuilder<T> {
    directory: Option<PathBuf>,
    file: Option<File>,
    /// Values that are not in the file yet.
    pending: Vec<u8>,
    count: usize,
    marker: PhantomData<T>,
}

impl<T: Sha1Value> Sha1ListBuilder<T> {
    /// An empty list. When it outgrows memory it goes to a file in `directory`, which only this user may
    /// write; with `None` it stays in memory.
    #[must_use]
    pub fn new(directory: Option<&Path>) -> Sha1ListBuilder<T> {
        let directory = directory.map(Path::to_owned);
        Sha1ListBuilder { directory, file: None, pending: Vec::new(), count: 0, marker: PhantomData }
    }

    /// Number of values added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no value was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends values.
    ///
    /// # Errors
    /// [`StorageError`]: no file can be created in the directory, or its disk is full.
    pub fn push(&mut self, values: &[T]) -> Result<(), StorageError> {
        values.iter().for_each(|value| self.pending.extend_from_slice(&value.to_array()));
        self.count += values.len();
        if let (None, Some(directory)) = (&self.file, &self.directory)
            && self.count > HASHES_IN_MEMORY_MAX
        {
            let file = create_unnamed_file(directory);
            self.file = Some(file.map_err(to_storage_error(StorageOperation::Create, directory))?);
        }
        if self.pending.len() >= HASHES_WRITTEN_BYTES { self.write_pending() } else { Ok(()) }
    }

    /// The finished list.
    ///
    /// # Errors
    /// [`StorageError`]: the disk is full or failed.
    pub fn finish(mut self) -> Result<Sha1List<T>, StorageError> {
        self.write_pending()?;
        let count = self.count;
        let bytes: Arc<dyn BackingBytes> = match (self.file, self.directory) {
            (Some(file), Some(directory)) => {
                file.sync_data().map_err(to_storage_error(StorageOperation::Sync, &directory))?;
                Arc::new(StoredBytes::open(file, count * HASH_BYTES, directory))
            }
            _ => Arc::new(self.pending),
        };
        Ok(Sha1List::from_backing(bytes, 0, count).expect("the bytes hold `count` values"))
    }

    /// Writes the pending bytes to the file, if there is one.
    fn write_pending(&mut self) -> Result<(), StorageError> {
        let (Some(file), Some(directory)) = (&mut self.file, &self.directory) else { return Ok(()) };
        file.write_all(&self.pending).map_err(|error| {
            let kind = add_space_details(error.into(), file.as_fd(), self.pending.len() as u64);
            to_storage_error(StorageOperation::Write, directory)(kind)
        })?;
        self.pending = Vec::with_capacity(HASHES_WRITTEN_BYTES);
        Ok(())
    }
}

/// The bytes of a file.
#[derive(Debug)]
struct StoredBytes {
    bytes: FileBytes,
    length: usize,
    /// Where it is or was created, for messages.
    path: PathBuf,
}

impl StoredBytes {
    fn open(file: File, length: usize, path: PathBuf) -> StoredBytes {
        StoredBytes { bytes: FileBytes::open(&Arc::new(file), length as u64, &path), length, path }
    }
}

impl BackingBytes for StoredBytes {
    fn length(&self) -> usize {
        self.length
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        self.bytes.copy(at, into);
    }

    fn unreadable_at(&self) -> Option<String> {
        self.bytes.has_failed().then(|| self.path.display().to_string())
    }
}

/// Opens a file that only this user may write, such as a manifest in the state directory, so that its SHA-1
/// values can stay there.
///
/// # Errors
/// [`StorageError`]: it cannot be opened, or is too long for the address space.
pub fn open_private_file(path: &Path) -> Result<Arc<dyn BackingBytes>, StorageError> {
    let file = File::open(path).map_err(to_storage_error(StorageOperation::Open, path))?;
    let length = file.metadata().map_err(to_storage_error(StorageOperation::Open, path))?.len();
    let length = usize::try_from(length)
        .map_err(|error| to_storage_error(StorageOperation::Open, path)(io::Error::other(error)))?;
    Ok(Arc::new(StoredBytes::open(file, length, path.to_owned())))
}

/// Prefix of the temporary name of a list's file, on filesystems that cannot create unnamed files.
const TEMPORARY_NAME_PREFIX: &str = ".hashes-";

/// Removes files that a kill left behind while they had a name. Only the process that creates such files in
/// `directory` may call this, and before it creates any.
pub fn remove_stale_lists(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for entry in entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_NAME_PREFIX.as_bytes()))
    {
        let path = entry.path();
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed a stale file of an earlier start"),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot remove a stale file of an earlier start");
            }
        }
    }
}

fn create_unnamed_file(directory: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        // Some filesystems cannot create unnamed files: unlink it right after its creation.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let random = getrandom::u64().map_err(io::Error::other)?;
            let path = directory.join(format!("{TEMPORARY_NAME_PREFIX}{random:016x}"));
            let file = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            std::fs::remove_file(&path)?;
            Ok(file.into())
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::StorageErrorKind;
    use super::*;
    use crate::proto::manifest::{FileName, FileProof, Manifest};
    use crate::proto::units::{ChainState, Digest};

    fn value(index: usize) -> [u8; 20] {
        let mut bytes = [7; 20];
        bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
        bytes
    }

    fn build_list(directory: Option<&Path>, count: usize) -> Sha1ListBuilder<Digest> {
        let mut builder = Sha1ListBuilder::new(directory);
        let values: Vec<Digest> = (0..count).map(|index| Digest(value(index))).collect();
        values.chunks(1_000).for_each(|some| builder.push(some).unwrap());
        assert_eq!(builder.len(), count);
        builder
    }

    #[test]
    fn long_lists_go_to_an_unnamed_file_and_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for (directory, count, is_in_file) in [
            (None, HASHES_IN_MEMORY_MAX + 1, false),
            (Some(dir.path()), HASHES_IN_MEMORY_MAX, false),
            (Some(dir.path()), HASHES_IN_MEMORY_MAX + 1, true),
            (Some(dir.path()), 3 * HASHES_IN_MEMORY_MAX + 17, true),
        ] {
            let builder = build_list(directory, count);
            assert_eq!(builder.file.is_some(), is_in_file, "{count}");
            let list = builder.finish().unwrap();
            assert!(list.iter().enumerate().all(|(index, digest)| digest == Digest(value(index))));
            assert_eq!((list.len(), list.unreadable_at()), (count, None));
            assert_eq!(dir.path().read_dir().unwrap().count(), 0, "the file has no name");
        }
    }

    #[test]
    fn an_unusable_directory_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("gone");
        let mut builder = Sha1ListBuilder::<Digest>::new(Some(&missing));
        let refused = builder.push(&vec![Digest([1; 20]); HASHES_IN_MEMORY_MAX + 1]).unwrap_err();
        assert!(matches!(refused.kind, StorageErrorKind::Missing), "{refused}");
        assert_eq!(refused.path, missing);
    }

    #[test]
    fn a_list_that_cannot_be_synced_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = build_list(Some(dir.path()), HASHES_IN_MEMORY_MAX + 1);
        // A pipe accepts writes but can be neither synced nor mapped; `finish` must try the sync first.
        let (_reader, writer) = io::pipe().unwrap();
        builder.file = Some(File::from(std::os::fd::OwnedFd::from(writer)));
        builder.pending.clear();
        assert_eq!(builder.finish().unwrap_err().operation, StorageOperation::Sync);
    }

    #[test]
    fn only_stale_list_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".hashes-0123456789abcdef", "hashes-1", "session"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        remove_stale_lists(dir.path());
        let mut left: Vec<_> =
            dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["hashes-1", "session"]);
        remove_stale_lists(&dir.path().join("gone"));
    }

    #[test]
    fn a_stored_manifest_is_read_in_place_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let digests = build_list(Some(dir.path()), HASHES_IN_MEMORY_MAX + 5).finish().unwrap();
        let chain = vec![ChainState([9; 20]); digests.len() - 1];
        let whole = FileProof::Whole(Digest([3; 20]));
        let name = FileName::new("f").unwrap();
        let manifest = Manifest::from_lists(name, None, digests, whole, Some(chain.into())).unwrap();
        let mut file = File::create(&path).unwrap();
        manifest.write(|block| file.write_all(block)).unwrap();
        let read = Manifest::from_backing(&open_private_file(&path).unwrap()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(std::fs::read(&path).unwrap(), manifest.to_bytes());
        drop(read);
        let kept = open_private_file(&path).unwrap();
        // The guard shows zeros where the file has no bytes any more.
        file.set_len(4_096).unwrap();
        assert!(Manifest::from_backing(&kept).is_err());
        assert!(kept.unreadable_at().is_some_and(|place| place.ends_with("/m")));
        std::fs::write(&path, [manifest.to_bytes(), vec![0]].concat()).unwrap();
        assert!(Manifest::from_backing(&open_private_file(&path).unwrap()).is_err());
        std::fs::write(&path, []).unwrap();
        assert!(Manifest::from_backing(&open_private_file(&path).unwrap()).is_err());
    }
}
