//! Files of this machine that are hashed whole: to be shared, or to be compared with a manifest.

use std::cell::Cell;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::hash::{FileHasher, WindowHashes, WindowSource};
use crate::proto::geometry::Geometry;
use crate::proto::hashes::Sha1List;
use crate::proto::manifest::{FileName, FileProof, Manifest};
use crate::proto::units::{ChainState, Digest};
use crate::storage::destination::{Destination, DestinationEntry};
use crate::storage::error::{SourceChange, SourceChangedError, StorageError};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::limits::HASH_ATTEMPTS_MAX;
use crate::storage::sha1_list::Sha1ListBuilder;
use crate::storage::source::Source;

/// A file that was hashed, ready to be shared.
#[derive(Clone, Debug)]
pub struct HashedFile {
    manifest: Arc<Manifest>,
    fingerprint: Fingerprint,
}

impl HashedFile {
    /// Digests and layout of the file.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Identifies the file's state when it was hashed, for [`Engine::share_file`](crate::Engine::share_file).
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// What is at a destination already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExistingFile {
    /// Nothing.
    Absent,
    /// The same file: all its hashes match. With its fingerprint from before it was hashed.
    Same(PathBuf, Fingerprint),
    /// Another file.
    Differs(PathBuf),
    /// No regular file, so it is never replaced; the text names its kind.
    NotAFile(PathBuf, &'static str),
    /// The caller's progress function ended the comparison.
    Cancelled,
}

/// Hashes a file in one pass, and again when only its attributes changed meanwhile: then its content may have been written
/// too. `progress` gets the bytes hashed so far; `scratch_dir` takes lists that are too long for memory.
pub(crate) fn hash_file(
    hasher: &FileHasher,
    path: &Path,
    name: FileName,
    scratch_dir: Option<&Path>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<HashedFile, StorageError> {
    for _ in 0..HASH_ATTEMPTS_MAX {
        let source = Source::open(path)?;
        let hashes = hash_source(hasher, &source, scratch_dir, progress)?;
        if !source.has_new_attributes()? {
            return Ok(hashes.into_hashed_file(name, &source));
        }
        tracing::info!(path = %path.display(), "its mode or links changed while it was hashed; it is hashed again");
    }
    let change = SourceChange::Modified;
    Err(SourceChangedError { path: path.to_owned(), change }.into())
}

/// The hashes of a source's content.
struct SourceHashes {
    digests: Sha1List<Digest>,
    chain: Sha1List<ChainState>,
    whole: Digest,
}

impl SourceHashes {
    fn into_hashed_file(self, name: FileName, source: &Source) -> HashedFile {
        let (length, proof) = (Some(source.length()), FileProof::Whole(self.whole));
        let manifest = Manifest::from_lists(name, length, self.digests, proof, Some(self.chain))
            .expect("hashes of one file are consistent");
        let fingerprint =
            source.fingerprint().expect("a source that was opened by its path has a fingerprint");
        HashedFile { manifest: Arc::new(manifest), fingerprint }
    }
}

fn hash_source(
    hasher: &FileHasher,
    source: &Source,
    scratch_dir: Option<&Path>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<SourceHashes, StorageError> {
    source.advise_sequential();
    let geometry = Geometry::new(source.length()).expect("`Source::open` checks the length");
    let (mut digests, mut chain) = (Sha1ListBuilder::new(scratch_dir), Sha1ListBuilder::new(scratch_dir));
    let keep = |window: &WindowHashes<'_>| {
        digests.push(window.digests)?;
        chain.push(window.chain)
    };
    let whole = hasher.hash_into::<_, StorageError>(geometry, source, keep, progress)?;
    Ok(SourceHashes { digests: digests.finish()?, chain: chain.finish()?, whole })
}

/// Compares what is at the destination with a manifest. `progress` gets the bytes hashed so far and may end it.
pub(crate) fn compare_existing(
    hasher: &FileHasher,
    destination: &Path,
    manifest: &Manifest,
    progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
) -> Result<ExistingFile, StorageError> {
    let destination = Destination::resolve(destination, manifest.name())?;
    let path = destination.path();
    let length = match destination.existing_entry()? {
        DestinationEntry::Absent => return Ok(ExistingFile::Absent),
        DestinationEntry::Other(what) => return Ok(ExistingFile::NotAFile(path, what)),
        DestinationEntry::File { length } => length,
    };
    if !fits_length(manifest, length) {
        return Ok(ExistingFile::Differs(path));
    }
    let source = destination.open_existing()?;
    let fingerprint = source.fingerprint().expect("a complete file has a fingerprint");
    let geometry = Geometry::new(length).expect("the manifest has a file with as many pieces");
    let mut stated = manifest.digests().iter();
    let mut is_same = true;
    let is_cancelled = Cell::new(false);
    let compare = |window: &WindowHashes<'_>| -> Result<(), CompareStop> {
        is_same &= window.digests.iter().all(|digest| stated.next() == Some(*digest));
        if is_cancelled.get() { Err(CompareStop::Cancelled) } else { Ok(()) }
    };
    let report = |done| is_cancelled.set(is_cancelled.get() | progress(done).is_break());
    let found = match hasher.hash_into(geometry, &source, compare, report) {
        Ok(found) => found,
        Err(CompareStop::Cancelled) => return Ok(ExistingFile::Cancelled),
        Err(CompareStop::Failed(error)) => return Err(error),
    };
    is_same &= match manifest.proof() {
        FileProof::Whole(digest) => found == digest,
        FileProof::PiecesOnly(_) => true,
    };
    match manifest.unreadable_at() {
        _ if is_same => Ok(ExistingFile::Same(path, fingerprint)),
        // An unreadable list of hashes looks like other hashes.
        Some(place) => Err(StorageError::hashes_lost(place)),
        None => Ok(ExistingFile::Differs(path)),
    }
}

/// Whether a file of `length` bytes may be the manifest's.
pub(crate) fn fits_length(manifest: &Manifest, length: u64) -> bool {
    let geometry = manifest.geometry();
    if manifest.is_length_known() { geometry.length() == length } else { geometry.same_pieces(length) }
}

/// Why a comparison ends before the end of the file.
enum CompareStop {
    Failed(StorageError),
    Cancelled,
}

impl<E: Into<StorageError>> From<E> for CompareStop {
    fn from(error: E) -> CompareStop {
        CompareStop::Failed(error.into())
    }
}

impl WindowSource for Source {
    type Error = SourceChangedError;

