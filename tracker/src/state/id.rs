//! Names and numbers that identify users, groups, files, sessions, requests and uploads.
//!
//! Invariant: a [`UserId`], [`GroupId`] or [`UploadId`] has 1 to 64 ASCII letters, digits, `_`, `.` or `-`. So it never
//! has the zero byte that separates the parts of a table's key.

use engine::proto::manifest::FileName;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::limits::ID_MAX_BYTES;
use super::serde_forms;

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// Empty, or longer than [`ID_MAX_BYTES`].
    #[error("an id has 1 to {ID_MAX_BYTES} characters")]
    Length,
    /// A character other than ASCII letters, digits, `_`, `.` and `-`.
    #[error("an id holds ASCII letters, digits, `_`, `.` and `-`, not {0:?}")]
    Character(char),
}

fn check_id(id: &str) -> Result<(), BadId> {
    let wrong = |c: &char| !(c.is_ascii_alphanumeric() || ['_', '.', '-'].contains(c));
    if let Some(wrong) = id.chars().find(wrong) {
        return Err(BadId::Character(wrong));
    }
    if (1..=ID_MAX_BYTES).contains(&id.len()) { Ok(()) } else { Err(BadId::Length) }
}

/// Defines an id that users choose.
macro_rules! chosen_id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks an id from outside.
            ///
            /// # Errors
            /// [`BadId`] names the broken rule.
            pub fn new(id: &str) -> Result<$type, BadId> {
                check_id(id).map(|()| $type(id.to_owned()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadId;

            fn try_from(id: String) -> Result<$type, BadId> {
                check_id(&id).map(|()| $type(id))
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }
    };
}

chosen_id!(
    /// Name of a user.
    UserId
);
chosen_id!(
    /// Name of a group.
    GroupId
);
chosen_id!(
    /// A client's id of an upload in parts, unique for its user.
    UploadId
);

/// A file of a group. The same name in two groups is two files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupFile {
    /// The group that shares it.
    pub group: GroupId,
    /// Name of the file in its group.
    #[serde(with = "serde_forms::file_name")]
    pub name: FileName,
}

impl std::fmt::Display for GroupFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.group, self.name)
    }
}

/// Random id of a login. A client proves it by the signed token around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(#[serde(with = "serde_forms::hex_bytes")] pub [u8; 16]);

/// SHA-256 of the JSON text of a client's `request_id`, whose form and length the client chooses. A retry finds
/// the first outcome by this hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(#[serde(with = "serde_forms::hex_bytes")] [u8; 32]);

impl RequestId {
    /// The id of a request whose `request_id` is the JSON `text`.
    #[must_use]
    pub fn of(text: &str) -> RequestId {
        RequestId(Sha256::digest(text).into())
    }

    /// The hash, for a table's key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A user in one of that user's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Name of the user.
    pub user: UserId,
    /// The session. Whether it is valid is checked when a command is applied.
    pub session: SessionId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_plain() {
        for good in ["a", "alice", "Team_1.x-y", "-", &"x".repeat(64)] {
            assert!(UserId::new(good).is_ok(), "{good}");
        }
        assert_eq!(GroupId::new(""), Err(BadId::Length));
        assert_eq!(GroupId::new(&"x".repeat(65)), Err(BadId::Length));
        for bad in [' ', '/', 'é', '\0', '\n', ':'] {
            assert_eq!(UserId::new(&format!("a{bad}")), Err(BadId::Character(bad)));
        }
    }

    #[test]
    fn ids_read_from_json_are_checked_too() {
        assert!(serde_json::from_str::<UserId>("\"alice\"").is_ok());
        assert!(serde_json::from_str::<UserId>("\"al ice\"").is_err());
    }
}
