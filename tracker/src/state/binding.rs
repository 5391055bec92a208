//! Which session keeps which node online.
//!
//! Invariants: a node's row exists exactly while the node has shares. It names the node's session, and that session's
//! index names the node. When a session ends, its nodes are offline until a login binds them to another session.

use super::id::{SessionId, UserId};
use super::node::NodeEndpoint;
use super::row_key::RowKey;
use super::rows::{self, NodeRow};
use super::tables::{Table, Tables};

/// The key of a node's row. A node without a peer key keeps the identity under which its session listed it first, also after it
/// moved to another address.
pub(super) fn node_key(
    tables: &dyn Tables,
    user: &UserId,
    holder: NodeEndpoint,
    session: SessionId,
) -> RowKey {
    let own = || RowKey::node(user, holder.identity());
    match holder.peer_key {
        Some(_) => own(),
        None => keyless_rows(tables, user, holder, session).next().unwrap_or_else(own),
    }
}

/// Keys of the rows of a session's nodes without a peer key that listen at the holder's address.
fn keyless_rows(
    tables: &dyn Tables,
    user: &UserId,
    holder: NodeEndpoint,
    session: SessionId,
) -> impl Iterator<Item = RowKey> {
    let prefixes = RowKey::keyless_nodes(session, user);
    let indexes =
        prefixes.into_iter().flat_map(|prefix| rows::collect_keys(tables, Table::SessionNodes, &prefix));
    indexes
        .map(|index| RowKey::node_in_session(&index))
        .filter(move |key| rows::read_row(tables, key).is_some_and(|row: NodeRow| row.holder == holder))
}

/// Records that a session's node without a peer key listens at another address. The row of a node with a key follows by
/// [`bind_node`].
pub(super) fn move_keyless_node(
    tables: &mut dyn Tables,
    user: &UserId,
    before: NodeEndpoint,
    now: NodeEndpoint,
    session: SessionId,
) {
    if before.peer_key.is_some() || now.peer_key.is_some() {
        return;
    }
    let keys: Vec<RowKey> = keyless_rows(tables, user, before, session).collect();
    for key in keys {
        let row: NodeRow = rows::indexed_row(tables, &key);
        rows::write_row(tables, &key, &NodeRow { holder: now, ..row });
    }
}

/// Counts one more share of the node under `key` and binds the node to the session.
pub(super) fn count_share(tables: &mut dyn Tables, key: &RowKey, holder: NodeEndpoint, session: SessionId) {
    let before: Option<NodeRow> = rows::read_row(tables, key);
    let shares = before.as_ref().map_or(0, |row| row.shares) + 1;
    rebind_node(tables, key, before.as_ref(), &NodeRow { holder, session, logged_out: false, shares });
}

/// Subtracts one share from the count of the node under `key`. Removes the row when none is left.
pub(super) fn uncount_share(tables: &mut dyn Tables, key: &RowKey) {
    let mut row: NodeRow = rows::indexed_row(tables, key);
    assert!(row.shares > 0, "the row of a node counts every share");
    row.shares -= 1;
    if row.shares == 0 {
        tables.remove(Table::Nodes, &key.0);
        tables.remove(Table::SessionNodes, &RowKey::session_node(row.session, key).0);
    } else {
        rows::write_row(tables, key, &row);
    }
}

/// Brings a node online in a session, at its current address. A node without shares has no row and needs nothing.
pub(super) fn bind_node(tables: &mut dyn Tables, user: &UserId, holder: NodeEndpoint, session: SessionId) {
    let key = node_key(tables, user, holder, session);
    let Some(before) = rows::read_row::<NodeRow>(tables, &key) else { return };
    let row = NodeRow { holder, session, logged_out: false, shares: before.shares };
    rebind_node(tables, &key, Some(&before), &row);
}

/// Writes a node's row if it changed, and moves the node to the index of its session.
fn rebind_node(tables: &mut dyn Tables, key: &RowKey, before: Option<&NodeRow>, row: &NodeRow) {
    let session_before = before.map(|before| before.session);
    if session_before != Some(row.session) {
        if let Some(session) = session_before {
            tables.remove(Table::SessionNodes, &RowKey::session_node(session, key).0);
        }
        rows::write_key_only(tables, Table::SessionNodes, &RowKey::session_node(row.session, key));
    }
    if before != Some(row) {
        rows::write_row(tables, key, row);
    }
}

/// Takes a session's nodes offline.
pub(super) fn take_offline(tables: &mut dyn Tables, session: SessionId) {
    for index in rows::collect_keys(tables, Table::SessionNodes, &RowKey::session(session).prefix()) {
        let key = RowKey::node_in_session(&index);
        let mut row: NodeRow = rows::indexed_row(tables, &key);
        row.logged_out = true;
        rows::write_row(tables, &key, &row);
    }
}
