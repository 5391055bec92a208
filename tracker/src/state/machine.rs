//! The state machine: the one way in which the replicated state changes.
//!
//! Invariants: `apply` reads nothing but the tables and the command; a refused command leaves the tables as they were,
//! save for the refusal that is remembered under its request id; an actor's command counts only while its session
//! holds.

use super::acting::Acting;
use super::command::{Action, Command};
use super::outcome::{Outcome, Refusal};
use super::queries::Queries;
use super::tables::Tables;
use super::{account, file, group, retry, session};

/// The replicated state and its rules.
#[derive(Clone, Debug, Default)]
pub struct Machine<T> {
    tables: T,
}

impl<T: Tables> Machine<T> {
    /// The machine over tables, empty or as an earlier machine left them.
    pub fn new(tables: T) -> Machine<T> {
        Machine { tables }
    }

    /// The tables, to be read, compared or copied.
    pub fn tables(&self) -> &T {
        &self.tables
    }

    /// Read-only questions.
    pub fn queries(&self) -> Queries<'_> {
        Queries::new(&self.tables)
    }

    /// Applies one command.
    ///
    /// # Errors
    /// [`Refusal`] says why nothing was changed.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        if let Some(first) = retry::first_answer(&self.tables, command) {
            return first;
        }
        let answer = decide(&mut self.tables, command);
        retry::remember(&mut self.tables, command, &answer);
        answer
    }
}

fn decide(tables: &mut dyn Tables, command: &Command) -> Result<Outcome, Refusal> {
    let at_s = command.at_s;
    // Asked for with `?` by every action that needs an actor, and by no other.
    let by = command.by.as_ref().ok_or(Refusal::NotLoggedIn).and_then(|by| Acting::find(tables, by, at_s));
    match &command.action {
        Action::CreateUser { user, password_hash } => account::create(tables, at_s, user, password_hash),
        Action::Login { user, password_epoch, session, node } => {
            session::begin(tables, at_s, user, *password_epoch, *session, *node)
        }
        Action::Expire => {
            file::expire_uploads(tables, at_s);
            session::expire(tables, at_s);
            Ok(Outcome::Expired)
        }
        Action::Logout => Ok(session::end(tables, &by?)),
        Action::ChangePassword { password_epoch, password_hash } => {
            account::change_password(tables, &by?, *password_epoch, password_hash)
        }
        Action::Resume { node } => Ok(session::resume(tables, &by?, *node)),
        Action::CreateGroup { group, policy } => group::create(tables, &by?, group, *policy),
        Action::JoinGroup { group } => group::join(tables, &by?, group),
        Action::AcceptRequest { group, user } => group::accept(tables, &by?, group, user),
        Action::RejectRequest { group, user } => group::reject(tables, &by?, group, user),
        Action::RemoveMember { group, user } => group::remove_member(tables, &by?, group, user),
        Action::LeaveGroup { group } => group::leave(tables, &by?, group),
        Action::UploadPart { upload, first, part } => file::upload_part(tables, &by?, upload, *first, part),
        Action::Upload { file, manifest, node } => file::upload(tables, &by?, file, manifest, *node),
        Action::Complete { file, node } => file::complete(tables, &by?, file, *node),
        Action::StopShare { file, node } => file::stop_share(tables, &by?, file, *node),
        Action::RemoveFile { file } => file::remove(tables, &by?, file),
    }
}
