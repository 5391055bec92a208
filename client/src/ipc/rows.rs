//! Parts of answers: one row of each list, and the state of a transfer.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exit::ClientFault;

/// State of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum TransferState {
    /// Pieces arrive or are requested.
    Downloading,
    /// Waits, and continues by itself. `cause` says more.
    Waiting {
        waits_for: WaitCause,
    },
    /// Paused by the user.
    Paused,
    /// The file at the destination is compared with the wanted one before anything is downloaded; `verified_bytes` counts.
    Comparing,
    /// The whole file is hashed, since the chain of the uploader is missing or wrong.
    Checking,
    /// All pieces are verified; the file is being synced to disk.
    Syncing,
    /// Synced to disk under its final name.
    Complete,
    Failed,
    /// Cancelled by the user.
    Cancelled,
}

impl TransferState {
    /// Whether the state is final.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, TransferState::Complete | TransferState::Failed | TransferState::Cancelled)
    }
}

/// What a waiting download waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WaitCause {
    /// A reachable peer that has the missing pieces.
    Peers,
    /// A reachable tracker.
    Tracker,
    /// A valid permission of the trackers.
    Ticket,
    /// A disk with free space, or one that works again.
    Disk,
    /// The end of other downloads, or of a comparison of another file.
    Slot,
    /// The login of its user.
    Login,
    /// A node that stays: this one ends with its command.
    Node,
    /// A resource of the system, such as a thread.
    System,
}

/// One download.
/// One download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferRow {
    pub(crate) group: String,
    /// Name of the file in the group.
    pub(crate) file: String,
    /// The fields `state` and `waits_for`.
    #[serde(flatten)]
    pub(crate) state: TransferState,
    /// Why it waits or failed, with the exit code of a command that ends for it; of a complete one, why it is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<ClientFault>,
    /// Destination.
    pub(crate) path: PathBuf,
    /// Length of the file.
    pub(crate) total_bytes: u64,
    /// Bytes verified and written.
    pub(crate) verified_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Bytes received more than once.
    pub(crate) duplicate_bytes: u64,
    /// Bytes that an earlier attempt had written.
    #[serde(default)]
    pub(crate) resumed_bytes: u64,
    /// Verified bytes a second; while bytes on the disk are checked, hashed bytes a second.
    pub(crate) rate: u64,
    /// Bytes hashed by the check of bytes on the disk that runs; 0 without one.
    #[serde(default)]
    pub(crate) hashed_bytes: u64,
    /// Bytes that the check is to hash; 0 without one.
    #[serde(default)]
    pub(crate) to_hash_bytes: u64,
    /// Connected peers.
    pub(crate) peers: usize,
    /// Peers that the file cannot be fetched from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peer_troubles: Vec<PeerTroubleRow>,
    /// The uploader gave no SHA-1 of the whole file, so only the pieces can be verified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pieces_only: bool,
    /// Passes over the whole file that verification took.
    pub(crate) sequential_passes: u32,
    /// The main bottleneck.
    pub(crate) limited_by: String,
    /// Milliseconds from the start until all pieces were verified and written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proven_ms: Option<u64>,
    /// Milliseconds from the start until the file was synced to disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) durable_ms: Option<u64>,
    /// Measurements, once the download is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<TransferFigures>,
}

/// A peer that a file cannot be fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerTroubleRow {
    pub(crate) address: SocketAddr,
    /// A word for programs, such as `timed_out`.
    pub(crate) trouble: String,
    /// The same for people, as a sentence that names the peer.
    pub(crate) message: String,
}

/// Measurements of a complete download. Spans are microseconds from its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferFigures {
    /// Until this row was made: lets the reader map the other spans to its own clock.
    pub(crate) age_us: u64,
    /// Until the first piece from a peer was verified; `None` if nothing had to be downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_verified_us: Option<u64>,
    /// Until all pieces were verified and written.
    pub(crate) proven_us: u64,
    /// Until the file was synced to disk.
    pub(crate) durable_us: u64,
    /// Bytes in both directions on connections to peers.
    pub(crate) wire_bytes: u64,
    /// Time that all workers together spent hashing.
    pub(crate) hashing_us: u64,
    /// Time that all workers together spent writing.
    pub(crate) writing_us: u64,
    /// From the request for a piece to its verification.
    pub(crate) piece_latency: LatencyRow,
}

/// A distribution, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LatencyRow {
    /// Number of values.
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
    /// The whole distribution: HdrHistogram V2 in base64.
    pub(crate) histogram: String,
}

/// One share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShareRow {
    pub(crate) group: String,
    /// Name of the file in the group.
    pub(crate) file: String,
    /// Pieces that this node has.
    pub(crate) held: u32,
    pub(crate) pieces: u32,
    pub(crate) sent_bytes: u64,
    /// Connected downloaders.
    pub(crate) consumers: usize,
    /// Why the file is not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) changed: Option<String>,
    /// The tracker does not know the share at the moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unknown_there: bool,
}

