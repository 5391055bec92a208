//! Faults of a tracker's durable state, in words for its operator.
//!
//! Invariant: every fault names the file and says what to do next. Nothing is repaired by guess: a file that is not exactly
//! what was acknowledged is refused.

use std::io;
use std::path::{Path, PathBuf};

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages show the fields")]
pub enum ReplicaFault {
    /// Another running tracker has locked it.
    #[error("{path} is in use by another tracker; stop that one, or give this one another --data directory")]
    InUse { path: PathBuf },
    /// Its bytes are not those that were written.
    #[error(
        "{path} is damaged{}: {what}; nothing was changed. Put back a copy of the directory from a backup, or move it \
         away to start over",
        near_offset(.offset)
    )]
    Damaged { path: PathBuf, offset: Option<u64>, what: String },
    /// It is sound, but older than the last acknowledged change.
    #[error(
        "{path} ends at change {found}, but change {acknowledged} was acknowledged: the newest part is damaged or the \
         file is an older copy; nothing was changed. Put back a newer copy, or remove {witness} to go on without the \
         lost changes",
        witness = .witness.display()
    )]
    RolledBack { path: PathBuf, witness: PathBuf, found: u64, acknowledged: u64 },
    /// It belongs to another cluster than the key.
    #[error(
        "{path} belongs to cluster {log}, but cluster.key to cluster {key}; put back the log or the key that belong together"
    )]
    Foreign { path: PathBuf, log: String, key: String },
    /// The filesystem is full.
    #[error("no space left for {path}: free some space on its filesystem; writes then resume by themselves")]
    Full { path: PathBuf },
    /// An operation of the system failed.
    #[error("{path}: {doing}: {source}")]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    /// The consensus library has stopped.
    #[error("the log of {path} has stopped: {reason}; start the tracker again")]
    Stopped { path: PathBuf, reason: String },
}

impl ReplicaFault {
    /// An I/O error of an operation on a path.
    pub(super) fn io(path: &Path, doing: &'static str, source: io::Error) -> ReplicaFault {
        if is_full(&source) {
            ReplicaFault::Full { path: path.to_owned() }
        } else {
            ReplicaFault::Io { path: path.to_owned(), doing, source }
        }
    }

    /// Whether the fault can pass, so that the log may be opened again later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, ReplicaFault::Full { .. } | ReplicaFault::Io { .. } | ReplicaFault::Stopped { .. })
    }
}

/// Whether an error means that the disk or the quota is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn near_offset(offset: &Option<u64>) -> String {
    offset.map(|at| format!(" near byte {at}")).unwrap_or_default()
}

/// An error inside a transaction, without the name of the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database's own error.
    #[error(transparent)]
    Database(#[from] redb::Error),
    /// A row or a page has an unexpected form.
    #[error("{0}")]
    Unreadable(String),
    /// A stream of rows could not be read or written.
    #[error(transparent)]
    Stream(#[from] io::Error),
}

macro_rules! from_database {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> StoreError {
                StoreError::Database(error.into())
            }
        }
    )*};
}

from_database!(StorageError, TableError, TransactionError, CommitError, DatabaseError, SetDurabilityError);

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> StoreError {
        StoreError::Unreadable(format!("a row cannot be read: {error}"))
    }
}

impl StoreError {
    /// The fault for the log at `path`. `offset` is where the file was read last, in bytes.
    pub(super) fn into_fault(self, path: &Path, offset: Option<u64>) -> ReplicaFault {
        let path = path.to_owned();
        match self {
            StoreError::Database(redb::Error::Io(source)) | StoreError::Stream(source) => match source.kind()
            {
                io::ErrorKind::UnexpectedEof => {
                    ReplicaFault::Damaged { path, offset, what: "it ends too early".to_owned() }
                }
                // The content was wrong, not the reading.
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                    ReplicaFault::Damaged { path, offset, what: source.to_string() }
                }
                _ => ReplicaFault::io(&path, "use the log", source),
            },
            StoreError::Database(redb::Error::DatabaseAlreadyOpen) => ReplicaFault::InUse { path },
            StoreError::Database(error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed)) => {
                ReplicaFault::Stopped { path, reason: error.to_string() }
            }
            StoreError::Database(error) => ReplicaFault::Damaged { path, offset, what: error.to_string() },
            StoreError::Unreadable(what) => ReplicaFault::Damaged { path, offset, what },
        }
    }
}
