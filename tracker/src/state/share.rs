//! Shares: which node holds which file completely.
//!
//! Invariants: a share stands in two tables, by file and by user, in both or in neither; each is counted in its node's
//! row. A user has at most [`NODES_PER_USER_AND_FILE`] shares of a file.

use super::binding;
use super::id::{FileKey, GroupId, SessionId, UserId};
use super::key::Key;
use super::limits::NODES_PER_USER_AND_FILE;
use super::node::Holder;
use super::outcome::Refusal;
use super::rows::{self, NodeRow};
use super::tables::{Table, Tables};

/// Refuses a share that there is no room for: the user has as many of this file as may be, all of nodes that are online.
pub(super) fn check_room(
    tables: &dyn Tables,
    file: &FileKey,
    user: &UserId,
    holder: Holder,
) -> Result<(), Refusal> {
    match room(tables, file, user, holder) {
        Room::Free | Room::InPlaceOf(_) => Ok(()),
        Room::None => Err(Refusal::TooManyNodes(file.clone())),
    }
}

/// Where one more share goes.
enum Room {
    Free,
    /// That of a node which is offline ends for it.
    InPlaceOf(Key),
    None,
}

fn room(tables: &dyn Tables, file: &FileKey, user: &UserId, holder: Holder) -> Room {
    if tables.get(Table::Shares, &Key::share(file, user, holder.place()).0).is_some() {
        return Room::Free;
    }
    let shares = rows::keys(tables, Table::Shares, &Key::shares_of_user(file, user));
    if shares.len() < NODES_PER_USER_AND_FILE {
        return Room::Free;
    }
    let is_offline = |share: &Key| {
        let (_, node) = share.share_of_file(file);
        rows::read::<NodeRow>(tables, &node).is_some_and(|row| row.logged_out)
    };
    shares.into_iter().find(is_offline).map_or(Room::None, Room::InPlaceOf)
}

/// Makes a node a holder of a file and binds it to the session, after [`check_room`]; idempotent.
pub(super) fn add(
    tables: &mut dyn Tables,
    file: &FileKey,
    user: &UserId,
    holder: Holder,
    session: SessionId,
) {
    let place = holder.place();
    let key = Key::share(file, user, place);
    if tables.get(Table::Shares, &key.0).is_some() {
        binding::bind(tables, user, holder, session);
    } else {
        if let Room::InPlaceOf(offline) = room(tables, file, user, holder) {
            end(tables, file, &offline);
        }
        rows::mark(tables, Table::Shares, &key);
        rows::mark(tables, Table::SharesByUser, &Key::share_by_user(file, user, place));
        binding::add_share(tables, user, holder, session);
    }
}

/// Ends one node's share of a file; whether there was one.
pub(super) fn remove(tables: &mut dyn Tables, file: &FileKey, user: &UserId, holder: Holder) -> bool {
    let place = holder.place();
    let was = tables.remove(Table::Shares, &Key::share(file, user, place).0);
    if was {
        tables.remove(Table::SharesByUser, &Key::share_by_user(file, user, place).0);
        binding::drop_share(tables, &Key::node(user, place));
    }
    was
}

/// Ends every share that a user has in a group.
pub(super) fn withdraw(tables: &mut dyn Tables, group: &GroupId, user: &UserId) {
    for by_user in rows::keys(tables, Table::SharesByUser, &Key::member(group, user).prefix()) {
        let (by_file, node) = by_user.share_of_user(group, user);
        tables.remove(Table::SharesByUser, &by_user.0);
        tables.remove(Table::Shares, &by_file.0);
        binding::drop_share(tables, &node);
    }
}

/// Ends every share of a file.
pub(super) fn remove_all(tables: &mut dyn Tables, file: &FileKey) {
    let prefix = Key::file(file).prefix();
    for by_file in rows::keys(tables, Table::Shares, &prefix) {
        end(tables, file, &by_file);
    }
}

fn end(tables: &mut dyn Tables, file: &FileKey, by_file: &Key) {
    let (by_user, node) = by_file.share_of_file(file);
    tables.remove(Table::Shares, &by_file.0);
    tables.remove(Table::SharesByUser, &by_user.0);
    binding::drop_share(tables, &node);
}