/// Sends without a copy in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ZeroCopyRow {
    /// Bytes sent from the file's pages.
    pub(crate) mapped_bytes: u64,
    /// Bytes that the kernel copied anyway.
    pub(crate) copied_bytes: u64,
    /// Sends that the kernel refused because too much memory was locked; they were repeated with a copy.
    pub(crate) refused: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupListRow {
    pub(crate) group: String,
    pub(crate) owner: String,
    /// `open` or `approval`.
    pub(crate) policy: String,
    /// Number of members.
    pub(crate) members: u64,
    /// Whether the user is a member.
    pub(crate) member: bool,
    /// Whether the user is the owner.
    #[serde(default)]
    pub(crate) owned: bool,
}

/// One listed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileListRow {
    pub(crate) file: String,
    /// Length; `None` if the uploader did not state it.
    pub(crate) size_bytes: Option<u64>,
    /// SHA-1 of the whole file, if the uploader gave it.
    pub(crate) sha1: Option<String>,
    /// Online nodes that have all of it.
    pub(crate) seeders: u64,
    /// Online nodes that have a part of it.
    pub(crate) leechers: u64,
}

/// One peer that has a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerRow {
    pub(crate) address: SocketAddr,
    /// Whether it has the whole file.
    pub(crate) complete: bool,
    /// Why this node's download of the file cannot fetch from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<PeerTroubleRow>,
}

/// Whether the tracker reached a node when it called back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReachabilityRow {
    /// Where peers are told that the node listens.
    pub(crate) address: SocketAddr,
    pub(crate) reached: bool,
    /// What kept the tracker from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl ReachabilityRow {
    /// What to do when the node was not reached.
    pub(crate) const FIX: &str = "open that port for TCP on this machine and on the way to it, or start the node with `--listen IP:PORT` at an address that others reach";

    /// What happened, and what it means.
    pub(crate) fn problem_text(&self) -> Option<String> {
        let why = self.problem.as_deref().filter(|_| !self.reached)?;
        Some(format!(
            "the tracker cannot reach {}: {why}; other members cannot fetch from this node",
            self.address
        ))
    }

    /// The same or the good news, in one line.
    pub(crate) fn describe(&self) -> String {
        match self.problem_text() {
            Some(problem) => format!("{problem}. Next: {}", ReachabilityRow::FIX),
            None if self.address.ip().is_loopback() => format!(
                "peers on this machine reach this node at {}; others do not: for them, name the tracker by its network address",
                self.address
            ),
            None => format!("peers reach this node at {}", self.address),
        }
    }
}

/// The shares of a user who is not logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaitingSharesRow {
    pub(crate) user: String,
    /// Number of shares.
    pub(crate) shares: usize,
}

/// State of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// Process id.
    pub(crate) pid: u32,
    /// Listen address for peers; `None` until the engine has started.
    pub(crate) listen: Option<SocketAddr>,
    /// I/O back end.
    pub(crate) io: Option<String>,
    /// `None` until the engine has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zero_copy: Option<ZeroCopyRow>,
    /// SHA-1 implementation.
    pub(crate) hash: Option<String>,
    /// The user who is logged in.
    pub(crate) user: Option<String>,
    /// Why the tracker does not know the login or some shares, which are kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unknown_there: Option<String>,
    /// The tracker in use.
    pub(crate) tracker: Option<SocketAddr>,
    /// Whether others reach it; `None` until the tracker has called back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reachability: Option<ReachabilityRow>,
    /// What the node waits for, in words.
    pub(crate) waits_for: Vec<String>,
    pub(crate) shares: Vec<ShareRow>,
    /// While no user is logged in: the shares that wait for a login.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) waiting_shares: Vec<WaitingSharesRow>,
    pub(crate) downloads: Vec<TransferRow>,
    /// What could not be restored at the start, with what to do about it.
    pub(crate) troubles: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_a_word_and_a_waiting_one_says_for_what() {
        let states = [
            (TransferState::Downloading, r#"{"state":"downloading"}"#),
            (TransferState::Comparing, r#"{"state":"comparing"}"#),
            (
                TransferState::Waiting { waits_for: WaitCause::Login },
                r#"{"state":"waiting","waits_for":"login"}"#,
            ),
        ];
        for (state, text) in states {
            let row = crate::render::transfer::tests::transfer(state);
            let object = serde_json::to_value(&row).unwrap();
            let wanted: serde_json::Value = serde_json::from_str(text).unwrap();
            for (name, value) in wanted.as_object().unwrap() {
                assert_eq!(object[name], *value);
            }
            assert_eq!(serde_json::from_value::<TransferRow>(object).unwrap(), row);
        }
    }
}
