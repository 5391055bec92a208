//! What an engine is started with.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use crate::hash::HashKind;
use crate::proto::ticket::SecretKey;

/// Which back end moves bytes between sockets and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where the kernel and the container allow it, else epoll; one line of log says which.
    #[default]
    Auto,
    /// io_uring, or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// Not a name of a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the back ends are auto, uring and epoll")]
pub struct UnknownIoName;

impl FromStr for IoChoice {
    type Err = UnknownIoName;

    fn from_str(name: &str) -> Result<IoChoice, UnknownIoName> {
        match name {
            "auto" => Ok(IoChoice::Auto),
            "uring" => Ok(IoChoice::Uring),
            "epoll" => Ok(IoChoice::Epoll),
            _ => Err(UnknownIoName),
        }
    }
}

/// Whether pieces are sent without the kernel's copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopyChoice {
    /// By io_uring, to peers on other machines, for as long as the kernel really avoids the copy.
    #[default]
    Auto,
    /// Never.
    Off,
    /// By io_uring, to every peer, whatever the kernel makes of it: for tests and measurements.
    Always,
}

/// Not a name of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("zero copy is auto, off or always")]
pub struct UnknownZeroCopyName;

impl FromStr for ZeroCopyChoice {
    type Err = UnknownZeroCopyName;

    fn from_str(name: &str) -> Result<ZeroCopyChoice, UnknownZeroCopyName> {
        match name {
            "auto" => Ok(ZeroCopyChoice::Auto),
            "off" => Ok(ZeroCopyChoice::Off),
            "always" => Ok(ZeroCopyChoice::Always),
            _ => Err(UnknownZeroCopyName),
        }
    }
}

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where peers connect; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The back end.
    pub io: IoChoice,
    /// Sends without a copy.
    pub zero_copy: ZeroCopyChoice,
    /// The hashing; `None`: the fastest that this CPU has.
    pub hash: Option<HashKind>,
    /// Threads that receive, verify and write; `None`: one a core, at most [`WORKERS_MAX`].
    pub workers: Option<NonZeroUsize>,
    /// Bytes a second that all peers together may fetch from this node.
    pub limit_up: Option<NonZeroU64>,
    /// Bytes a second that all downloads together may fetch.
    pub limit_down: Option<NonZeroU64>,
    /// This node's key.
    pub secret: SecretKey,
    /// A directory that nobody else may write, for lists of hashes that are too long for memory (40 bytes for each piece of
    /// files of more than 32 GiB); `None`: they stay in memory.
    pub scratch_dir: Option<PathBuf>,
}

/// Most worker threads that `workers: None` starts: more than this many cores are never the limit of a network card.
pub const WORKERS_MAX: usize = 16;
