//! The messages of answers: successes, and the state's refusals as failures with what to do next.

use crate::api::answers::CommandAnswer;
use crate::api::failure::{FILE_REMOVED_BY, FailureCode, RequestFailure};
use crate::api::response::CommandSuccess;
use crate::replica::ProposalError;
use crate::state::id::{GroupFile, GroupId, UserId};
use crate::state::limits::TICKET_KEYS_PER_SESSION;
use crate::state::outcome::{CommandOutcome, CommandRefusal};
use crate::state::queries::FileView;

use super::super::passwords::PasswordResult;

pub(in crate::server) type Reply = Result<CommandSuccess, RequestFailure>;

pub(super) fn plain_success(message: impl Into<String>) -> CommandSuccess {
    success_with(message, CommandAnswer::Done {})
}

pub(super) fn success_with(message: impl Into<String>, answer: CommandAnswer) -> CommandSuccess {
    CommandSuccess { message: message.into(), answer }
}

/// A number with its noun in singular or plural.
pub(super) fn count_noun(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn logged_out() -> CommandSuccess {
    plain_success("logged out; the shares of this session are offline until the next login")
}

/// The connection has no session, or the session has ended.
pub(super) fn not_logged_in() -> RequestFailure {
    RequestFailure::new(FailureCode::NotLoggedIn, "not logged in, or the session has ended")
        .with_fix("login USER, or create_user USER for a new account")
}

/// The same message for an unknown user and a wrong password.
pub(super) fn wrong_password() -> RequestFailure {
    RequestFailure::new(FailureCode::WrongPassword, "unknown user or wrong password")
        .with_fix("login USER with the right password, or create_user USER first")
}

/// A password was neither right nor wrong: too many wait, or the tracker has a fault.
pub(super) fn untried_password(result: &PasswordResult) -> RequestFailure {
    if *result == PasswordResult::Refused {
        return RequestFailure::new(FailureCode::Busy, "too many logins at the moment")
            .with_fix("try again in a few seconds");
    }
    internal_failure()
}

/// Too many passwords were tried.
pub(super) fn too_many_attempts(wait_ms: u64) -> RequestFailure {
    let wait_s = wait_ms.div_ceil(1_000);
    RequestFailure::new(FailureCode::Busy, "too many passwords were tried from this address")
        .with_fix(format!("try again in {wait_s} s"))
}

/// Too many nodes are called back, or too often for one user.
pub(in crate::server) fn too_many_checks() -> RequestFailure {
    RequestFailure::new(FailureCode::Busy, "too many addresses are being checked at the moment")
        .with_fix("try again in a minute")
}

/// The session has had tickets for other peer keys.
pub(super) fn too_many_keys() -> RequestFailure {
    let message =
        format!("peer_key: this session has had tickets for {TICKET_KEYS_PER_SESSION} other peer keys");
    RequestFailure::new(FailureCode::NotAllowed, message).with_fix("login USER, once for each node")
}

/// A fault of the tracker, which its log describes.
pub(in crate::server) fn internal_failure() -> RequestFailure {
    RequestFailure::new(FailureCode::Internal, "the tracker could not carry this out; its log says why")
}

/// The replica did not apply the command.
pub(in crate::server) fn proposal_failure(why: &ProposalError) -> RequestFailure {
    let (code, fix) = match why {
        ProposalError::TooLarge { .. } => (FailureCode::TooLarge, "send it in smaller parts"),
        ProposalError::Busy => (FailureCode::Busy, "try again in a few seconds"),
        ProposalError::Full { .. } => {
            (FailureCode::Unavailable, "try again when the tracker's operator has freed disk space")
        }
        ProposalError::Gone { .. } => {
            (FailureCode::Unavailable, "try again when the tracker's operator has restored its files")
        }
        ProposalError::NoLeader => (FailureCode::NoLeader, "try again in a few seconds"),
        ProposalError::Unavailable(_) | ProposalError::Unknown(_) => (
            FailureCode::Unavailable,
            "try again in a few seconds; if the failure stays, see the tracker's log",
        ),
    };
    RequestFailure::new(code, why.to_string()).with_fix(fix)
}

pub(in crate::server) fn unreadable_state() -> RequestFailure {
    RequestFailure::new(
        FailureCode::Unavailable,
        "the tracker cannot read its state at the moment; its log says why",
    )
    .with_fix("try again in a few seconds")
}

pub(super) fn no_group(group: &GroupId) -> RequestFailure {
    CommandRefusal::NoSuchGroup(group.clone()).into()
}

/// The user wants to create a group, but is a member of one of this name.
pub(super) fn own_group(group: &GroupId) -> RequestFailure {
    RequestFailure::from(CommandRefusal::GroupExists(group.clone()))
        .with_fix(format!("you are in it: list_files {group}, or create_group with another name"))
}

/// The user is not a member; `remover` is the owner who ended the membership, if that is known.
pub(super) fn not_member(group: &GroupId, remover: Option<&UserId>) -> RequestFailure {
    let failure: RequestFailure = CommandRefusal::NotMember(group.clone()).into();
    let Some(owner) = remover else { return failure };
    RequestFailure {
        message: format!("{owner}, the owner of group {group}, has removed you from it"),
        ..failure
    }
}

pub(super) fn no_file(file: &GroupFile) -> RequestFailure {
    CommandRefusal::NoSuchFile(file.clone()).into()
}

/// No file is listed under a name; `remover` is the user who removed the last one, if that is known.
pub(super) fn file_gone(file: &GroupFile, remover: Option<&UserId>) -> RequestFailure {
    let failure = no_file(file);
    let Some(remover) = remover else { return failure };
    RequestFailure { message: format!("{file} {FILE_REMOVED_BY} {remover}"), ..failure }
}

/// Other content is listed under a name than the request means.
pub(super) fn content_replaced(
    file: &GroupFile,
    listed: &FileView,
    remover: Option<&UserId>,
) -> RequestFailure {
    let removed = remover.map(|by| format!("{FILE_REMOVED_BY} {by}, and ")).unwrap_or_default();
    let (content, uploader) = (listed.content().id, &listed.uploader);
    let message = format!("{file} {removed}has other content now (SHA-1 {content}, uploaded by {uploader})");
    RequestFailure { message, ..CommandRefusal::ContentReplaced(file.clone()).into() }
}

/// Logs an outcome that the command cannot have.
pub(super) fn unexpected_outcome(outcome: &CommandOutcome) -> RequestFailure {
    tracing::error!(?outcome, "the state machine gave the outcome of another command");
    internal_failure()
}

impl From<CommandRefusal> for RequestFailure {
    /// A refusal of the state machine, with its code and what to do next.
    fn from(refusal: CommandRefusal) -> RequestFailure {
        let code = match &refusal {
            CommandRefusal::NotLoggedIn => return not_logged_in(),
            CommandRefusal::PasswordChanged => return wrong_password(),
            CommandRefusal::UserExists(_)
            | CommandRefusal::GroupExists(_)
            | CommandRefusal::AlreadyMember(_) => FailureCode::AlreadyExists,
            CommandRefusal::NoSuchUser(_)
            | CommandRefusal::NoSuchGroup(_)
            | CommandRefusal::NoSuchRequest { .. }
            | CommandRefusal::NoSuchMember { .. }
            | CommandRefusal::NoSuchFile(_)
            | CommandRefusal::NotShared(_) => FailureCode::NotFound,
            CommandRefusal::NotMember(_) => FailureCode::NotMember,
            CommandRefusal::NotOwner(_)
            | CommandRefusal::OwnerStays(_)
            | CommandRefusal::NotUploader(_)
            | CommandRefusal::TooManyNodes(_) => FailureCode::NotAllowed,
            CommandRefusal::TooManyParts => FailureCode::Busy,
            CommandRefusal::OtherContent(_) | CommandRefusal::ContentReplaced(_) => FailureCode::OtherContent,
            CommandRefusal::OtherRequest | CommandRefusal::BadManifest(_) => FailureCode::BadRequest,
        };
        let failure = RequestFailure::new(code, refusal.to_string());
        match suggest_fix(&refusal) {
            Some(fix) => failure.with_fix(fix),
            None => failure,
        }
    }
}

fn suggest_fix(refusal: &CommandRefusal) -> Option<String> {
    Some(match refusal {
        CommandRefusal::TooManyParts => {
            "finish the uploads that you have begun, or try again in 10 minutes".to_owned()
        }
        CommandRefusal::UserExists(user) => format!("login {user}, or create_user with another name"),
        CommandRefusal::GroupExists(group) => {
            format!("join_group {group}, or create_group with another name")
        }
        CommandRefusal::NoSuchGroup(_) => "list_groups".to_owned(),
        CommandRefusal::AlreadyMember(group) => format!("list_files {group}"),
        CommandRefusal::NotMember(group) => format!("join_group {group}"),
        CommandRefusal::NotOwner(_) => "ask the group's owner: list_groups shows who that is".to_owned(),
        CommandRefusal::NoSuchRequest { group, .. } => format!("list_requests {group}"),
        CommandRefusal::OwnerStays(group) => format!("leave_group {group}"),
        CommandRefusal::NoSuchFile(file) | CommandRefusal::ContentReplaced(file) => {
            format!("list_files {}", file.group)
        }
        CommandRefusal::OtherContent(file) => {
            format!(
                "upload it under another name; or its uploader or the group's owner can remove_file {} {} first",
                file.group, file.name
            )
        }
        CommandRefusal::TooManyNodes(file) => {
            format!(
                "stop_share {} {} on a node that needs it no more, or logout there",
                file.group, file.name
            )
        }
        _ => return None,
    })
}
