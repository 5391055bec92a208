//! Hashes that come one after the other, and are too many for memory: they go to a file without a name, which is mapped.
//!
//! ```text
//!   push ─► pending ── short lists stay ────────────────► Hashes in memory
//!              └────── long ones ─► nameless file ─ map ─► Hashes in the map ─► copies of 20 bytes
//! ```
//!
//! Who may cut or change that file while it is mapped: it was made in a directory of this user's alone and has lost its name
//! before the first byte is written, and nobody holds it open but this process. Whoever reaches it through `/proc` may as well
//! write this process's memory. What is left is a disk that fails. One that fails to take the bytes says so while the list is
//! finished, since that syncs them: a page whose writing fails later would be read as something else without a word. One that
//! fails to give them back is met by the guard of [`mem`](crate::mem), which shows zeros in place of a signal that ends the
//! process, and [`BackingBytes::lost`] says so to whoever is about to blame somebody for what they do not match.
//!
//! Invariants: a list that was finished is never written again; what is mapped has reached the disk.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{StorageError, StorageOperation, to_storage_error};
use super::limits::{HASHES_IN_MEMORY_MAX, HASHES_WRITTEN_BYTES};
use super::target::add_space_details;
use crate::mem::mapping::Mapping;
use crate::proto::hashes::{BackingBytes, HASH_BYTES, Sha1List, Sha1Value};

/// A list in the making.
#[derive(Debug)]
pub struct Sha1ListBuilder<T> {
    directory: Option<PathBuf>,
    file: Option<File>,
    /// What is not in the file.
    pending: Vec<u8>,
    count: usize,
    marker: PhantomData<T>,
}

impl<T: Sha1Value> Sha1ListBuilder<T> {
    /// A list with nothing in it. When it grows too long for memory it goes to a file in `directory`, which has to be one
    /// that nobody else may write; with `None` it stays in memory.
    #[must_use]
    pub fn new(directory: Option<&Path>) -> Sha1ListBuilder<T> {
        let directory = directory.map(Path::to_owned);
        Sha1ListBuilder { directory, file: None, pending: Vec::new(), count: 0, marker: PhantomData }
    }

    /// How many values have come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The next values.
    ///
    /// # Errors
    /// [`StorageError`]: the directory takes no file, or its disk is full.
    pub fn push(&mut self, values: &[T]) -> Result<(), StorageError> {
        values.iter().for_each(|value| self.pending.extend_from_slice(&value.to_array()));
        self.count += values.len();
        if let (None, Some(directory)) = (&self.file, &self.directory)
            && self.count > HASHES_IN_MEMORY_MAX
        {
            self.file = Some(
                create_unnamed_file(directory)
                    .map_err(to_storage_error(StorageOperation::Create, directory))?,
            );
        }
        if self.pending.len() >= HASHES_WRITTEN_BYTES { self.write_pending() } else { Ok(()) }
    }

    /// The list.
    ///
    /// # Errors
    /// [`StorageError`]: the disk is full or does not take it, or the file cannot be mapped.
    pub fn finish(mut self) -> Result<Sha1List<T>, StorageError> {
        self.write_pending()?;
        let count = self.count;
        let bytes: Arc<dyn BackingBytes> = match (self.file, self.directory) {
            (Some(file), Some(directory)) => {
                file.sync_data().map_err(to_storage_error(StorageOperation::Sync, &directory))?;
                let mapping = Mapping::new(&file, (count * HASH_BYTES) as u64)
                    .map_err(to_storage_error(StorageOperation::Map, &directory))?;
                Arc::new(MappedBytes { mapping, path: directory })
            }
            _ => Arc::new(self.pending),
        };
        Ok(Sha1List::from_backing(bytes, 0, count).expect("as many values as were counted"))
    }

    /// Writes what is pending to the file, if there is one.
    fn write_pending(&mut self) -> Result<(), StorageError> {
        let (Some(file), Some(directory)) = (&mut self.file, &self.directory) else { return Ok(()) };
        file.write_all(&self.pending).map_err(|error| {
            let kind =
                add_space_details(error.into(), std::os::fd::AsFd::as_fd(file), self.pending.len() as u64);
            to_storage_error(StorageOperation::Write, directory)(kind)
        })?;
        self.pending = Vec::with_capacity(HASHES_WRITTEN_BYTES);
        Ok(())
    }
}

/// Bytes in a mapped file.
#[derive(Debug)]
struct MappedBytes {
    mapping: Mapping,
    /// For people: where it is, or was made.
    path: PathBuf,
}

impl BackingBytes for MappedBytes {
    fn length(&self) -> usize {
        self.mapping.len()
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        self.mapping.copy(at, into);
    }

    fn unreadable_at(&self) -> Option<String> {
        self.mapping.has_faulted().then(|| self.path.display().to_string())
    }
}

