//! Outcomes and refusals: what a command came to. The server turns them into answers, failure codes and fixes.
//!
//! Invariant: both are kept under request ids, so their forms must stay readable; they hold no secret.

use serde::{Deserialize, Serialize};

use super::id::{GroupFile, GroupId, UserId};

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandOutcome {
    /// There is a new user.
    UserCreated,
    /// A session has begun.
    LoggedIn,
    /// The session has ended.
    LoggedOut,
    /// The password is another.
    PasswordChanged {
        /// Its epoch.
        password_epoch: u32,
    },
    /// The node is known under its session and address.
    Resumed,
    /// There is a new group.
    GroupCreated,
    /// The actor is a member, or has asked.
    Joined {
        /// Whether the owner must consent first.
        pending: bool,
    },
    /// One who asked is a member.
    RequestAccepted,
    /// One who asked was turned down.
    RequestRejected,
    /// A membership was ended.
    MemberRemoved,
    /// The actor is no longer a member.
    Left {
        /// Who owns the group from now on, where the owner left.
        new_owner: Option<UserId>,
        /// Whether it was the last member, so that group and files are gone.
        group_deleted: bool,
    },
    /// A part is stored.
    PartStored {
        /// Index of the next part's first piece.
        next: u32,
    },
    /// The actor's node seeds the file.
    Uploaded {
        /// Whether the file was not there before.
        new_file: bool,
    },
    /// The node is a seeder.
    Completed,
    /// The node's share has ended.
    ShareStopped,
    /// The file is off the list.
    FileRemoved,
    /// What was past its time is forgotten.
    Expired,
}

/// Why a command did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandRefusal {
    /// The command needs an actor whose session holds.
    #[error("not logged in, or the session has ended")]
    NotLoggedIn,
    /// The password changed between its check and the command.
    #[error("the password was changed meanwhile")]
    PasswordChanged,
    /// The name of a new user is taken.
    #[error("user {0} exists already")]
    UserExists(UserId),
    /// The name of a new group is taken.
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
    /// The actor is a member already.
    #[error("you are a member of group {0} already")]
    AlreadyMember(GroupId),
    /// The actor does not own the group.
    #[error("only the owner of group {0} may do that")]
    NotOwner(GroupId),
    /// The other user did not ask to join.
    #[error("{user} has not asked to join group {group}")]
    NoSuchRequest {
        /// The group.
        group: GroupId,
        /// The other user.
        user: UserId,
    },
    /// The other user is no member.
    #[error("{user} is not a member of group {group}")]
    NoSuchMember {
        /// The group.
        group: GroupId,
        /// The other user.
        user: UserId,
    },
    /// Owners leave; they are not removed.
    #[error("the owner of group {0} cannot be removed, only leave")]
    OwnerStays(GroupId),
    /// There is no such file.
    #[error("there is no file {0}")]
    NoSuchFile(GroupFile),
    /// The name is taken by other content.
    #[error("{0} is there with other content")]
    OtherContent(GroupFile),
    /// The node does not share the file.
    #[error("this node does not share {0}")]
    NotShared(GroupFile),
    /// Neither the uploader nor the group's owner asks.
    #[error("only its uploader or the owner of the group may remove {0}")]
    NotUploader(GroupFile),
    /// The user's nodes that share the file are as many as may be, and all online.
    #[error("{most} nodes of yours share {0} already", most = super::limits::NODES_PER_USER_AND_FILE)]
    TooManyNodes(GroupFile),
    /// The request id stands for another request of this session.
    #[error("this request_id was used for another request")]
    OtherRequest,
    /// The parts do not make a manifest.
    #[error("{0}")]
    BadManifest(#[from] ManifestFault),
}

/// Why parts do not make a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestFault {
    /// A part does not begin where the one before ended, or the upload is not known (any more).
    #[error("the next part of this upload begins at piece {expected}")]
    OutOfOrder {
        /// Where it has to begin.
        expected: u32,
    },
    /// Parts but the last have a fixed number of pieces, the last at most as many.
    #[error(
        "a part of {pieces} pieces: each has {}, the last at most that",
        super::limits::MANIFEST_ROW_PIECES
    )]
    PartSize {
        /// How many came.
        pieces: usize,
    },
    /// The chain does not have one state fewer than there are pieces, or only some parts have one.
    #[error("the chain does not fit: one state after each piece but the file's last")]
    Chain,
    /// The length does not divide into as many pieces as there are digests.
    #[error("{length} bytes do not make {pieces} pieces")]
    Length {
        /// Claimed length, in bytes.
        length: u64,
        /// How many digests came.
        pieces: u32,
    },
    /// The file has no bytes, but its digest is not that of nothing.
    #[error("a file of 0 bytes has the SHA-1 of nothing and no other")]
    Empty,
}