    fn with_window<R>(
        &self,
        range: Range<u64>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, SourceChangedError> {
        self.with_bytes(range, read)
    }

    fn lends_copies(&self) -> bool {
        self.is_read()
    }

    fn will_need(&self, range: Range<u64>) {
        if !range.is_empty() {
            self.read_ahead(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::hash::Hasher;
    use crate::storage::error::StorageErrorKind;

    /// Hashes a file whose mode changes during the first `changes` passes; returns the number of passes.
    fn hash_while_mode_changes(changes: usize) -> (usize, Result<HashedFile, StorageError>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 100]).unwrap();
        let changed_at = || Fingerprint::at(file.path()).unwrap().status_changed;
        let passes = AtomicUsize::new(0);
        let change_mode = |_| {
            let before = changed_at();
            let pass = passes.fetch_add(1, Ordering::Relaxed);
            // Repeated for filesystems with coarse times.
            while pass < changes && changed_at() == before {
                file.as_file().set_permissions(std::fs::Permissions::from_mode(0o640)).unwrap();
            }
        };
        let hasher = FileHasher::new(Hasher::best(), Some(1)).unwrap();
        let name = FileName::new("f").unwrap();
        let hashed = hash_file(&hasher, file.path(), name, None, &change_mode);
        (passes.into_inner(), hashed)
    }

    #[test]
    fn a_file_whose_mode_changes_while_it_is_hashed_is_hashed_again() {
        for changes in 0..HASH_ATTEMPTS_MAX {
            let (passes, hashed) = hash_while_mode_changes(changes);
            assert_eq!((passes, hashed.is_ok()), (changes + 1, true));
        }
        let (passes, refused) = hash_while_mode_changes(HASH_ATTEMPTS_MAX);
        assert_eq!(passes, HASH_ATTEMPTS_MAX);
        assert!(matches!(refused.unwrap_err().kind, StorageErrorKind::Changed(SourceChange::Modified)));
    }
}
