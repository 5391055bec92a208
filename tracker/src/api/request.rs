//! Requests: what a client can ask, as values that are valid by construction.
//!
//! [`Request::parse_cluster_file`] is the only way in from bytes, [`Request::to_json`] the way out; neither is lossy, except that a
//! list of hashes may change its form. Both stand in modules of their own.

use std::fmt;
use std::net::SocketAddr;

use engine::proto::manifest::{FileName, Manifest};
use engine::proto::ticket::PeerKey;
use engine::proto::units::{PieceCount, PieceIndex, PieceRange};
use serde_json::Value;

use super::address::ClaimedAddress;
use super::failure::RequestFailure;
use super::limits::PASSWORD_MAX_BYTES;
use super::upload_part::UploadPart;
use crate::state::command::Policy;
use crate::state::id::{GroupFile, GroupId, UserId};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// A string or a whole number, echoed in the answer. The same again for a write gives the first outcome again.
    pub request_id: Option<Value>,
    /// The token of a login on another connection, whose session this request belongs to.
    pub session: Option<String>,
    /// Where the client says that it listens for peers; `None` when it shares nothing.
    pub sender: Option<ClaimedAddress>,
}

/// A refused request, with what the answer echoes.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRequest {
    /// The request's id, where one could be read.
    pub request_id: Option<Value>,
    /// Why.
    pub failure: RequestFailure,
}

impl Request {
    /// A request without id, session and sender.
    #[must_use]
    pub fn new(command: Command) -> Request {
        Request { command, request_id: None, session: None, sender: None }
    }
}

/// A password: 1 to 1,024 bytes. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Checks the length; `None` when it is empty or too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Password> {
        (1..=PASSWORD_MAX_BYTES).contains(&text.len()).then(|| Password(text.to_owned()))
    }

    /// The text, for hashing and sending only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How `download_file` describes the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DownloadView {
    /// As the original does: the peers of every hash.
    #[default]
    Classic,
    /// Hash lists in base64, and the peers once.
    Compact,
}

/// What a leecher has gained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GainedPieces {
    /// These pieces, beside those told before.
    Ranges(Vec<PieceRange>),
    /// The whole file: it is a seeder now.
    Complete,
}

/// What a client can ask. The commands' rules stand in the documentation of the protocol.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the protocol's own, described there and typed here")]
pub enum Command {
    CreateUser { user: UserId, password: Password },
    Login { user: UserId, password: Password, peer_key: Option<PeerKey> },
    Logout,
    CreateGroup { group: GroupId, policy: Policy },
    JoinGroup { group: GroupId },
    ListRequests { group: GroupId },
    AcceptRequest { group: GroupId, user: UserId },
    RejectRequest { group: GroupId, user: UserId },
    RemoveMember { group: GroupId, user: UserId },
    LeaveGroup { group: GroupId },
    ListGroups,
    UploadFile { group: GroupId, manifest: Box<Manifest>, peer_key: Option<PeerKey> },
    UploadPart { group: GroupId, part: Box<UploadPart>, peer_key: Option<PeerKey> },
    DownloadFile { file: GroupFile, view: DownloadView, part: PiecePage, peer_key: Option<PeerKey> },
    ListFiles { group: GroupId, after: Option<FileName>, count: Option<u32> },
    StopShare { file: GroupFile },
    RemoveFile { file: GroupFile },
    UpdatePieces { file: GroupFile, gained: GainedPieces },
    GetPeers { file: GroupFile, peer_key: Option<PeerKey> },
    ReportPeer { file: GroupFile, peer: SocketAddr, reason: String },
    Ping,
    Status,
    Whoami,
    ChangePassword { old: Password, new: Password },
}

/// Which pieces a description of a file is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PiecePage {
    /// The first of them.
    pub first: PieceIndex,
    /// How many at most; `None` means all.
    pub count: Option<PieceCount>,
}

impl PiecePage {
    /// All pieces.
    pub const WHOLE: PiecePage = PiecePage { first: PieceIndex(0), count: None };
}
