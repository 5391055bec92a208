//! Snapshots of an engine's shares and downloads, owned by the caller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::manifest::{FileKey, Manifest};
use crate::proto::units::PieceCount;
use crate::proto::{DisconnectReason, PeerTroubleKind, PeerTroubles};
use crate::storage::error::{describe_lack, describe_quota};
use crate::storage::fingerprint::Fingerprint;

/// Reads the manifest of a shared file, when the file has to be hashed again; `None`: it cannot be read now.
pub type ManifestLoader = Arc<dyn Fn() -> Option<Arc<Manifest>> + Send + Sync>;

/// A file that this node serves.
#[derive(Clone, Debug)]
pub struct ShareStatus {
    /// The tracker's name of the file.
    pub key: FileKey,
    /// Pieces that can be served now.
    pub held: PieceCount,
    /// Pieces of the file.
    pub pieces: PieceCount,
    /// Bytes of pieces sent since the share began.
    pub sent_bytes: u64,
    /// Open connections to consumers.
    pub consumers: usize,
    /// How the source file differs from what was hashed, if it does; then nothing is served.
    pub source_change: Option<String>,
    /// Why the file cannot be read now, if so. It is served again by itself.
    pub trouble: Option<String>,
    /// Of the file with the content that was hashed; `None` for a partial file. It changes when the file was hashed again
    /// because its attributes had changed.
    pub fingerprint: Option<Fingerprint>,
}

/// Figures of sends that avoided the kernel's copy or tried to. Other sends are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroCopySends {
    /// Bytes sent from the pages of the mapping.
    pub mapped_bytes: u64,
    /// Bytes that the kernel copied all the same.
    pub copied_bytes: u64,
    /// Sends that the kernel refused because too much memory was locked; they were sent with a copy.
    pub refused: u64,
}

/// What a download is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownloadPhase {
    /// Pieces arrive or are requested.
    Transferring,
    /// Nothing can go on; the download continues by itself when the reason is gone.
    Waiting(WaitReason),
    /// The user paused it.
    Paused,
    /// Bytes on the disk are hashed: at the start those of an earlier attempt, at the end the whole file where the chain
    /// proves nothing.
    Checking,
    /// All pieces are verified and written; the file is made durable.
    Syncing,
    /// Durable under its name. The download has ended.
    Durable,
    /// The download has failed and ended.
    Failed(DownloadFailure),
    /// The user cancelled it. The download has ended.
    Cancelled,
}

impl DownloadPhase {
    /// Whether the download has ended.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, DownloadPhase::Durable | DownloadPhase::Failed(_) | DownloadPhase::Cancelled)
    }
}

/// Why a download waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitReason {
    /// No connected peer has any of the missing pieces.
    #[error("{}", describe_no_peers(*missing, *first_missing, troubles))]
    NoPeers {
        /// Number of missing pieces.
        missing: u32,
        /// Index of the first missing piece.
        first_missing: u32,
        /// Peers that cannot be fetched from.
        troubles: PeerTroubles,
    },
    /// As [`WaitReason::NoPeers`], after the last source was dropped for bad pieces.
    #[error(
        "the last peers were dropped because they sent wrong bytes ({}){}",
        describe_missing(*missing),
        describe_others(troubles, &PeerTroubleKind::Banned)
    )]
    BadPieces {
        /// Number of missing pieces.
        missing: u32,
        /// Peers that cannot be fetched from.
        troubles: PeerTroubles,
    },
    /// As [`WaitReason::NoPeers`], after the file of a source has changed.
    #[error(
        "the file of a peer has changed, so the peer no longer serves it ({}){}",
        describe_missing(*missing),
        describe_others(troubles, &PeerTroubleKind::Ended(DisconnectReason::SourceChanged))
    )]
    SourceChanged {
        /// Number of missing pieces.
        missing: u32,
        /// Peers that cannot be fetched from.
        troubles: PeerTroubles,
    },
    /// The filesystem is full.
    #[error("no space left in {}: {}", directory.display(), describe_lack(*needed, *free))]
    DiskFull {
        /// Bytes still to be written; those that are reserved already are not counted.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// Directory of the partial file.
        directory: PathBuf,
    },
    /// The user's quota is full.
    #[error("no space left in {}: {}", directory.display(), describe_quota(*needed))]
    QuotaFull {
        /// Bytes still to be written; those that are reserved already are not counted.
        needed: u64,
        /// Directory of the partial file.
        directory: PathBuf,
    },
    /// The partial file cannot be written.
    #[error("{0}")]
    Io(String),
    /// The ticket has expired and was not renewed.
    #[error("the tracker has not renewed the permission to fetch")]
    Ticket,
}

fn describe_no_peers(missing: u32, first_missing: u32, troubles: &PeerTroubles) -> String {
    if troubles.is_empty() {
        return format!("no peer has the missing pieces ({missing} missing, the first is {first_missing})");
    }
    format!("{troubles} ({})", describe_missing(missing))
}

