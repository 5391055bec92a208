//! A refused request as the client reads it: a stable code for programs, a sentence for people, and what to type next.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The stable code of a failure. New codes may be added; the meaning of a code never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The connection does not speak this protocol.
    Protocol,
    /// The text is not JSON.
    Syntax,
    /// A field is missing or wrong.
    BadRequest,
    /// There is no such command.
    UnknownCommand,
    /// The command needs a login, or the session has ended.
    NotLoggedIn,
    /// Unknown user or wrong password; the client is not told which.
    WrongPassword,
    /// The user is not a member of the group.
    NotMember,
    /// The user lacks the right to do this.
    NotAllowed,
    /// There is no such user, group, file or request.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The name is taken by a file with other content.
    OtherContent,
    /// The request or its answer is larger than one message may be.
    TooLarge,
    /// The request was not completed in time.
    Timeout,
    /// Overloaded: the same request may succeed a little later.
    Busy,
    /// No tracker leads at the moment.
    NoLeader,
    /// The tracker cannot read or write at the moment: its disk is full or failing.
    Unavailable,
    /// A fault of the tracker itself.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Other,
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestFailure {
    /// The code, for programs.
    pub code: FailureCode,
    /// What happened, and to what; for people.
    pub message: String,
    /// What to type next, if there is something.
    pub fix: Option<String>,
}

/// Words in the message of a request for a file that a user has removed: the file was named right.
pub const FILE_REMOVED_BY: &str = "was removed from the list by";

impl RequestFailure {
    /// Makes a failure without a fix.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> RequestFailure {
        RequestFailure { code, message: message.into(), fix: None }
    }

    /// Adds what to type next.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> RequestFailure {
        RequestFailure { fix: Some(fix.into()), ..self }
    }

    /// Makes a failure for a field that is missing or wrong.
    #[must_use]
    pub fn field(name: &str, problem: impl fmt::Display) -> RequestFailure {
        RequestFailure::new(FailureCode::BadRequest, format!("{name}: {problem}"))
    }
}
