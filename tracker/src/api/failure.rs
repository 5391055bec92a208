//! What a client reads when a request is refused: a stable word for programs, a sentence for people, and what to type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The stable word of a refusal. New ones may be added; none changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The connection speaks something else than this protocol.
    Protocol,
    /// The bytes are no JSON.
    Syntax,
    /// A field is missing, or is not what it must be.
    BadRequest,
    /// No such command.
    UnknownCommand,
    /// The command needs a login, or the session has ended.
    NotLoggedIn,
    /// Unknown user or wrong password; which of them is not told.
    WrongPassword,
    /// The user is not a member of the group.
    NotMember,
    /// The user may not do this.
    NotAllowed,
    /// There is no such user, group, file or request.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// The name is taken by a file of other content.
    OtherContent,
    /// The request, or the answer to it, is larger than one message may be.
    TooLarge,
    /// The request stopped half-way for too long.
    Timeout,
    /// Too much to do at the moment: the same request may succeed a little later.
    Busy,
    /// No tracker leads at the moment.
    NoLeader,
    /// The tracker cannot write, or cannot read, at the moment: its disk is full or failing.
    Unavailable,
    /// The tracker is at fault.
    Internal,
    /// A word that this version does not know.
    #[serde(other)]
    Other,
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestFailure {
    /// For programs.
    pub code: FailureCode,
    /// For people: what happened, to what.
    pub message: String,
    /// What to type next, where there is something.
    pub fix: Option<String>,
}

impl RequestFailure {
    /// A refusal without a fix.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> RequestFailure {
        RequestFailure { code, message: message.into(), fix: None }
    }

    /// The same with what to type next.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> RequestFailure {
        RequestFailure { fix: Some(fix.into()), ..self }
    }

    /// A field that is missing or is not what it must be.
    #[must_use]
    pub fn field(name: &str, problem: impl fmt::Display) -> RequestFailure {
        RequestFailure::new(FailureCode::BadRequest, format!("{name}: {problem}"))
    }
}
