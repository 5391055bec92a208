//! What each command's success adds to its answer, as the server renders it and the client reads it.
//!
//! Numbers and names are the protocol's own. Times are seconds since the Unix epoch, by the tracker's clock.

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

/// What a success says besides its message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CommandAnswer {
    /// Nothing: it is done.
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
}

/// The session and what it takes to judge tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// The token that resumes this session on another connection.
    pub session: String,
    /// The key under which tickets are signed.
    #[serde(with = "wire::tracker_key")]
    pub tracker_key: TrackerKey,
    /// The tracker's time, in seconds since the Unix epoch.
    pub server_time: u64,
}

/// Whether the user is a member now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The owner must accept first.
    pub pending: bool,
}

/// Who asks to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsAnswer {
    /// Their names, in order.
    pub pending_list: Vec<UserId>,
}

/// All groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsAnswer {
    /// Their names, in order.
    pub groups_list: Vec<GroupId>,
    /// The same with details.
    pub groups: Vec<GroupEntry>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Its name.
    pub group_id: GroupId,
    /// Who owns it.
    pub owner: UserId,
    /// How one joins.
    pub policy: Policy,
    /// How many members it has.
    pub members: u64,
    /// Whether the asker is one.
    pub is_member: bool,
}

/// The files of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesAnswer {
    /// Their names, in order.
    #[serde(with = "wire::file_names")]
    pub files_list: Vec<FileName>,
    /// The same with details.
    pub files: Vec<FileEntry>,
}

/// One file of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    #[serde(with = "wire::file_name")]
    pub file_name: FileName,
    /// Its length in bytes, where the uploader said it.
    pub file_size: Option<u64>,
    /// What names its content: its SHA-1, or that over its pieces' hashes when `pieces_only`.
    #[serde(rename = "fileSha", with = "wire::digest")]
    pub file_sha: Digest,
    /// The uploader gave the pieces' hashes alone, so only the pieces can be proven.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pieces_only: bool,
    /// Nodes online that have all of it.
    pub seeders: u64,
    /// Nodes online that have part of it.
    pub leechers: u64,
}

/// What it takes to fetch a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownloadAnswer {
    /// The file's name.
    #[serde(with = "wire::file_name")]
    pub file_path: FileName,
    /// The hashes of the pieces asked for, in order.
    pub file_chunks: HashList<Digest>,
    /// Who has each of them; classic view only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_metadata: Option<ChunkPeers>,
    /// The file's length in bytes, where the uploader said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// The file's SHA-1; or, classic view of a file of which only the pieces can be proven, their hashes joined as the
    /// uploader sent them. Missing in the compact view of such a file.
    #[serde(rename = "fileSha", skip_serializing_if = "Option::is_none")]
    pub file_sha: Option<String>,
    /// The uploader gave the pieces' hashes alone, so only the pieces can be proven.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pieces_only: bool,
    /// The chain's states after the pieces asked for, but the file's last; where the uploader gave a chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_chain: Option<HashList<ChainState>>,
    /// Who has the file or part of it; compact view only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<PeerEntry>>,
    /// What opens the peers' doors; for those who gave a peer key.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::ticket")]
    pub ticket: Option<Ticket>,
    /// The tracker's time.
    pub server_time: u64,
    /// The first piece that is still to be asked for; missing when this is the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// Who has a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersAnswer {
    /// At most 50, the likeliest to help first.
    pub peers: Vec<PeerEntry>,
    /// What opens their doors; for those who gave a peer key.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::ticket")]
    pub ticket: Option<Ticket>,
    /// The tracker's time.
    pub server_time: u64,
}

/// One peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Where it listens.
    pub ip: IpAddr,
    /// Where it listens.
    pub port: u16,
    /// Its key; the original client has none.
    #[serde(default, with = "wire::peer_key")]
    pub peer_key: Option<PeerKey>,
    /// Whether it has the whole file.
    pub complete: bool,
}

impl PeerEntry {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// The tracker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingAnswer {
    /// The tracker's time.
    pub server_time: u64,
}

/// The cluster as this tracker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// Who leads, as `IP:PORT`.
    pub leader: Option<SocketAddr>,
    /// Trackers with a vote.
    pub voters: Vec<SocketAddr>,
    /// Trackers that follow without one.
    pub learners: Vec<SocketAddr>,
    /// The tracker's time.
    pub server_time: u64,
}

/// Who the session belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiAnswer {
    /// The user.
    pub user_id: UserId,
    /// When the user was made.
    pub created: u64,
    /// How many sessions of the user there are.
    pub sessions: u64,
    /// Where peers are told that this session's node listens; missing when it shares nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The key of this session's node.
    #[serde(default, with = "wire::peer_key")]
    pub peer_key: Option<PeerKey>,
}
