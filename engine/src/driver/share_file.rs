//! The file of a share: watched by its path, and open only while consumers fetch from it.
//!
//! Invariants: no worker and no command calls the filesystem here, since it may never answer; the threads of that
//! filesystem do ([`FilesystemThreads`]), also to close a file. What they found last is remembered.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::limits::SOURCE_IDLE_MS;
use crate::lock::lock;
use crate::storage::error::{SourceChange, StorageError, StorageErrorKind, StorageOperation};
use crate::storage::filesystem_threads::{FilesystemId, FilesystemThreads};
use crate::storage::fingerprint::{Fingerprint, FingerprintMatch};
use crate::storage::source::Source;

/// The file of a share.
#[derive(Debug)]
pub(crate) enum ShareFile {
    /// The partial file of a download, open as long as that runs.
    Partial(Arc<ServedSource>),
    /// A complete file.
    Whole(WholeFile),
}

/// A complete file, open or not.
#[derive(Debug)]
pub(crate) struct WholeFile {
    path: PathBuf,
    filesystem: FilesystemId,
    state: Mutex<WholeFileState>,
}

#[derive(Debug)]
struct WholeFileState {
    /// Of the file with the content that was hashed.
    fingerprint: Fingerprint,
    source: Option<Arc<ServedSource>>,
    /// Since when no consumer has needed the source, in milliseconds of the engine's clock.
    idle_since_ms: Option<u64>,
}

/// What looking at a file found.
#[derive(Debug)]
pub(crate) enum SourceState {
    Unchanged,
    /// Its content has to be hashed before it counts.
    NewAttributes,
    Changed(SourceChange),
    /// It cannot be read now, for this reason.
    Unreadable(String),
}

impl From<FingerprintMatch> for SourceState {
    fn from(found: FingerprintMatch) -> SourceState {
        match found {
            FingerprintMatch::Same => SourceState::Unchanged,
            FingerprintMatch::AttributesOnly => SourceState::NewAttributes,
            FingerprintMatch::Changed(change) => SourceState::Changed(change),
        }
    }
}

/// A source that is closed by a thread of its filesystem, since that may never answer. Any thread may drop it.
#[derive(Debug)]
pub(crate) struct ServedSource {
    /// `None` only while it is dropped.
    source: Option<Source>,
    filesystem: FilesystemId,
    threads: FilesystemThreads,
}

impl ServedSource {
    /// A source of this filesystem.
    pub(crate) fn new(source: Source, filesystem: FilesystemId, threads: &FilesystemThreads) -> ServedSource {
        ServedSource { source: Some(source), filesystem, threads: threads.clone() }
    }

    /// The filesystem of the file.
    pub(crate) fn filesystem(&self) -> FilesystemId {
        self.filesystem
    }
}

impl Deref for ServedSource {
    type Target = Source;

    fn deref(&self) -> &Source {
        self.source.as_ref().expect("only drop takes it")
    }
}

impl Drop for ServedSource {
    fn drop(&mut self) {
        let source = self.source.take();
        // Without a thread it is closed here.
        let _ = self.threads.submit(self.filesystem, move || drop(source));
    }
}

impl ShareFile {
    /// The filesystem of the file.
    pub(crate) fn filesystem(&self) -> FilesystemId {
        match self {
            ShareFile::Partial(source) => source.filesystem(),
            ShareFile::Whole(file) => file.filesystem,
        }
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            ShareFile::Partial(source) => source.path(),
            ShareFile::Whole(file) => &file.path,
        }
    }

    /// The open file, if it is open.
    pub(crate) fn source(&self) -> Option<Arc<ServedSource>> {
        match self {
            ShareFile::Partial(source) => Some(Arc::clone(source)),
            ShareFile::Whole(file) => lock(&file.state).source.clone(),
        }
    }

    /// The fingerprint of the file with the content that was hashed; `None` for a partial file.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            ShareFile::Partial(_) => None,
            ShareFile::Whole(file) => Some(lock(&file.state).fingerprint),
        }
    }

    /// The content is still what was hashed, and the file has this fingerprint now.
    pub(crate) fn set_fingerprint(&self, fingerprint: Fingerprint) {
        if let ShareFile::Whole(file) = self {
            lock(&file.state).fingerprint = fingerprint;
        }
    }

    /// Looks at the file. Blocks.
    pub(crate) fn examine(&self) -> SourceState {
        match self {
            ShareFile::Partial(source) => match source.check_now() {
                Ok(()) => SourceState::Unchanged,
                Err(changed) => SourceState::Changed(changed.change),
            },
            ShareFile::Whole(file) => {
                let expected = lock(&file.state).fingerprint;
                match Fingerprint::at(&file.path) {
                    Ok(now) => expected.compare(&now).into(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        SourceState::Changed(SourceChange::Removed)
                    }
                    Err(error) => SourceState::Unreadable(format!("{}: {error}", file.path.display())),
                }
            }
        }
    }

    /// Opens the file, unless it is open, and says what it is compared with what was hashed. Blocks.
    pub(crate) fn open(&self, threads: &FilesystemThreads) -> Result<Arc<ServedSource>, SourceState> {
        let file = match self {
            ShareFile::Partial(source) => return Ok(Arc::clone(source)),
            ShareFile::Whole(file) => file,
        };
        if let Some(source) = self.source() {
            return Ok(source);
        }
        let source = open_path(&file.path)?;
        let expected = lock(&file.state).fingerprint;
        let now = source.fingerprint().expect("a file that was opened by its path has a fingerprint");
        if let FingerprintMatch::Changed(change) = expected.compare(&now) {
            return Err(SourceState::Changed(change));
        }
        let source = Arc::new(ServedSource::new(source, file.filesystem, threads));
        let mut state = lock(&file.state);
        state.idle_since_ms = None;
        // Another consumer may have come at the same time.
        Ok(Arc::clone(state.source.get_or_insert(source)))
    }

    /// Closes a complete file that no consumer has needed for [`SOURCE_IDLE_MS`].
    pub(crate) fn close_if_idle(&self, has_consumers: bool, now_ms: u64) {
        let ShareFile::Whole(file) = self else { return };
        let mut state = lock(&file.state);
        if has_consumers || state.source.is_none() {
            state.idle_since_ms = None;
        } else if now_ms.saturating_sub(*state.idle_since_ms.get_or_insert(now_ms)) >= SOURCE_IDLE_MS {
            state.source = None;
        }
    }
}

impl WholeFile {
    /// The file at an absolute path, which had this fingerprint with the content that was hashed.
    pub(crate) fn new(path: PathBuf, fingerprint: Fingerprint) -> WholeFile {
        let state = WholeFileState { fingerprint, source: None, idle_since_ms: None };
        let filesystem = FilesystemId::of_device(fingerprint.device);
        WholeFile { path, filesystem, state: Mutex::new(state) }
    }
}

/// Opens a file to be served or hashed. Blocks.
pub(crate) fn open_path(path: &Path) -> Result<Source, SourceState> {
    Source::open(path).map_err(|error| match error.kind {
        StorageErrorKind::Missing => SourceState::Changed(SourceChange::Removed),
        StorageErrorKind::Changed(change) => SourceState::Changed(change),
        StorageErrorKind::NotAFile(_) => SourceState::Changed(SourceChange::Replaced),
        _ => SourceState::Unreadable(error.to_string()),
    })
}

/// The error of a filesystem that does not answer.
pub(crate) fn no_answer_error(path: &Path) -> StorageError {
    StorageError {
        operation: StorageOperation::Open,
        path: path.to_owned(),
        kind: StorageErrorKind::NoAnswer,
    }
}
