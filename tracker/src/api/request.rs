//! Requests of clients, as values that are valid by construction.
//!
//! [`Request::parse`] reads bytes and [`Request::to_json`] writes them, in modules of their own. Neither loses anything,
//! but a list of hashes may change its form. A [`Command`] alone has the serde forms of a request without the envelope.

use std::fmt;
use std::net::SocketAddr;

use engine::proto::manifest::{FileName, Manifest};
use engine::proto::ticket::PeerKey;
use engine::proto::units::{Digest, PieceCount, PieceIndex, PieceRange};
use serde_json::Value;

use super::address::ClaimedAddress;
use super::failure::RequestFailure;
use super::limits::PASSWORD_MAX_BYTES;
use super::upload_part::UploadPart;
use crate::state::command::Policy;
use crate::state::id::{GroupFile, GroupId, UserId};

/// One request: a command and its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the client asks for.
    pub command: Command,
    /// A string or a whole number, echoed in the answer. A write repeated under the same id gives its first outcome again.
    pub request_id: Option<Value>,
    /// Token of a login on another connection, to whose session this request belongs.
    pub session: Option<String>,
    /// Where the client listens for peers; `None` when it shares nothing.
    pub sender: Option<ClaimedAddress>,
}

/// A refused request, with the id that the answer echoes.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRequest {
    /// The request's id, if it could be read.
    pub request_id: Option<Value>,
    /// Why it was refused.
    pub failure: RequestFailure,
}

impl Request {
    /// A request without id, session and sender.
    #[must_use]
    pub fn new(command: Command) -> Request {
        Request { command, request_id: None, session: None, sender: None }
    }
}

/// A password of 1 to 1,024 bytes. `Debug` hides it.
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
    /// As in the original protocol: the peers of every hash.
    #[default]
    Classic,
    /// Hash lists in base64, and each peer once.
    Compact,
}

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<N> {
    /// Only entries behind this one, in the order of names.
    pub after: Option<N>,
    /// Most entries; `None` asks for all, which a long list refuses.
    pub count: Option<u32>,
}

impl<N> ListPage<N> {
    /// The whole list.
    #[must_use]
    pub fn whole() -> ListPage<N> {
        ListPage { after: None, count: None }
    }
}

/// Pieces that a leecher has gained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GainedPieces {
    /// These pieces, in addition to earlier ones.
    Ranges(Vec<PieceRange>),
    /// All pieces: the node is a seeder now.
    Complete,
}

/// A command of the control protocol. `docs/protocol.md` describes each.
///
/// `content` is the id of the content that the client means by the file's name; a file that was replaced under its name has
/// another one. Clients of the original protocol give `None`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the protocol's own")]
pub enum Command {
    CreateUser {
        user: UserId,
        password: Password,
    },
    Login {
        user: UserId,
        password: Password,
        peer_key: Option<PeerKey>,
    },
    Logout,
    CreateGroup {
        group: GroupId,
        policy: Policy,
    },
    JoinGroup {
        group: GroupId,
    },
    ListRequests {
        group: GroupId,
        page: ListPage<UserId>,
    },
    AcceptRequest {
        group: GroupId,
        user: UserId,
    },
    RejectRequest {
        group: GroupId,
        user: UserId,
    },
    RemoveMember {
        group: GroupId,
        user: UserId,
    },
    LeaveGroup {
        group: GroupId,
    },
    ListGroups {
        page: ListPage<GroupId>,
    },
    UploadFile {
        group: GroupId,
        manifest: Box<Manifest>,
        peer_key: Option<PeerKey>,
    },
    UploadPart {
        group: GroupId,
        part: Box<UploadPart>,
        peer_key: Option<PeerKey>,
    },
    DownloadFile {
        file: GroupFile,
        content: Option<Digest>,
        view: DownloadView,
        part: PiecePage,
        peer_key: Option<PeerKey>,
    },
    ListFiles {
        group: GroupId,
        page: ListPage<FileName>,
    },
    StopShare {
        file: GroupFile,
        content: Option<Digest>,
    },
    RemoveFile {
        file: GroupFile,
    },
    UpdatePieces {
        file: GroupFile,
        content: Option<Digest>,
        gained: GainedPieces,
    },
    GetPeers {
        file: GroupFile,
        content: Option<Digest>,
        peer_key: Option<PeerKey>,
    },
    ReportPeer {
        file: GroupFile,
        content: Option<Digest>,
        peer: SocketAddr,
        reason: String,
    },
    Ping,
    GoOffline,
    Status,
    Whoami,
    CheckAddress {
        peer_key: Option<PeerKey>,
    },
    ChangePassword {
        old: Password,
        new: Password,
    },
}

/// The pieces that one `download_file` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PiecePage {
    /// Index of the first piece.
    pub first: PieceIndex,
    /// Most pieces; `None` means all.
    pub count: Option<PieceCount>,
}

impl PiecePage {
    /// All pieces.
    pub const WHOLE: PiecePage = PiecePage { first: PieceIndex(0), count: None };
}
