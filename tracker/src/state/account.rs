//! Accounts: users and the hashes of their passwords. The state machine stores the hashes and never reads them.

use super::access::VerifiedActor;
use super::id::UserId;
use super::outcome::{ApplyResult, CommandOutcome, CommandRefusal};
use super::row_key::RowKey;
use super::rows::{self, UserRow};
use super::session;
use super::tables::Tables;

pub(super) fn create_user(
    tables: &mut dyn Tables,
    at_s: u64,
    user: &UserId,
    password_hash: &str,
) -> ApplyResult {
    let key = RowKey::user(user);
    if rows::read_row::<UserRow>(tables, &key).is_some() {
        return Err(CommandRefusal::UserExists(user.clone()));
    }
    let row = UserRow { password_hash: password_hash.to_owned(), password_epoch: 0, created_s: at_s };
    rows::write_row(tables, &key, &row);
    Ok(CommandOutcome::UserCreated)
}

/// Sets another password. The old one was checked when the epoch was `password_epoch`. A different epoch now means that
/// another change came first, and this one is refused.
pub(super) fn change_password(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    password_epoch: u32,
    password_hash: &str,
) -> ApplyResult {
    let key = RowKey::user(&by.actor.user);
    let mut row: UserRow = rows::read_row(tables, &key).ok_or(CommandRefusal::NotLoggedIn)?;
    if row.password_epoch != password_epoch {
        return Err(CommandRefusal::PasswordChanged);
    }
    row.password_hash = password_hash.to_owned();
    row.password_epoch += 1;
    rows::write_row(tables, &key, &row);
    session::end_other_sessions(tables, by.actor);
    Ok(CommandOutcome::PasswordChanged { password_epoch: row.password_epoch })
}
