//! What answers are made of: one row of each list, and the state of one transfer.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exit::Fault;

/// What a transfer is doing, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Pieces arrive, or are asked for.
    Downloading,
    /// It waits for what `cause` says and goes on by itself.
    Waiting,
    /// The user stopped it for now.
    Paused,
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

impl State {
    /// Whether nothing more will happen.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, State::Complete | State::Failed | State::Cancelled)
    }
}

/// One download as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// The group.
    pub(crate) group: String,
    /// The file's name there.
    pub(crate) file: String,
    /// What it is doing.
    pub(crate) state: State,
    /// Why it waits, is paused or failed, with the exit code that a command ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<Fault>,
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

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRow {
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
pub(crate) struct FileRow {
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
pub(crate) struct NodeRow {
    /// The process.
    pub(crate) pid: u32,
    /// Where peers connect; `None` while the engine has not been needed.
    pub(crate) listen: Option<SocketAddr>,
    /// What moves the bytes.
    pub(crate) io: Option<String>,
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
    pub(crate) downloads: Vec<Transfer>,
    /// What could not be brought back when it started, with what to do about it.
    pub(crate) troubles: Vec<String>,
}
