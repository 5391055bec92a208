//! What an engine tells about its shares and downloads: snapshots, taken under a lock and owned by whoever asked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::proto::manifest::FileKey;
use crate::proto::units::PieceCount;

/// One file that this node serves.
#[derive(Clone, Debug)]
pub struct ShareStatus {
    /// Which file.
    pub key: FileKey,
    /// Pieces that can be served now.
    pub held: PieceCount,
    /// Pieces of the file.
    pub pieces: PieceCount,
    /// Bytes of pieces sent since the share began.
    pub sent_bytes: u64,
    /// Connections open to consumers.
    pub consumers: usize,
    /// Why nothing is served any more: the source file is not what was hashed.
    pub source_change: Option<String>,
}

/// What became of pieces that a node sent, or tried to send, without the kernel's copy. What it sent the ordinary way is not
/// in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroCopySends {
    /// Bytes that left from the pages of the mapping.
    pub mapped_bytes: u64,
    /// Bytes that the kernel copied after all.
    pub copied_bytes: u64,
    /// Sends that the kernel refused since too much memory was locked; they went the ordinary way.
    pub refused: u64,
}

/// What a download is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownloadPhase {
    /// Pieces arrive, or are asked for.
    Transferring,
    /// Nothing can go on; it goes on by itself when the cause is gone.
    Waiting(WaitReason),
    /// The user stopped it for now.
    Paused,
    /// Bytes that are there are hashed: at the start what an earlier attempt left, at the end everything once more, where
    /// there was no good chain.
    Checking,
    /// All is verified and written; it is being made durable.
    Syncing,
    /// Under its name, flushed to disk. The end.
    Durable,
    /// It cannot succeed. The end.
    Failed(DownloadFailure),
    /// The user gave it up. The end.
    Cancelled,
}

impl DownloadPhase {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, DownloadPhase::Durable | DownloadPhase::Failed(_) | DownloadPhase::Cancelled)
    }
}

/// Why a download waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitReason {
    /// No connected peer has any of the pieces that are missing.
    #[error("no peer has what is missing ({missing} pieces, the first is {first_missing})")]
    NoPeers {
        /// Pieces still missing.
        missing: u32,
        /// The first of them.
        first_missing: u32,
    },
    /// As [`WaitReason::NoPeers`], and the last source was dropped for sending bad pieces.
    #[error(
        "the last peers were dropped, because they sent bytes that are not the file's ({missing} pieces are missing)"
    )]
    BadPieces {
        /// Pieces still missing.
        missing: u32,
    },
    /// As [`WaitReason::NoPeers`], and a source has changed its file since.
    #[error(
        "a peer that had what is missing has changed its file and serves it no more ({missing} pieces are missing)"
    )]
    SourceChanged {
        /// Pieces still missing.
        missing: u32,
    },
    /// The filesystem is full.
    #[error("the disk is full: {needed} bytes are needed in {}, {free} are free", directory.display())]
    DiskFull {
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// Where.
        directory: PathBuf,
    },
    /// The file cannot be written.
    #[error("{0}")]
    Io(String),
    /// The ticket has expired and no fresh one has come.
    #[error("the trackers have not renewed the permission to fetch")]
    Ticket,
}

impl WaitReason {
    /// Whether it is peers, or their consent, that is wanting.
    #[must_use]
    pub fn is_for_peers(&self) -> bool {
        !matches!(self, WaitReason::DiskFull { .. } | WaitReason::Io(_))
    }
}

/// Why a download failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownloadFailure {
    /// Every piece is what the uploader stated, but together they are not the file that was stated.
    #[error(
        "the pieces are those that the uploader stated, but their whole has another SHA-1 ({found} instead of {stated}): what was uploaded is not one file"
    )]
    FalseManifest {
        /// The whole as it is.
        found: String,
        /// The whole as the uploader stated it.
        stated: String,
    },
    /// Something else has taken the final name meanwhile.
    #[error("{} exists; the complete copy stays in {}", path.display(), part.display())]
    Exists {
        /// The final name.
        path: PathBuf,
        /// Where the proven bytes are.
        part: PathBuf,
    },
    /// The file cannot be completed on this disk.
    #[error("{0}")]
    Io(String),
}

/// What held a download back most of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// Nobody had what was missing.
    Peers,
    /// Bytes were asked for and on their way.
    Network,
    /// Bytes were there and being proven.
    Hashing,
    /// Bytes were proven and being written.
    Disk,
}

impl std::fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bottleneck::Peers => "waiting for peers",
            Bottleneck::Network => "network",
            Bottleneck::Hashing => "hashing",
            Bottleneck::Disk => "disk",
        })
    }
}

/// A download as it stands.
#[derive(Clone, Debug)]
pub struct DownloadProgress {
    /// Changes with every change worth showing.
    pub version: u64,
    /// What it is doing.
    pub phase: DownloadPhase,
    /// Length of the file in bytes.
    pub total_bytes: u64,
    /// Bytes verified and written, holes of zeros included.
    pub verified_bytes: u64,
    /// Piece bytes received from peers, wrong and duplicate ones included.
    pub received_bytes: u64,
    /// Piece bytes received that were there already.
    pub duplicate_bytes: u64,
    /// Bytes of those that an earlier attempt had left: recorded as durable, or found at the start.
    pub resumed_bytes: u64,
    /// Bytes of an earlier attempt's that were hashed at the start, whatever came of it.
    pub checked_bytes: u64,
    /// Verified bytes a second, over the last seconds.
    pub verified_bytes_per_s: u64,
    /// Peers connected.
    pub peers: usize,
    /// Passes over the whole file that were needed to prove it: 0 with a good chain, else 1.
    pub sequential_passes: u32,
    /// Bytes that went either way on connections to peers: pieces, frames' heads, handshakes, requests.
    pub wire_bytes: u64,
    /// Time that all workers together spent proving pieces.
    pub hashing_time: Duration,
    /// Time that all workers together spent writing them.
    pub writing_time: Duration,
    /// Since its start.
    pub age: Duration,
    /// From its start until the first piece from a peer was proven.
    pub first_verified_after: Option<Duration>,
    /// What held it back most.
    pub limited_by: Bottleneck,
    /// From its start until all was verified and written.
    pub proven_after: Option<Duration>,
    /// From its start until it was durable under its name.
    pub durable_after: Option<Duration>,
    /// The final name.
    pub path: PathBuf,
}

/// A peer that sent bytes which are not the piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectPeer {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it did.
    pub reason: String,
}
