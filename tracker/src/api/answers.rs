//! What each command's success adds to its answer, as the server renders it and the client reads it.
//!
//! Names are the protocol's own. Times are seconds since the Unix epoch, by the tracker's clock.

use std::net::{IpAddr, SocketAddr};

use engine::proto::manifest::FileName;
use engine::proto::ticket::{PeerKey, Ticket, TrackerKey};
use engine::proto::units::{ChainState, Digest};
use serde::{Deserialize, Serialize};

use super::chunks::ChunkPeers;
use super::hashes::HashList;
use super::wire;
use crate::state::command::Policy;
use crate::state::id::{GroupId, UserId};

/// The fields that a success adds to its message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CommandAnswer {
    /// No fields.
    Done {},
    /// To `login`.
    Login(LoginAnswer),
    /// To `join_group`.
    Join(JoinAnswer),
    /// To `list_requests`.
    Requests(RequestsAnswer),
    /// To `list_groups`.
    Groups(GroupsAnswer),
    /// To `download_file`.
    Download(Box<DownloadAnswer>),
    /// To `list_files`.
    Files(FilesAnswer),
    /// To `get_peers`.
    Peers(PeersAnswer),
    /// To `ping`.
    Ping(PingAnswer),
    /// To `status`.
    Status(StatusAnswer),
    /// To `whoami`.
    Whoami(WhoamiAnswer),
    /// To `check_address`.
    CheckAddress(CheckAddressAnswer),
}

/// The session, and the key that verifies tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// Token that resumes this session on another connection.
    pub session: String,
    /// Public key under which the tracker signs tickets.
    #[serde(with = "wire::tracker_key")]
    pub tracker_key: TrackerKey,
    /// The tracker's time.
    pub server_time: u64,
}

/// Whether the user is a member now, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// True while the owner must still accept the request.
    pub pending: bool,
}

/// Users who ask to join a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsAnswer {
    /// Their names, in order.
    pub pending_list: Vec<UserId>,
}

/// All groups, twice: as names and with details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsAnswer {
    /// Names, in order.
    pub groups_list: Vec<GroupId>,
    /// The same groups with details.
    pub groups: Vec<GroupEntry>,
}

/// One group as the asking user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Name of the group.
    pub group_id: GroupId,
    /// Owner of the group.
    pub owner: UserId,
    /// How users join.
    pub policy: Policy,
    /// Number of members.
    pub members: u64,
    /// Whether the asking user is a member.
    pub is_member: bool,
}

/// The files of a group, twice: as names and with details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesAnswer {
    /// Names, in order.
    #[serde(with = "wire::file_names")]
    pub files_list: Vec<FileName>,
    /// The same files with details.
    pub files: Vec<FileEntry>,
}

/// One file of a group, without its pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name of the file.
    #[serde(with = "wire::file_name")]
    pub file_name: FileName,
    /// Length in bytes, if the uploader gave it.
    pub file_size: Option<u64>,
    /// SHA-1 of the file; with `pieces_only` the SHA-1 over its pieces' hashes.
    #[serde(rename = "fileSha", with = "wire::digest")]
    pub file_sha: Digest,
    /// The uploader gave only the pieces' hashes, so the file as a whole cannot be proven.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pieces_only: bool,
    /// Online nodes with the whole file.
    pub seeders: u64,
    /// Online nodes with part of the file.
    pub leechers: u64,
}

/// What a client needs to fetch a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownloadAnswer {
    /// Name of the file.
    #[serde(with = "wire::file_name")]
    pub file_path: FileName,
    /// Hashes of the requested pieces, in order.
    pub file_chunks: HashList<Digest>,
    /// Peers of each hash; classic view only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_metadata: Option<ChunkPeers>,
    /// Length in bytes, if the uploader gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// SHA-1 of the file. With `pieces_only`, the classic view has the pieces' hashes joined, as the uploader sent them, and
    /// the compact view has nothing.
    #[serde(rename = "fileSha", skip_serializing_if = "Option::is_none")]
    pub file_sha: Option<String>,
    /// The uploader gave only the pieces' hashes, so the file as a whole cannot be proven.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pieces_only: bool,
    /// Chain state after each requested piece except the file's last, if the uploader gave a chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_chain: Option<HashList<ChainState>>,
    /// Peers that have the file or part of it; compact view only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<PeerEntry>>,
    /// Ticket to present to the peers; only for clients that gave a peer key.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::ticket")]
    pub ticket: Option<Ticket>,
    /// The tracker's time.
    pub server_time: u64,
    /// Index of the first piece still to be requested; `None` at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// Peers of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersAnswer {
    /// At most 50, the most useful first.
    pub peers: Vec<PeerEntry>,
    /// Ticket to present to the peers; only for clients that gave a peer key.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::ticket")]
    pub ticket: Option<Ticket>,
    /// The tracker's time.
    pub server_time: u64,
}

/// One peer of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// IP at which it listens.
    pub ip: IpAddr,
    /// Port at which it listens.
    pub port: u16,
    /// Its public key; clients of the original protocol have none.
    #[serde(default, with = "wire::peer_key")]
    pub peer_key: Option<PeerKey>,
    /// Whether it has the whole file.
    pub complete: bool,
}

impl PeerEntry {
    /// Socket address at which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// Proof that the tracker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingAnswer {
    /// The tracker's time.
    pub server_time: u64,
    /// Number of files that the session's node shares as far as the tracker knows; `None` without a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Id of the cluster, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Number of the last change. A lower one than before, in the same cluster, is that of an older copy of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// The cluster as this tracker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The leader, as `IP:PORT`.
    pub leader: Option<SocketAddr>,
    /// Trackers with a vote.
    pub voters: Vec<SocketAddr>,
    /// Trackers that follow without a vote.
    pub learners: Vec<SocketAddr>,
    /// The tracker's time.
    pub server_time: u64,
    /// As in [`PingAnswer`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// As in [`PingAnswer`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Why the tracker refuses changes at the moment, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses_changes: Option<String>,
}

/// Whether the tracker has reached the session's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAddressAnswer {
    /// The address that was called: the one that peers are told.
    pub address: SocketAddr,
    /// The node has proven its key there.
    pub reached: bool,
    /// What kept the tracker from it, if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<AddressProblem>,
}

/// What kept a tracker from reaching a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AddressProblem {
    /// No answer came in time.
    #[error("connection timed out")]
    TimedOut,
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The network does not lead there, or the connection broke.
    #[error("no connection is possible")]
    Unreachable,
    /// The program there does not speak the peer protocol.
    #[error("another program answers there")]
    OtherProgram,
    /// The node there speaks another version.
    #[error("the node there speaks another version of the peer protocol than the tracker")]
    OtherVersion,
    /// The node there has another key.
    #[error("another node answers there")]
    OtherNode,
    /// The tracker could not make the call.
    #[error("the tracker could not call")]
    NotChecked,
    /// A problem that this version does not know.
    #[serde(other)]
    #[error("no connection is possible")]
    Other,
}

/// The user and the node of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiAnswer {
    /// Name of the user.
    pub user_id: UserId,
    /// When the user was created.
    pub created: u64,
    /// Number of the user's sessions.
    pub sessions: u64,
    /// Address of this session's node as peers are told; `None` when it shares nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Public key of this session's node.
    #[serde(default, with = "wire::peer_key")]
    pub peer_key: Option<PeerKey>,
}
