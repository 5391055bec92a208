//! Why the engine could not do what it was asked. Failures of files are storage's.

use std::io;
use std::net::SocketAddr;

use crate::hash::UnsupportedKind;

/// An engine that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// io_uring was demanded and is not to be had.
    #[error("io_uring is not available here ({source}); `--io epoll` works everywhere")]
    Uring {
        /// What the system says.
        source: io::Error,
    },
    /// This CPU lacks what the demanded hashing needs.
    #[error(transparent)]
    Hash(#[from] UnsupportedKind),
    /// The system gives no more threads or random bytes.
    #[error("cannot start a worker: {0}")]
    System(io::Error),
}
