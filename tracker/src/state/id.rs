//! Names and numbers that identify things: users, groups, files, sessions, requests, uploads.
//!
//! Invariant: a [`UserId`], [`GroupId`] or [`UploadId`] has 1 to 64 ASCII letters, digits, `_`, `.` or `-`, so it
//! never holds the zero byte that separates the parts of a table's key.

use engine::proto::manifest::FileName;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::limits::ID_MAX_BYTES;
use super::serde_forms;

/// What was meant to be an id is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// No characters, or more than [`ID_MAX_BYTES`].
    #[error("an id has 1 to {ID_MAX_BYTES} characters")]
    Length,
    /// Something other than ASCII letters, digits, `_`, `.` and `-`.
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

/// The ids that people choose share one rule and one text form.
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
            /// [`BadId`] says which rule it breaks.
            pub fn new(id: &str) -> Result<$type, BadId> {
                check_id(id).map(|()| $type(id.to_owned()))
            }

            /// The id.
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
    /// A user's name.
    UserId
);
chosen_id!(
    /// A group's name.
    GroupId
);
chosen_id!(
    /// What a client calls an upload in parts; its own for each user.
    UploadId
);

/// The identity under which the tracker knows a file: the same name in two groups is two files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupFile {
    /// The group that it is shared in.
    pub group: GroupId,
    /// Its name there.
    #[serde(with = "serde_forms::file_name")]
    pub name: FileName,
}

impl std::fmt::Display for GroupFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.group, self.name)
    }
}

/// A login's random id; its holder proves it by the signed token around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(#[serde(with = "serde_forms::hex_bytes")] pub [u8; 16]);

/// What a client calls a request, so that it can ask again for the first outcome: the SHA-256 of its JSON text, for
/// clients choose ids of any form and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(#[serde(with = "serde_forms::hex_bytes")] [u8; 32]);

impl RequestId {
    /// The id of a request whose `request_id` reads `text`.
    #[must_use]
    pub fn of(text: &str) -> RequestId {
        RequestId(Sha256::digest(text).into())
    }

    /// The id as bytes of a key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Who asks: a user, in one of that user's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user.
    pub user: UserId,
    /// The session; whether it still holds is checked when the command is applied.
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
