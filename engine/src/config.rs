//! The configuration of an engine.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use crate::hash::HashKind;
use crate::proto::ticket::SecretKey;

/// Which back end moves bytes between sockets and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where kernel and container allow it, else epoll; the log says which.
    #[default]
    Auto,
    /// io_uring; without it the engine does not start.
    Uring,
    /// epoll.
    Epoll,
}

/// A name that is no back end.
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

/// Whether pieces are sent without the kernel's copy (zero-copy sends).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopyChoice {
    /// With io_uring, to peers on other machines, as long as the kernel really avoids the copy.
    #[default]
    Auto,
    /// Never.
    Off,
    /// With io_uring, to every peer, even when the kernel copies: for tests and measurements.
    Always,
}

/// A name that is no such choice.
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

/// The configuration of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Address on which peers connect; with port 0 the system chooses one.
    pub listen: SocketAddr,
    /// The I/O back end.
    pub io: IoChoice,
    /// Zero-copy sends.
    pub zero_copy: ZeroCopyChoice,
    /// The hashing back end; `None`: the fastest that this CPU has.
    pub hash: Option<HashKind>,
    /// Worker threads, which receive, verify and write; `None`: one a core, at most [`WORKERS_MAX`].
    pub workers: Option<NonZeroUsize>,
    /// Bytes a second that all peers together may fetch from this node; `None`: no limit.
    pub limit_up: Option<NonZeroU64>,
    /// Bytes a second that all downloads together may fetch; `None`: no limit.
    pub limit_down: Option<NonZeroU64>,
    /// This node's secret key.
    pub secret: SecretKey,
    /// A directory that only this user may write, for lists of hashes that are too long for memory (40 bytes for each piece
    /// of files of more than 32 GiB); `None`: the lists stay in memory.
    pub scratch_dir: Option<PathBuf>,
}

/// Most worker threads that `workers: None` starts: more cores never make a network card faster. It stands here because
/// callers compare with it.
pub const WORKERS_MAX: usize = 16;
