//! Outcomes and refusals of commands. The server turns them into answers, failure codes and fixes.
//!
//! Invariant: both are stored under request ids, so their serde forms stay readable. They contain no secret.

use serde::{Deserialize, Serialize};

use super::id::{GroupFile, GroupId, UserId};

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants describe their fields")]
pub enum CommandOutcome {
    /// The user was created.
    UserCreated,
    /// The session has begun.
    LoggedIn,
    /// The session has ended.
    LoggedOut,
    /// The password was changed and has a new epoch.
    PasswordChanged { password_epoch: u32 },
    /// The node's current address and session are recorded.
    Resumed,
    /// The group was created.
    GroupCreated,
    /// The actor is a member, or has asked to join and waits for the owner (`pending`).
    Joined { pending: bool },
    /// The request was accepted; its user is a member.
    RequestAccepted,
    /// The request was rejected.
    RequestRejected,
    /// A membership was ended.
    MemberRemoved,
    /// The actor is no longer a member. If it owned the group, another member does now; if it was the last, the group and its
    /// files are removed.
    Left { new_owner: Option<UserId>, group_deleted: bool },
    /// A part of a manifest is stored; the next one begins at piece `next`.
    PartStored { next: u32 },
    /// The actor's node seeds the file, which is listed since now (`new_file`) or was before.
    Uploaded { new_file: bool },
    /// The node is a seeder.
    Completed,
    /// The node's share has ended.
    ShareStopped,
    /// The file was removed.
    FileRemoved,
    /// Abandoned uploads and expired sessions were removed.
    Expired,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the messages show the fields")]
pub enum CommandRefusal {
    /// The command needs an actor whose session is valid.
    #[error("not logged in, or the session has ended")]
    NotLoggedIn,
    /// The password was changed after it was checked.
    #[error("the password was changed meanwhile")]
    PasswordChanged,
    /// The name of the new user is taken.
    #[error("user {0} exists already")]
    UserExists(UserId),
    /// The name of the new group is taken.
    #[error("group {0} exists already")]
    GroupExists(GroupId),
    /// There is no such user.
    #[error("there is no user {0}")]
    NoSuchUser(UserId),
    /// There is no such group.
    #[error("there is no group {0}")]
    NoSuchGroup(GroupId),
    /// The actor is not a member of the group.
    #[error("you are not a member of group {0}")]
    NotMember(GroupId),
    /// The actor is already a member.
    #[error("you are a member of group {0} already")]
    AlreadyMember(GroupId),
    /// The actor does not own the group.
    #[error("only the owner of group {0} may do that")]
    NotOwner(GroupId),
    /// The user did not ask to join.
    #[error("{user} has not asked to join group {group}")]
    NoSuchRequest { group: GroupId, user: UserId },
    /// The user is not a member.
    #[error("{user} is not a member of group {group}")]
    NoSuchMember { group: GroupId, user: UserId },
    /// The owner cannot be removed, only leave.
    #[error("the owner of group {0} cannot be removed, only leave")]
    OwnerStays(GroupId),
    /// There is no such file.
    #[error("there is no file {0}")]
    NoSuchFile(GroupFile),
    /// The name is taken by a file with other content.
    #[error("{0} is there with other content")]
    OtherContent(GroupFile),
    /// The file was replaced: it has other content than the command means.
    #[error("{0} is listed with other content by now")]
    ContentReplaced(GroupFile),
    /// The node does not share the file.
    #[error("this node does not share {0}")]
    NotShared(GroupFile),
    /// The actor is neither the uploader nor the group's owner.
    #[error("only its uploader or the owner of the group may remove {0}")]
    NotUploader(GroupFile),
    /// The user has the most nodes that may share the file, and all are online.
    #[error("{most} nodes of yours share {0} already", most = super::limits::NODES_PER_USER_AND_FILE)]
    TooManyNodes(GroupFile),
    /// Unfinished uploads, of this user or of all, take all of their room.
    #[error("too many parts of unfinished uploads")]
    TooManyParts,
    /// The request id was used for another request of this session.
    #[error("this request_id was used for another request")]
    OtherRequest,
    /// The parts do not make a manifest.
    #[error("{0}")]
    BadManifest(#[from] ManifestFault),
}

/// Outcome or refusal of one command.
pub type ApplyResult = Result<CommandOutcome, CommandRefusal>;

/// Why parts do not make a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the messages show the fields")]
pub enum ManifestFault {
    /// A part does not begin where the one before ended, or the upload does not exist.
    #[error("the next part of this upload begins at piece {expected}")]
    OutOfOrder { expected: u32 },
    /// A part has the wrong number of pieces.
    #[error(
        "a part of {pieces} pieces: each has {}, the last at most that",
        super::limits::MANIFEST_ROW_PIECES
    )]
    PartSize { pieces: usize },
    /// The chain has not one state fewer than there are pieces, or only some parts have one.
    #[error("the chain does not fit: one state after each piece but the file's last")]
    Chain,
    /// The length does not divide into as many pieces as there are digests.
    #[error("{length} bytes do not make {pieces} pieces")]
    Length { length: u64, pieces: u32 },
    /// The file has no bytes, but not the digest of an empty file.
    #[error("a file of 0 bytes has the SHA-1 of nothing and no other")]
    Empty,
}
