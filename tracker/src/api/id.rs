//! Names of users and groups: 1 to 64 of ASCII letters, digits, `_`, `.` and `-`, by construction.

use std::fmt;

/// Longest id, in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// What was meant to be the id of a user or a group is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to {MAX_ID_BYTES} ASCII letters, digits, `_`, `.` or `-`")]
pub struct BadId;

fn checked(text: &str) -> Result<String, BadId> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(BadId)
    }
}

/// Two kinds of id follow one rule and are never taken for each other.
macro_rules! id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Checks a name from outside.
            ///
            /// # Errors
            /// [`BadId`] when it breaks the rule of this file's head.
            pub fn new(text: &str) -> Result<$type, BadId> {
                checked(text).map($type)
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// Who someone is to the trackers.
    UserId
);
id!(
    /// A set of users who share files.
    GroupId
);
