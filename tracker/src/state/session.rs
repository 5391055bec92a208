//! Sessions: they begin with a login, keep nodes online, and end by logout, by a change of password or by age.
//!
//! Invariants: every session is in its user's index. Its row stays until it expires, even if the session ended before.

use super::access::VerifiedActor;
use super::binding;
use super::id::{Actor, SessionId, UserId};
use super::limits::{SESSION_LIFE_S, SESSIONS_PER_USER};
use super::node::NodeEndpoint;
use super::outcome::{ApplyResult, CommandOutcome, CommandRefusal};
use super::retry;
use super::row_key::{self, RowKey};
use super::rows::{self, SessionRow, UserRow};
use super::tables::{Table, Tables};

pub(super) fn begin_session(
    tables: &mut dyn Tables,
    at_s: u64,
    user: &UserId,
    password_epoch: u32,
    session: SessionId,
    node: Option<NodeEndpoint>,
) -> ApplyResult {
    let account: UserRow = rows::read_row(tables, &RowKey::user(user))
        .ok_or_else(|| CommandRefusal::NoSuchUser(user.clone()))?;
    if account.password_epoch != password_epoch {
        return Err(CommandRefusal::PasswordChanged);
    }
    let key = RowKey::session(session);
    if let Some(row) = rows::read_row::<SessionRow>(tables, &key) {
        // Ids are random, so the same id means the same login, proposed twice.
        let same = row.user == *user && row.holds_at(at_s);
        return if same { Ok(CommandOutcome::LoggedIn) } else { Err(CommandRefusal::NotLoggedIn) };
    }
    make_room(tables, user);
    let expires_s = at_s.saturating_add(SESSION_LIFE_S);
    let row = SessionRow { user: user.clone(), password_epoch, expires_s, ended: false, node, answers: 0 };
    rows::write_row(tables, &key, &row);
    rows::write_key_only(tables, Table::UserSessions, &RowKey::user_session(user, session));
    if let Some(holder) = node {
        binding::bind_node(tables, user, holder, session);
    }
    Ok(CommandOutcome::LoggedIn)
}

pub(super) fn end_own_session(tables: &mut dyn Tables, by: &VerifiedActor<'_>) -> CommandOutcome {
    end_session(tables, by.actor.session);
    CommandOutcome::LoggedOut
}

/// Ends all sessions of the actor's user except the actor's own.
pub(super) fn end_other_sessions(tables: &mut dyn Tables, actor: &Actor) {
    for session in sessions_of_user(tables, &actor.user) {
        if session != actor.session {
            end_session(tables, session);
        }
    }
}

pub(super) fn resume_node(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    claimed: NodeEndpoint,
) -> CommandOutcome {
    let node = record_node(tables, by, claimed);
    if let Some(before) = by.session.node {
        binding::move_keyless_node(tables, &by.actor.user, before, node, by.actor.session);
    }
    binding::bind_node(tables, &by.actor.user, node, by.actor.session);
    CommandOutcome::Resumed
}

/// The node that a command means, recorded in the session's row.
pub(super) fn record_node(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    claimed: NodeEndpoint,
) -> NodeEndpoint {
    assert_eq!(by.session.user, by.actor.user, "a session belongs to its actor");
    let node = by.node(claimed);
    if by.session.node != Some(node) {
        let row = SessionRow { node: Some(node), ..by.session.clone() };
        rows::write_row(tables, &RowKey::session(by.actor.session), &row);
    }
    node
}

/// Removes expired sessions, and the outcomes remembered for them.
pub(super) fn expire_sessions(tables: &mut dyn Tables, at_s: u64) {
    let mut past = Vec::new();
    rows::visit_rows::<SessionRow>(tables, &[], |id, row| {
        if at_s >= row.expires_s {
            past.push((row_key::session_id(id), row.user));
        }
    });
    for (session, user) in past {
        remove_session(tables, &user, session);
    }
}

/// Removes a session with the outcomes remembered for it.
fn remove_session(tables: &mut dyn Tables, user: &UserId, session: SessionId) {
    binding::take_offline(tables, session);
    retry::forget_session(tables, session);
    tables.remove(Table::UserSessions, &RowKey::user_session(user, session).0);
    tables.remove(Table::Sessions, &RowKey::session(session).0);
}

/// Removes sessions of a user who has the most until one more fits: those that have ended first, then the oldest.
fn make_room(tables: &mut dyn Tables, user: &UserId) {
    let known = sessions_of_user(tables, user);
    let Some(surplus) = (known.len() + 1).checked_sub(SESSIONS_PER_USER).filter(|surplus| *surplus > 0)
    else {
        return;
    };
    let age = |session: SessionId| {
        let row: SessionRow = rows::indexed_row(tables, &RowKey::session(session));
        (!row.ended, row.expires_s, session)
    };
    let mut by_age: Vec<_> = known.into_iter().map(age).collect();
    by_age.sort_unstable();
    for (_, _, session) in by_age.into_iter().take(surplus) {
        remove_session(tables, user, session);
    }
}

/// The sessions of a user, ended ones included.
pub(super) fn sessions_of_user(tables: &dyn Tables, user: &UserId) -> Vec<SessionId> {
    let prefix = RowKey::user(user).prefix();
    let keys = rows::collect_keys(tables, Table::UserSessions, &prefix);
    keys.iter().map(|key| row_key::session_id(&key.0[prefix.len()..])).collect()
}

fn end_session(tables: &mut dyn Tables, session: SessionId) {
    let key = RowKey::session(session);
    if let Some(mut row) = rows::read_row::<SessionRow>(tables, &key)
        && !row.ended
    {
        row.ended = true;
        rows::write_row(tables, &key, &row);
        binding::take_offline(tables, session);
    }
}
