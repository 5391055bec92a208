//! What answers are made of: one row of each list, and the state of one transfer.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exit::ClientFault;

/// What a transfer is doing, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TransferState {
    /// Pieces arrive, or are asked for.
    Downloading,
    /// It waits for what `cause` says and goes on by itself.
    Waiting,
    /// The user stopped it for now.
    Paused,
    /// What is at its destination is compared with it, `verified_bytes` so far, before anything is fetched.
    Comparing,
    /// One pass over the whole decides.
    Checking,
    /// All is proven; it is being made durable.
    Syncing,
    /// Durable under its name.
    Complete,
    /// It cannot succeed.
    Failed,
    /// The user gave it up.
    Cancelled,
}

impl TransferState {
    /// Whether nothing more will happen.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, TransferState::Complete | TransferState::Failed | TransferState::Cancelled)
    }
}

/// One download as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferRow {
    /// The group.
    pub(crate) group: String,
    /// The file's name there.
    pub(crate) file: String,
    /// What it is doing.
    pub(crate) state: TransferState,
    /// Why it waits, is paused or failed, with the exit code that a command ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<ClientFault>,
    /// The final name.
    pub(crate) path: PathBuf,
    /// Length of the file in bytes.
    pub(crate) total_bytes: u64,
    /// Bytes proven and written.
    pub(crate) verified_bytes: u64,
    /// Bytes received from peers.
    pub(crate) received_bytes: u64,
    /// Bytes received in vain.
    pub(crate) duplicate_bytes: u64,
    /// Bytes that an earlier attempt had left.
    #[serde(default)]
    pub(crate) resumed_bytes: u64,
    /// Proven bytes a second.
    pub(crate) rate: u64,
    /// Peers connected.
    pub(crate) peers: usize,
    /// The uploader gave no SHA-1 of the whole, so that only the pieces can be proven.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pieces_only: bool,
    /// Passes over the whole file that its proof took.
    pub(crate) sequential_passes: u32,
    /// What held it back most.
    pub(crate) limited_by: String,
    /// From its start until all was proven and written, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proven_ms: Option<u64>,
    /// From its start until it was durable, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) durable_ms: Option<u64>,
    /// For those who measure, once it is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<TransferFigures>,
}

/// What a download took, finely. Spans are microseconds from its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferFigures {
    /// Until this row was made: places the other spans on the clock of whoever reads it.
    pub(crate) age_us: u64,
    /// Until the first piece from a peer was proven; none where nothing had to be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_verified_us: Option<u64>,
    /// Until all was proven and written.
    pub(crate) proven_us: u64,
    /// Until it was durable.
    pub(crate) durable_us: u64,
    /// Bytes either way on connections to peers.
    pub(crate) wire_bytes: u64,
    /// Time of all workers together for proving.
    pub(crate) hashing_us: u64,
    /// Time of all workers together for writing.
    pub(crate) writing_us: u64,
    /// From the request for a piece to its proof.
    pub(crate) piece_latency: LatencyRow,
}

/// A distribution of microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LatencyRow {
    /// How many values.
    pub(crate) count: u64,
    /// Half of them are no larger.
    pub(crate) p50_us: u64,
    /// 90 % of them are no larger.
    pub(crate) p90_us: u64,
    /// 99 % of them are no larger.
    pub(crate) p99_us: u64,
    /// 99.9 % of them are no larger.
    pub(crate) p999_us: u64,
    /// The largest.
    pub(crate) max_us: u64,
    /// All of it: HdrHistogram's V2 form in base64.
    pub(crate) histogram: String,
}

/// One file that the node serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShareRow {
    /// The group.
    pub(crate) group: String,
    /// The file's name there.
    pub(crate) file: String,
    /// Pieces that can be served.
    pub(crate) held: u32,
    /// Pieces of the file.
    pub(crate) pieces: u32,
    /// Bytes sent.
    pub(crate) sent_bytes: u64,
    /// Consumers connected.
    pub(crate) consumers: usize,
    /// Why nothing is served any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) changed: Option<String>,
}

/// What became of pieces that a node sent, or tried to send, without the kernel's copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ZeroCopyRow {
    /// Bytes that left from the pages of the file.
    pub(crate) mapped_bytes: u64,
    /// Bytes that the kernel copied after all.
    pub(crate) copied_bytes: u64,
    /// Sends that the kernel refused since too much memory was locked; they went the ordinary way.
    pub(crate) refused: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupListRow {
    /// Its name.
    pub(crate) group: String,
    /// Who owns it.
    pub(crate) owner: String,
    /// How it admits members.
    pub(crate) policy: String,
    /// How many members it has.
    pub(crate) members: u64,
    /// Whether you are one.
    pub(crate) member: bool,
}

/// One file of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileListRow {
    /// Its name.
    pub(crate) file: String,
    /// Its length in bytes, where it is known.
    pub(crate) size_bytes: Option<u64>,
    /// SHA-1 of the whole, where it is known.
    pub(crate) sha1: Option<String>,
    /// Who has all of it and is online.
    pub(crate) seeders: u64,
    /// Who has a part of it and is online.
    pub(crate) leechers: u64,
}

/// One peer of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerRow {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whether it has all of the file.
    pub(crate) complete: bool,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// The process.
    pub(crate) pid: u32,
    /// Where peers connect; `None` while the engine has not been needed.
    pub(crate) listen: Option<SocketAddr>,
    /// What moves the bytes.
    pub(crate) io: Option<String>,
    /// Its sends without a copy; `None` while the engine has not been needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zero_copy: Option<ZeroCopyRow>,
    /// What computes SHA-1.
    pub(crate) hash: Option<String>,
    /// Who is logged in here.
    pub(crate) user: Option<String>,
    /// The tracker that it talks to.
    pub(crate) tracker: Option<SocketAddr>,
    /// What it waits for, in words.
    pub(crate) waits_for: Vec<String>,
    /// What it serves.
    pub(crate) shares: Vec<ShareRow>,
    /// What it fetches or has fetched.
    pub(crate) downloads: Vec<TransferRow>,
    /// What could not be brought back when it started, with what to do about it.
    pub(crate) troubles: Vec<String>,
}
