//! Commands: everything that can change the state, each with everything that the change needs.
//!
//! Invariants: a command carries its time and its random ids, so applying it reads no clock and draws no number. One
//! command is one log entry and stays below [`ROW_MAX_BYTES`](super::limits::ROW_MAX_BYTES): a long manifest comes as
//! several [`LogAction::UploadPart`], then one [`LogAction::Upload`].

use engine::proto::manifest::FileProof;
use engine::proto::units::{ChainState, Digest};
use serde::{Deserialize, Serialize};

use super::id::{Actor, GroupFile, GroupId, RequestId, SessionId, UploadId, UserId};
pub use super::limits::MANIFEST_ROW_PIECES;
use super::node::NodeEndpoint;
use super::serde_forms;

/// One change, in the form in which the log stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCommand {
    /// When it was proposed, in seconds since the Unix epoch.
    pub at_s: u64,
    /// The user and session; `None` where no login is needed.
    pub by: Option<Actor>,
    /// The client's id of the request. The same id in the same session gives the first outcome again.
    pub request_id: Option<RequestId>,
    /// The change itself.
    pub action: LogAction,
}

impl LogCommand {
    /// A command that needs no login.
    #[must_use]
    pub fn anonymous(at_s: u64, action: LogAction) -> LogCommand {
        LogCommand { at_s, by: None, request_id: None, action }
    }

    /// A command of a logged-in user.
    #[must_use]
    pub fn by(actor: Actor, at_s: u64, request_id: Option<RequestId>, action: LogAction) -> LogCommand {
        LogCommand { at_s, by: Some(actor), request_id, action }
    }
}

/// How users join a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A request makes a member.
    #[default]
    Open,
    /// The owner must accept each request.
    Approval,
}

/// What a command changes. All but `CreateUser`, `Login` and `Expire` need an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants describe their fields")]
pub enum LogAction {
    /// Creates a user. The state machine never reads the hash of the password.
    CreateUser { user: UserId, password_hash: String },
    /// Begins a session, under a new random id, after its password was checked. If the password was changed since the epoch of
    /// that check, the login is refused. Brings the shares of the node, if the client listens as one, back online.
    Login { user: UserId, password_epoch: u32, session: SessionId, node: Option<NodeEndpoint> },
    /// Ends the actor's session. The shares of its nodes are offline until the next login.
    Logout,
    /// Sets another password, if the checked one still has this epoch, and ends the actor's other sessions.
    ChangePassword { password_epoch: u32, password_hash: String },
    /// The actor's node reconnected in its session, possibly at another address.
    Resume { node: NodeEndpoint },
    /// Creates a group that the actor owns.
    CreateGroup { group: GroupId, policy: Policy },
    /// Joins a group, or asks to join it.
    JoinGroup { group: GroupId },
    /// Accepts a user's request to join a group that the actor owns.
    AcceptRequest { group: GroupId, user: UserId },
    /// Rejects a user's request to join a group that the actor owns.
    RejectRequest { group: GroupId, user: UserId },
    /// Ends a membership, in a group that the actor owns, and its shares.
    RemoveMember { group: GroupId, user: UserId },
    /// Ends the actor's own membership and its shares.
    LeaveGroup { group: GroupId },
    /// Stores one part of a long manifest: exactly [`MANIFEST_ROW_PIECES`] pieces, from index `first` on. A part with `first` 0
    /// restarts the upload.
    UploadPart { upload: UploadId, first: u32, part: ManifestPart },
    /// Lists a file, or makes the actor's node another seeder of a listed one.
    Upload { file: GroupFile, manifest: ManifestEnd, node: NodeEndpoint },
    /// A leecher has every piece and becomes a seeder.
    Complete {
        file: GroupFile,
        node: NodeEndpoint,
        /// The content that the node has; a file with other content refuses it. `None` in entries of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_forms::content")]
        content: Option<Digest>,
    },
    /// Ends one node's share. The file stays listed.
    StopShare {
        file: GroupFile,
        node: NodeEndpoint,
        /// The content whose share ends; `None` means the listed one.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_forms::content")]
        content: Option<Digest>,
    },
    /// Removes a file from the list and frees its name.
    RemoveFile { file: GroupFile },
    /// Removes abandoned uploads and expired sessions. The leader proposes it from time to time.
    Expire,
}