/// Maps a file that this user alone may write, such as a manifest at rest, for its hashes to be left there.
///
/// # Errors
/// [`StorageError`]: it cannot be opened or mapped.
pub fn map_private_file(path: &Path) -> Result<Arc<dyn BackingBytes>, StorageError> {
    let file = File::open(path).map_err(to_storage_error(StorageOperation::Open, path))?;
    let length = file.metadata().map_err(to_storage_error(StorageOperation::Open, path))?.len();
    if length == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    let mapping = Mapping::new(&file, length).map_err(to_storage_error(StorageOperation::Map, path))?;
    Ok(Arc::new(MappedBytes { mapping, path: path.to_owned() }))
}

/// How the name begins that such a file has for a moment, where it cannot be made without one.
const TEMPORARY_NAME_PREFIX: &str = ".hashes-";

/// Removes the files of lists that a kill left behind, in the moment in which they had a name. Only the one process that
/// makes such files in `directory` may, before it makes any.
pub fn remove_stale_lists(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for entry in entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_NAME_PREFIX.as_bytes()))
    {
        let path = entry.path();
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an earlier start left"),
            Err(error) => tracing::warn!(%error, path = %path.display(), "what an earlier start left stays"),
        }
    }
}

/// A file in `directory` that no name leads to.
fn create_unnamed_file(directory: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        // Some filesystems cannot do that: there it has a name for a moment.
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

    fn gather(directory: Option<&Path>, count: usize) -> Sha1ListBuilder<Digest> {
        let mut gatherer = Sha1ListBuilder::new(directory);
        let values: Vec<Digest> = (0..count).map(|index| Digest(value(index))).collect();
        values.chunks(1_000).for_each(|some| gatherer.push(some).unwrap());
        assert_eq!(gatherer.len(), count);
        gatherer
    }

    #[test]
    fn long_lists_go_to_a_file_without_a_name_and_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for (directory, count, in_file) in [
            (None, HASHES_IN_MEMORY_MAX + 1, false),
            (Some(dir.path()), HASHES_IN_MEMORY_MAX, false),
            (Some(dir.path()), HASHES_IN_MEMORY_MAX + 1, true),
            (Some(dir.path()), 3 * HASHES_IN_MEMORY_MAX + 17, true),
        ] {
            let gatherer = gather(directory, count);
            assert_eq!(gatherer.file.is_some(), in_file, "{count}");
            let list = gatherer.finish().unwrap();
            assert!(list.iter().enumerate().all(|(index, digest)| digest == Digest(value(index))));
            assert_eq!((list.len(), list.unreadable_at()), (count, None));
            assert_eq!(dir.path().read_dir().unwrap().count(), 0, "it has no name");
        }
    }

    #[test]
    fn a_directory_that_takes_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let mut gatherer = Sha1ListBuilder::<Digest>::new(Some(&gone));
        let refused = gatherer.push(&vec![Digest([1; 20]); HASHES_IN_MEMORY_MAX + 1]).unwrap_err();
        assert!(matches!(refused.kind, StorageErrorKind::Missing), "{refused}");
        assert_eq!(refused.path, gone);
    }

    #[test]
    fn a_list_that_does_not_reach_the_disk_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut gatherer = gather(Some(dir.path()), HASHES_IN_MEMORY_MAX + 1);
        // A pipe takes what is written, and can be neither synced nor mapped: which of the two is tried first?
        let (_reader, writer) = io::pipe().unwrap();
        gatherer.file = Some(File::from(std::os::fd::OwnedFd::from(writer)));
        gatherer.pending.clear();
        assert_eq!(gatherer.finish().unwrap_err().operation, StorageOperation::Sync);
    }

    #[test]
    fn what_a_kill_left_is_swept_and_nothing_else() {
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
    fn a_manifest_at_rest_is_read_where_it_lies_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let digests = gather(Some(dir.path()), HASHES_IN_MEMORY_MAX + 5).finish().unwrap();
        let chain = vec![ChainState([9; 20]); digests.len() - 1];
        let whole = FileProof::Whole(Digest([3; 20]));
        let name = FileName::new("f").unwrap();
        let manifest = Manifest::from_lists(name, None, digests, whole, Some(chain.into())).unwrap();
        let mut file = File::create(&path).unwrap();
        manifest.write(|block| file.write_all(block)).unwrap();
        let read = Manifest::from_backing(&map_private_file(&path).unwrap()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(std::fs::read(&path).unwrap(), manifest.to_bytes());
        drop(read);
        let kept = map_private_file(&path).unwrap();
        // The guard shows zeros where the file has no bytes any more.
        file.set_len(4_096).unwrap();
        assert!(Manifest::from_backing(&kept).is_err());
        assert!(kept.unreadable_at().is_some_and(|place| place.ends_with("/m")));
        std::fs::write(&path, [manifest.to_bytes(), vec![0]].concat()).unwrap();
        assert!(Manifest::from_backing(&map_private_file(&path).unwrap()).is_err());
        std::fs::write(&path, []).unwrap();
        assert!(Manifest::from_backing(&map_private_file(&path).unwrap()).is_err());
    }
}
