//! Which session keeps which node online.
//!
//! Invariants: a node's row is there exactly while the node has shares; it names the node's session, and that session's
//! index names the node; when a session ends, its nodes are offline until a login binds them to another.

use super::id::{SessionId, UserId};
use super::key::Key;
use super::node::Holder;
use super::rows::{self, NodeRow};
use super::tables::{Table, Tables};

/// Counts one share more of a node, which is online in this session from now on.
pub(super) fn add_share(tables: &mut dyn Tables, user: &UserId, holder: Holder, session: SessionId) {
    let key = Key::node(user, holder.place());
    let before: Option<NodeRow> = rows::read(tables, &key);
    let shares = before.as_ref().map_or(0, |row| row.shares) + 1;
    rebind(tables, &key, before.as_ref(), &NodeRow { holder, session, logged_out: false, shares });
}

/// Counts one share less of the node under `key`; the last one takes the row along.
pub(super) fn drop_share(tables: &mut dyn Tables, key: &Key) {
    let mut row: NodeRow = rows::named(tables, key);
    row.shares -= 1;
    if row.shares == 0 {
        tables.remove(Table::Nodes, &key.0);
        tables.remove(Table::SessionNodes, &Key::session_node(row.session, key).0);
    } else {
        rows::write(tables, key, &row);
    }
}

/// Brings a node online in a session, at the address where it listens now; nothing to do for one without shares.
pub(super) fn bind(tables: &mut dyn Tables, user: &UserId, holder: Holder, session: SessionId) {
    let key = Key::node(user, holder.place());
    let Some(before) = rows::read::<NodeRow>(tables, &key) else { return };
    let row = NodeRow { holder, session, logged_out: false, shares: before.shares };
    rebind(tables, &key, Some(&before), &row);
}

/// Writes what has changed of a node's row, and moves it to the index of its session.
fn rebind(tables: &mut dyn Tables, key: &Key, before: Option<&NodeRow>, row: &NodeRow) {
    let session_before = before.map(|before| before.session);
    if session_before != Some(row.session) {
        if let Some(session) = session_before {
            tables.remove(Table::SessionNodes, &Key::session_node(session, key).0);
        }
        rows::mark(tables, Table::SessionNodes, &Key::session_node(row.session, key));
    }
    if before != Some(row) {
        rows::write(tables, key, row);
    }
}

/// Takes a session's nodes offline.
pub(super) fn take_offline(tables: &mut dyn Tables, session: SessionId) {
    for index in rows::keys(tables, Table::SessionNodes, &Key::session(session).prefix()) {
        let key = Key::node_in_session(&index);
        let mut row: NodeRow = rows::named(tables, &key);
        row.logged_out = true;
        rows::write(tables, &key, &row);
    }
}