impl LogAction {
    /// Whether the change frees space, or takes none to speak of. Such changes are made also on a disk that is nearly full.
    #[must_use]
    pub fn spares_space(&self) -> bool {
        match self {
            LogAction::Login { .. }
            | LogAction::Logout
            | LogAction::ChangePassword { .. }
            | LogAction::Resume { .. }
            | LogAction::RejectRequest { .. }
            | LogAction::RemoveMember { .. }
            | LogAction::LeaveGroup { .. }
            | LogAction::StopShare { .. }
            | LogAction::RemoveFile { .. }
            | LogAction::Expire => true,
            LogAction::CreateUser { .. }
            | LogAction::CreateGroup { .. }
            | LogAction::JoinGroup { .. }
            | LogAction::AcceptRequest { .. }
            | LogAction::UploadPart { .. }
            | LogAction::Upload { .. }
            | LogAction::Complete { .. } => false,
        }
    }
}

/// Digests and chain of consecutive pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPart {
    /// Digest of each piece.
    #[serde(with = "serde_forms::joined")]
    pub(super) digests: Vec<[u8; 20]>,
    /// Chain state after each piece, except after the file's last one.
    pub(super) chain: Option<JoinedChain>,
}

/// Chain states, written as one base64 string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JoinedChain(#[serde(with = "serde_forms::joined")] pub(super) Vec<[u8; 20]>);

impl ManifestPart {
    /// A part with the engine's values.
    #[must_use]
    pub fn new(digests: &[Digest], chain: Option<&[ChainState]>) -> ManifestPart {
        ManifestPart {
            digests: digests.iter().map(|digest| digest.0).collect(),
            chain: chain.map(|states| JoinedChain(states.iter().map(|state| state.0).collect())),
        }
    }

    /// Digest of each piece.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.digests.iter().copied().map(Digest).collect()
    }

    /// The chain states, if the uploader gave them.
    #[must_use]
    pub fn chain(&self) -> Option<Vec<ChainState>> {
        self.chain.as_ref().map(|states| states.0.iter().copied().map(ChainState).collect())
    }

    /// Splits digests and chain into parts of [`MANIFEST_ROW_PIECES`] pieces: all but the last for
    /// [`LogAction::UploadPart`], the last for [`ManifestEnd`]. Never empty. Surplus chain states end up in the last part,
    /// which is then refused.
    #[must_use]
    pub fn split(digests: &[Digest], chain: Option<&[ChainState]>) -> Vec<ManifestPart> {
        let row = MANIFEST_ROW_PIECES as usize;
        let rows = digests.len().div_ceil(row).max(1);
        let slice = |of: usize, index: usize| {
            let end = if index + 1 == rows { of } else { of.min((index + 1) * row) };
            of.min(index * row)..end
        };
        let parts: Vec<ManifestPart> = (0..rows)
            .map(|index| {
                let states = chain.map(|states| &states[slice(states.len(), index)]);
                ManifestPart::new(&digests[slice(digests.len(), index)], states)
            })
            .collect();
        assert_eq!(parts.iter().map(|part| part.digests.len()).sum::<usize>(), digests.len());
        assert!(parts.iter().all(|part| part.digests.len() <= row), "a part has at most {row} pieces");
        parts
    }
}

/// The end of a manifest: its last part, and what describes the whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEnd {
    /// The upload of the earlier parts; `None` when this is the only part.
    pub upload: Option<UploadId>,
    /// Index of the last part's first piece; 0 when it is the only part.
    pub first: u32,
    /// The last part: at most [`MANIFEST_ROW_PIECES`] pieces, none for an empty file.
    pub part: ManifestPart,
    /// Length of the file in bytes, if the uploader gave it.
    pub length: Option<u64>,
    /// What proves the whole file.
    #[serde(with = "serde_forms::proof")]
    pub proof: FileProof,
}
