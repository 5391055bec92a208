//! Why an engine does not start. Errors of files are [`StorageError`](crate::storage::error::StorageError).

use std::io;
use std::net::SocketAddr;

use crate::hash::UnsupportedKind;

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// io_uring was demanded and is not available.
    #[error("io_uring is not available here ({source}); `--io epoll` works everywhere")]
    Uring {
        /// The system's error.
        source: io::Error,
    },
    /// This CPU lacks what the demanded hashing needs.
    #[error(transparent)]
    Hash(#[from] UnsupportedKind),
    /// The system gives no threads, event loops or random bytes.
    #[error("cannot start a worker: {0}")]
    System(io::Error),
}
