//! The state machine: the only way in which the replicated state changes.
//!
//! Invariants: `apply` reads nothing but the tables and the command. A refused command changes nothing but the refusal
//! remembered under its request id. An actor's command counts only while its session is valid.

use super::access::VerifiedActor;
use super::command::{LogAction, LogCommand};
use super::outcome::{ApplyResult, CommandOutcome, CommandRefusal};
use super::queries::StateQueries;
use super::tables::Tables;
use super::{account, file, group, retry, session};

/// The replicated state: rules over a set of tables.
#[derive(Clone, Debug, Default)]
pub struct StateMachine<T> {
    tables: T,
}

impl<T: Tables> StateMachine<T> {
    /// A state machine over tables that are empty or that another one left.
    pub fn new(tables: T) -> StateMachine<T> {
        StateMachine { tables }
    }

    /// The tables, for reading, comparing or copying.
    pub fn tables(&self) -> &T {
        &self.tables
    }

    /// Read-only queries.
    pub fn queries(&self) -> StateQueries<'_> {
        StateQueries::new(&self.tables)
    }

    /// Applies one command.
    ///
    /// # Errors
    /// [`CommandRefusal`]; then nothing was changed.
    pub fn apply(&mut self, command: &LogCommand) -> ApplyResult {
        if let Some(first) = retry::first_answer(&self.tables, command) {
            return first;
        }
        let answer = apply_action(&mut self.tables, command);
        retry::remember_outcome(&mut self.tables, command, &answer);
        answer
    }
}

fn apply_action(tables: &mut dyn Tables, command: &LogCommand) -> ApplyResult {
    let at_s = command.at_s;
    // An error here counts only for the actions below that need an actor, which use `?`.
    let by = command
        .by
        .as_ref()
        .ok_or(CommandRefusal::NotLoggedIn)
        .and_then(|by| VerifiedActor::find(tables, by, at_s));
    match &command.action {
        LogAction::CreateUser { user, password_hash } => {
            account::create_user(tables, at_s, user, password_hash)
        }
        LogAction::Login { user, password_epoch, session, node } => {
            session::begin_session(tables, at_s, user, *password_epoch, *session, *node)
        }
        LogAction::Expire => {
            file::expire_uploads(tables, at_s);
            session::expire_sessions(tables, at_s);
            Ok(CommandOutcome::Expired)
        }
        LogAction::Logout => Ok(session::end_own_session(tables, &by?)),
        LogAction::ChangePassword { password_epoch, password_hash } => {
            account::change_password(tables, &by?, *password_epoch, password_hash)
        }
        LogAction::Resume { node } => Ok(session::resume_node(tables, &by?, *node)),
        LogAction::CreateGroup { group, policy } => group::create_group(tables, &by?, group, *policy),
        LogAction::JoinGroup { group } => group::join_group(tables, &by?, group),
        LogAction::AcceptRequest { group, user } => group::accept_request(tables, &by?, group, user),
        LogAction::RejectRequest { group, user } => group::reject_request(tables, &by?, group, user),
        LogAction::RemoveMember { group, user } => group::remove_member(tables, &by?, group, user),
        LogAction::LeaveGroup { group } => group::leave_group(tables, &by?, group),
        LogAction::UploadPart { upload, first, part } => {
            file::upload_part(tables, &by?, upload, *first, part)
        }
        LogAction::Upload { file, manifest, node } => file::upload_file(tables, &by?, file, manifest, *node),
        LogAction::Complete { file, node, content } => {
            file::complete_file(tables, &by?, file, *node, *content)
        }
        LogAction::StopShare { file, node, content } => file::stop_share(tables, &by?, file, *node, *content),
        LogAction::RemoveFile { file } => file::remove_file(tables, &by?, file),
    }
}
