//! What can be wrong with a tracker's durable state, in words for its operator.
//!
//! Invariant: every fault names the file, and says what to do next. Nothing here is guessed away: a file that is not exactly
//! what was acknowledged is refused.

use std::io;
use std::path::{Path, PathBuf};

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaFault {
    /// Another running tracker holds it.
    #[error("{path} is in use by another tracker; stop that one, or give this one another --data directory")]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// Its bytes are not what was written.
    #[error(
        "{path} is damaged{}: {what}; nothing was changed. Put back a copy of the directory from a backup, or move it \
         away to start over",
        near_offset(.offset)
    )]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where reading stopped making sense, in bytes from the start of the file, where that is known.
        offset: Option<u64>,
        /// What was found.
        what: String,
    },
    /// It is sound, but older than what was acknowledged.
    #[error(
        "{path} ends at change {found}, but change {acknowledged} was acknowledged: the newest part is damaged or the \
         file is an older copy; nothing was changed. Put back a newer copy, or remove {witness} to go on without the \
         lost changes",
        witness = .witness.display()
    )]
    RolledBack {
        /// The log.
        path: PathBuf,
        /// What says which change was acknowledged.
        witness: PathBuf,
        /// The last change in the file.
        found: u64,
        /// The last change acknowledged.
        acknowledged: u64,
    },
    /// It belongs to another cluster than the key.
    #[error(
        "{path} belongs to cluster {log}, but cluster.key to cluster {key}; put the two together that were together"
    )]
    Foreign {
        /// The log.
        path: PathBuf,
        /// The log's cluster.
        log: String,
        /// The key's cluster.
        key: String,
    },
    /// The filesystem has no space for it.
    #[error("no space left for {path}: free some space on its filesystem, writes then go on by themselves")]
    Full {
        /// The log.
        path: PathBuf,
    },
    /// The system refused an operation on it.
    #[error("{path}: {doing}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The consensus library gave up.
    #[error("the log of {path} has stopped: {reason}; start the tracker again")]
    Stopped {
        /// The log.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ReplicaFault {
    /// An I/O error in doing something to a path.
    pub(super) fn io(path: &Path, doing: &'static str, source: io::Error) -> ReplicaFault {
        if is_full(&source) {
            ReplicaFault::Full { path: path.to_owned() }
        } else {
            ReplicaFault::Io { path: path.to_owned(), doing, source }
        }
    }

    /// Whether it can pass by itself, so that opening the log again is worth a try.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, ReplicaFault::Full { .. } | ReplicaFault::Io { .. } | ReplicaFault::Stopped { .. })
    }
}

/// Whether an error means that there is no space, or no quota.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn near_offset(offset: &Option<u64>) -> String {
    offset.map(|at| format!(" near byte {at}")).unwrap_or_default()
}

/// What goes wrong inside a transaction, before it is known in which file.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database's own error.
    #[error(transparent)]
    Database(#[from] redb::Error),
    /// A row is not in the form in which rows are written.
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
    /// The fault that this is, in the log at `path`; `offset` is where the file was read last.
    pub(super) fn into_fault(self, path: &Path, offset: Option<u64>) -> ReplicaFault {
        let path = path.to_owned();
        match self {
            StoreError::Database(redb::Error::Io(source)) | StoreError::Stream(source) => match source.kind()
            {
                io::ErrorKind::UnexpectedEof => {
                    ReplicaFault::Damaged { path, offset, what: "it ends too early".to_owned() }
                }
                // What was read is at fault, not the reading.
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
