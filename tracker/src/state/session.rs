//! Sessions: they begin with a login, keep nodes online, and end by logout, by a change of password or by age.
//!
//! Invariants: every session is in its user's index; its row stays until it expires, also when it has ended before.

use super::acting::Acting;
use super::binding;
use super::id::{Actor, SessionId, UserId};
use super::key::{self, Key};
use super::limits::SESSION_LIFE_S;
use super::node::Holder;
use super::outcome::{Outcome, Refusal};
use super::retry;
use super::rows::{self, SessionRow, UserRow};
use super::tables::{Table, Tables};

pub(super) fn begin(
    tables: &mut dyn Tables,
    at_s: u64,
    user: &UserId,
    password_epoch: u32,
    session: SessionId,
    node: Option<Holder>,
) -> Result<Outcome, Refusal> {
    let account: UserRow =
        rows::read(tables, &Key::user(user)).ok_or_else(|| Refusal::NoSuchUser(user.clone()))?;
    if account.password_epoch != password_epoch {
        return Err(Refusal::PasswordChanged);
    }
    let key = Key::session(session);
    if let Some(row) = rows::read::<SessionRow>(tables, &key) {
        // Ids are random: the same again is the same login, proposed twice.
        let same = row.user == *user && row.holds_at(at_s);
        return if same { Ok(Outcome::LoggedIn) } else { Err(Refusal::NotLoggedIn) };
    }
    let expires_s = at_s.saturating_add(SESSION_LIFE_S);
    let row = SessionRow { user: user.clone(), password_epoch, expires_s, ended: false, node, answers: 0 };
    rows::write(tables, &key, &row);
    rows::mark(tables, Table::UserSessions, &Key::user_session(user, session));
    if let Some(holder) = node {
        binding::bind(tables, user, holder, session);
    }
    Ok(Outcome::LoggedIn)
}

pub(super) fn end(tables: &mut dyn Tables, by: &Acting<'_>) -> Outcome {
    end_session(tables, by.actor.session);
    Outcome::LoggedOut
}

/// Ends all sessions of the actor's user but the actor's own.
pub(super) fn end_others(tables: &mut dyn Tables, actor: &Actor) {
    for session in of_user(tables, &actor.user) {
        if session != actor.session {
            end_session(tables, session);
        }
    }
}

pub(super) fn resume(tables: &mut dyn Tables, by: &Acting<'_>, said: Holder) -> Outcome {
    let node = settle_node(tables, by, said);
    binding::bind(tables, &by.actor.user, node, by.actor.session);
    Outcome::Resumed
}

/// The node that a command means, noted as the session's.
pub(super) fn settle_node(tables: &mut dyn Tables, by: &Acting<'_>, said: Holder) -> Holder {
    let node = by.node(said);
    if by.session.node != Some(node) {
        let row = SessionRow { node: Some(node), ..by.session.clone() };
        rows::write(tables, &Key::session(by.actor.session), &row);
    }
    node
}

/// Forgets sessions past their time, and what was remembered for them.
pub(super) fn expire(tables: &mut dyn Tables, at_s: u64) {
    let mut past = Vec::new();
    rows::visit::<SessionRow>(tables, &[], |id, row| {
        if at_s >= row.expires_s {
            past.push((key::session_id(id), row.user));
        }
    });
    for (session, user) in past {
        binding::take_offline(tables, session);
        retry::forget_session(tables, session);
        tables.remove(Table::UserSessions, &Key::user_session(&user, session).0);
        tables.remove(Table::Sessions, &Key::session(session).0);
    }
}

/// The sessions of a user, ended ones too.
pub(super) fn of_user(tables: &dyn Tables, user: &UserId) -> Vec<SessionId> {
    let prefix = Key::user(user).prefix();
    let keys = rows::keys(tables, Table::UserSessions, &prefix);
    keys.iter().map(|key| key::session_id(&key.0[prefix.len()..])).collect()
}

fn end_session(tables: &mut dyn Tables, session: SessionId) {
    let key = Key::session(session);
    if let Some(mut row) = rows::read::<SessionRow>(tables, &key)
        && !row.ended
    {
        row.ended = true;
        rows::write(tables, &key, &row);
        binding::take_offline(tables, session);
    }
}
