//! Answers in words: successes with a message, and the state's refusals as failures with what to type.

use crate::api::answers::Answer;
use crate::api::failure::{Failure, FailureCode};
use crate::api::response::Success;
use crate::replica::Unproposed;
use crate::state::id::{FileKey, GroupId};
use crate::state::outcome::{Outcome, Refusal};

/// What a request came to.
pub(in crate::server) type Reply = Result<Success, Failure>;

/// A success that adds nothing but its message.
pub(super) fn done(message: impl Into<String>) -> Reply {
    with(message, Answer::Done {})
}

/// A success with its fields.
#[expect(clippy::unnecessary_wraps, reason = "it ends functions that can also refuse")]
pub(super) fn with(message: impl Into<String>, answer: Answer) -> Reply {
    Ok(Success { message: message.into(), answer })
}

/// A number and what it counts, in words.
pub(super) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn logged_out() -> Reply {
    done("logged out; the shares of this session are offline until the next login")
}

/// The connection belongs to no session, or the session has ended.
pub(super) fn not_logged_in() -> Failure {
    Failure::new(FailureCode::NotLoggedIn, "not logged in, or the session has ended").with_fix("login USER")
}

/// The same words for an unknown user and a wrong password.
pub(super) fn wrong_password() -> Failure {
    Failure::new(FailureCode::WrongPassword, "unknown user or wrong password")
        .with_fix("login USER with the right password, or create_user USER first")
}

/// Too many passwords are waiting for their hash.
pub(in crate::server) fn busy() -> Failure {
    Failure::new(FailureCode::Busy, "too many logins at this moment")
        .with_fix("the same again in a few seconds")
}

/// The tracker is at fault; the log says how.
pub(in crate::server) fn internal() -> Failure {
    Failure::new(FailureCode::Internal, "the tracker failed to carry this out; its log says why")
}

/// The log did not take the command.
pub(in crate::server) fn unproposed(why: &Unproposed) -> Failure {
    let (code, fix) = match why {
        Unproposed::TooLarge { .. } => (FailureCode::TooLarge, "the same in smaller parts"),
        Unproposed::Busy => (FailureCode::Busy, "the same again in a few seconds"),
        Unproposed::Full { .. } => {
            (FailureCode::Unavailable, "the same again when the tracker's operator has freed some space")
        }
        Unproposed::NoLeader => (FailureCode::NoLeader, "the same again in a few seconds"),
        Unproposed::Unavailable(_) | Unproposed::Unknown(_) => (
            FailureCode::Unavailable,
            "the same again in a few seconds; if it stays, the tracker's log says why",
        ),
    };
    Failure::new(code, why.to_string()).with_fix(fix)
}

/// The state could not be read.
pub(in crate::server) fn unread() -> Failure {
    Failure::new(
        FailureCode::Unavailable,
        "the tracker cannot read its state at the moment; its log says why",
    )
    .with_fix("the same again in a few seconds")
}

/// No such group.
pub(super) fn no_group(group: &GroupId) -> Failure {
    refused(&Refusal::NoSuchGroup(group.clone()))
}

/// Not a member.
pub(super) fn not_member(group: &GroupId) -> Failure {
    refused(&Refusal::NotMember(group.clone()))
}

/// No such file.
pub(super) fn no_file(file: &FileKey) -> Failure {
    refused(&Refusal::NoSuchFile(file.clone()))
}

/// An outcome that the command cannot have: the state and this server disagree.
pub(super) fn unexpected(outcome: &Outcome) -> Failure {
    tracing::error!(?outcome, "the state answered another command");
    internal()
}

/// A refusal of the state.
pub(super) fn refused(refusal: &Refusal) -> Failure {
    let code = match refusal {
        Refusal::NotLoggedIn => return not_logged_in(),
        Refusal::PasswordChanged => return wrong_password(),
        Refusal::UserExists(_) | Refusal::GroupExists(_) | Refusal::AlreadyMember(_) => {
            FailureCode::AlreadyExists
        }
        Refusal::NoSuchUser(_)
        | Refusal::NoSuchGroup(_)
        | Refusal::NoSuchRequest { .. }
        | Refusal::NoSuchMember { .. }
        | Refusal::NoSuchFile(_)
        | Refusal::NotShared(_) => FailureCode::NotFound,
        Refusal::NotMember(_) => FailureCode::NotMember,
        Refusal::NotOwner(_)
        | Refusal::OwnerStays(_)
        | Refusal::NotUploader(_)
        | Refusal::TooManyNodes(_) => FailureCode::NotAllowed,
        Refusal::OtherContent(_) => FailureCode::OtherContent,
        Refusal::OtherRequest | Refusal::BadManifest(_) => FailureCode::BadRequest,
    };
    let failure = Failure::new(code, refusal.to_string());
    match fix(refusal) {
        Some(fix) => failure.with_fix(fix),
        None => failure,
    }
}

fn fix(refusal: &Refusal) -> Option<String> {
    Some(match refusal {
        Refusal::UserExists(user) => format!("login {user}, or create_user with another name"),
        Refusal::GroupExists(group) => format!("join_group {group}, or create_group with another name"),
        Refusal::NoSuchGroup(_) => "list_groups".to_owned(),
        Refusal::AlreadyMember(group) => format!("list_files {group}"),
        Refusal::NotMember(group) => format!("join_group {group}"),
        Refusal::NotOwner(_) => "ask the group's owner: list_groups shows who that is".to_owned(),
        Refusal::NoSuchRequest { group, .. } => format!("list_requests {group}"),
        Refusal::OwnerStays(group) => format!("leave_group {group}"),
        Refusal::NoSuchFile(file) => format!("list_files {}", file.group),
        Refusal::OtherContent(file) => {
            format!("upload it under another name, or remove_file {} {} first", file.group, file.name)
        }
        Refusal::TooManyNodes(file) => {
            format!(
                "stop_share {} {} on a node that needs it no more, or logout there",
                file.group, file.name
            )
        }
        _ => return None,
    })
}
