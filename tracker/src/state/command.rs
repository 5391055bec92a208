//! Commands: everything that can change the state, with everything that the change needs.
//!
//! Invariant: a command holds its time and its random ids, so applying it asks no clock and draws no number. One
//! command is one log entry and stays below [`ROW_MAX_BYTES`](super::limits::ROW_MAX_BYTES): long manifests come as a
//! run of commands ([`LogAction::UploadPart`] …, then [`LogAction::StagedUpload`]).

use engine::proto::manifest::FileProof;
use engine::proto::units::{ChainState, Digest};
use serde::{Deserialize, Serialize};

use super::id::{Actor, GroupFile, GroupId, RequestId, SessionId, UploadId, UserId};
pub use super::limits::MANIFEST_ROW_PIECES;
use super::node::NodeEndpoint;
use super::serde_forms;

/// One change, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCommand {
    /// When it was proposed, in seconds since the Unix epoch.
    pub at_s: u64,
    /// Who asks; `None` for what needs no login.
    pub by: Option<Actor>,
    /// The client's name for the request. The same again in the same session gives the first outcome again.
    pub request_id: Option<RequestId>,
    /// What is to be done.
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

/// How one becomes a member of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// By asking.
    #[default]
    Open,
    /// By asking, and the owner's consent.
    Approval,
}

/// What a command does. All but `CreateUser`, `Login` and `Expire` need an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogAction {
    /// Makes a user.
    CreateUser {
        /// The new name.
        user: UserId,
        /// The password's hash, as text; the machine never reads it.
        password_hash: String,
    },
    /// Begins a session; its password has been checked. Brings the node's shares back online.
    Login {
        /// Who logs in.
        user: UserId,
        /// The epoch of the password that was checked: a change in between refuses the login.
        password_epoch: u32,
        /// The new session's random id.
        session: SessionId,
        /// The node that logs in, where it listens for peers.
        node: Option<NodeEndpoint>,
    },
    /// Ends the actor's session; its nodes' shares go offline until the next login.
    Logout,
    /// Sets another password and ends the actor's other sessions.
    ChangePassword {
        /// The epoch of the old password that was checked.
        password_epoch: u32,
        /// The new password's hash.
        password_hash: String,
    },
    /// The actor's node came back in its session, perhaps at another address.
    Resume {
        /// The node.
        node: NodeEndpoint,
    },
    /// Makes a group; the actor owns it.
    CreateGroup {
        /// The new name.
        group: GroupId,
        /// How others join.
        policy: Policy,
    },
    /// Joins a group, or asks to.
    JoinGroup {
        /// The group.
        group: GroupId,
    },
    /// Takes in one who asked.
    AcceptRequest {
        /// The group, which the actor owns.
        group: GroupId,
        /// Who asked.
        user: UserId,
    },
    /// Turns one down who asked.
    RejectRequest {
        /// The group, which the actor owns.
        group: GroupId,
        /// Who asked.
        user: UserId,
    },
    /// Ends a membership and withdraws its shares.
    RemoveMember {
        /// The group, which the actor owns.
        group: GroupId,
        /// Whose membership.
        user: UserId,
    },
    /// Ends the actor's own membership and withdraws its shares.
    LeaveGroup {
        /// The group.
        group: GroupId,
    },
    /// Stores one part of a long manifest: exactly [`MANIFEST_ROW_PIECES`] pieces.
    UploadPart {
        /// The upload; a part with `first` 0 begins it anew.
        upload: UploadId,
        /// Index of the part's first piece: how many came before.
        first: u32,
        /// The pieces.
        part: ManifestPart,
    },
    /// Lists a file, or makes the actor's node another seeder of the one that is there.
    Upload {
        /// The file.
        file: GroupFile,
        /// The manifest's end.
        manifest: ManifestEnd,
        /// The node that holds the file.
        node: NodeEndpoint,
    },
    /// A leecher has every piece and becomes a seeder.
    Complete {
        /// The file.
        file: GroupFile,
        /// The node that holds it now.
        node: NodeEndpoint,
    },
    /// Ends one node's share; the file stays listed.
    StopShare {
        /// The file.
        file: GroupFile,
        /// The node that no longer serves it.
        node: NodeEndpoint,
    },
    /// Takes a file off the list and frees its name.
    RemoveFile {
        /// The file.
        file: GroupFile,
    },
    /// Forgets unfinished uploads and sessions whose time has passed. Proposed now and then by the leader.
    Expire,
}

/// Digests and chain of consecutive pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPart {
    /// One digest a piece.
    #[serde(with = "serde_forms::joined")]
    pub(super) digests: Vec<[u8; 20]>,
    /// The state after each piece, except after the file's last one.
    pub(super) chain: Option<JoinedChain>,
}

/// Chain states, joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JoinedChain(#[serde(with = "serde_forms::joined")] pub(super) Vec<[u8; 20]>);

impl ManifestPart {
    /// A part from the engine's values.
    #[must_use]
    pub fn new(digests: &[Digest], chain: Option<&[ChainState]>) -> ManifestPart {
        ManifestPart {
            digests: digests.iter().map(|digest| digest.0).collect(),
            chain: chain.map(|states| JoinedChain(states.iter().map(|state| state.0).collect())),
        }
    }

    /// The piece digests.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.digests.iter().copied().map(Digest).collect()
    }

    /// The chain's states, where the uploader gave them.
    #[must_use]
    pub fn chain(&self) -> Option<Vec<ChainState>> {
        self.chain.as_ref().map(|states| states.0.iter().copied().map(ChainState).collect())
    }

    /// Splits the digests and the chain of a file, or of a whole number of rows of it, into parts of
    /// [`MANIFEST_ROW_PIECES`] pieces: all but the last for [`LogAction::UploadPart`], the last for [`ManifestEnd`]. Never
    /// empty. Surplus chain states end up in the last part, which is then refused.
    #[must_use]
    pub fn split(digests: &[Digest], chain: Option<&[ChainState]>) -> Vec<ManifestPart> {
        let row = MANIFEST_ROW_PIECES as usize;
        let rows = digests.len().div_ceil(row).max(1);
        let slice = |of: usize, index: usize| {
            let end = if index + 1 == rows { of } else { of.min((index + 1) * row) };
            of.min(index * row)..end
        };
        (0..rows)
            .map(|index| {
                let states = chain.map(|states| &states[slice(states.len(), index)]);
                ManifestPart::new(&digests[slice(digests.len(), index)], states)
            })
            .collect()
    }
}

/// What completes a manifest: its last part and what is known of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEnd {
    /// The upload whose parts came before; `None` when this is the only part.
    pub upload: Option<UploadId>,
    /// Index of the last part's first piece; 0 when it is the only one.
    pub first: u32,
    /// The last part: at most [`MANIFEST_ROW_PIECES`] pieces, none for the empty file.
    pub part: ManifestPart,
    /// Length of the file in bytes, where the uploader said it.
    pub length: Option<u64>,
    /// What proves the whole.
    #[serde(with = "serde_forms::proof")]
    pub proof: FileProof,
}