fn describe_missing(pieces: u32) -> String {
    match pieces {
        1 => "1 piece is missing".into(),
        pieces => format!("{pieces} pieces are missing"),
    }
}

/// The peers with another trouble than the message tells already.
fn describe_others(troubles: &PeerTroubles, told: &PeerTroubleKind) -> String {
    let others = troubles.except(told);
    if others.is_empty() { String::new() } else { format!("; {others}") }
}

impl WaitReason {
    /// Whether peers or tickets are missing, as opposed to a failing disk.
    #[must_use]
    pub fn is_for_peers(&self) -> bool {
        !matches!(self, WaitReason::DiskFull { .. } | WaitReason::QuotaFull { .. } | WaitReason::Io(_))
    }
}

/// Why a download failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownloadFailure {
    /// Every piece has its stated digest, but the whole file does not.
    #[error(
        "every piece matches the uploader's list, but the whole file has another SHA-1 ({found} instead of {stated}): the upload was not one file"
    )]
    FalseManifest {
        /// Digest of the file.
        found: String,
        /// Digest that the uploader stated.
        stated: String,
    },
    /// Another file took the final name meanwhile.
    #[error("{} exists; the complete copy stays in {}", path.display(), part.display())]
    Exists {
        /// The final name.
        path: PathBuf,
        /// The complete partial file.
        part: PathBuf,
    },
    /// The partial file was deleted, moved or replaced, or its directory is gone.
    #[error("{message}")]
    FileLost {
        /// What happened to which file.
        message: String,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// The file cannot be completed on this disk.
    #[error("{0}")]
    Io(String),
    /// The tracker no longer lets this node fetch the content. The partial file stays.
    #[error("{message}")]
    Withdrawn {
        /// What became of it.
        cause: WithdrawalCause,
        /// The tracker's words.
        message: String,
    },
}

/// Why a tracker no longer lets a node fetch content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawalCause {
    /// The file is not listed any more.
    Removed,
    /// Other content is listed under its name.
    Replaced,
    /// The user is not a member of the group any more.
    NotMember,
}

/// What held a download back for most of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// No peer had the missing pieces.
    Peers,
    /// Requested bytes were in flight.
    Network,
    /// Received bytes were being hashed.
    Hashing,
    /// Verified bytes were being written.
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

/// A check of bytes on the disk that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckProgress {
    /// Bytes hashed.
    pub done_bytes: u64,
    /// Bytes to hash.
    pub total_bytes: u64,
}

/// Phase and figures of a download.
#[derive(Clone, Debug)]
pub struct DownloadProgress {
    /// Increases with every change worth showing.
    pub version: u64,
    /// What the download is doing.
    pub phase: DownloadPhase,
    /// Length of the file in bytes.
    pub total_bytes: u64,
    /// Bytes verified and written, zero pieces included.
    pub verified_bytes: u64,
    /// Piece bytes received from peers, wrong and duplicate ones included.
    pub received_bytes: u64,
    /// Piece bytes received that were held already.
    pub duplicate_bytes: u64,
    /// Verified bytes of an earlier attempt: recorded as durable, or found by hashing.
    pub resumed_bytes: u64,
    /// Bytes of an earlier attempt that were hashed at the start.
    pub checked_bytes: u64,
    /// The check of bytes on the disk, while it runs.
    pub check: Option<CheckProgress>,
    /// Verified bytes a second over the last seconds; while a check runs, hashed bytes a second.
    pub verified_bytes_per_s: u64,
    /// Connected peers.
    pub peers: usize,
    /// Peers that cannot be fetched from.
    pub peer_troubles: PeerTroubles,
    /// Passes over the whole file that were needed to prove it: 0 with a good chain, else 1.
    pub sequential_passes: u32,
    /// Bytes moved in both directions on connections to peers: pieces, frame heads, handshakes, requests.
    pub wire_bytes: u64,
    /// Time spent hashing, summed over all workers.
    pub hashing_time: Duration,
    /// Time spent writing, summed over all workers.
    pub writing_time: Duration,
    /// Time since the start.
    pub age: Duration,
    /// From the start until the first piece from a peer was verified.
    pub first_verified_after: Option<Duration>,
    /// What held the download back most.
    pub limited_by: Bottleneck,
    /// From the start until all pieces were verified and written.
    pub proven_after: Option<Duration>,
    /// From the start until the file was durable under its name.
    pub durable_after: Option<Duration>,
    /// The final name.
    pub path: PathBuf,
}

/// A peer that sent pieces with wrong bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectPeer {
    /// Address on which the peer listens.
    pub address: SocketAddr,
    /// What the peer did wrong, for the tracker's record.
    pub reason: String,
}
