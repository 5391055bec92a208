//! Shares: which node holds which file completely.
//!
//! Invariants: a share stands in two tables, by file and by user, in both or in neither; each is counted in its node's
//! row.

use super::binding;
use super::id::{FileKey, GroupId, SessionId, UserId};
use super::key::Key;
use super::node::Holder;
use super::rows;
use super::tables::{Table, Tables};

/// Makes a node a holder of a file and binds it to the session; idempotent.
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
        let (by_user, node) = by_file.share_of_file(file);
        tables.remove(Table::Shares, &by_file.0);
        tables.remove(Table::SharesByUser, &by_user.0);
        binding::drop_share(tables, &node);
    }
}
