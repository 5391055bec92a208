//! Accounts: users and their passwords' hashes, which the machine keeps and never reads.

use super::acting::Acting;
use super::id::UserId;
use super::key::Key;
use super::outcome::{Outcome, Refusal};
use super::rows::{self, UserRow};
use super::session;
use super::tables::Tables;

pub(super) fn create(
    tables: &mut dyn Tables,
    at_s: u64,
    user: &UserId,
    password_hash: &str,
) -> Result<Outcome, Refusal> {
    let key = Key::user(user);
    if rows::read::<UserRow>(tables, &key).is_some() {
        return Err(Refusal::UserExists(user.clone()));
    }
    let row = UserRow { password_hash: password_hash.to_owned(), password_epoch: 0, created_s: at_s };
    rows::write(tables, &key, &row);
    Ok(Outcome::UserCreated)
}

/// The old password was checked outside, against the epoch that comes along: of two changes at once one is refused.
pub(super) fn change_password(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    password_epoch: u32,
    password_hash: &str,
) -> Result<Outcome, Refusal> {
    let key = Key::user(&by.actor.user);
    let mut row: UserRow = rows::read(tables, &key).ok_or(Refusal::NotLoggedIn)?;
    if row.password_epoch != password_epoch {
        return Err(Refusal::PasswordChanged);
    }
    row.password_hash = password_hash.to_owned();
    row.password_epoch += 1;
    rows::write(tables, &key, &row);
    session::end_others(tables, by.actor);
    Ok(Outcome::PasswordChanged { password_epoch: row.password_epoch })
}
