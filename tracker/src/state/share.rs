//! Shares: which node seeds which file. A node shares a file once it has every piece.
//!
//! Invariants: a share has a row in two tables, by file and by user, or in neither. The row of its node counts it. A user
//! has at most [`NODES_PER_USER_AND_FILE`] shares of a file.

use super::binding;
use super::id::{GroupFile, GroupId, SessionId, UserId};
use super::limits::NODES_PER_USER_AND_FILE;
use super::node::NodeEndpoint;
use super::outcome::CommandRefusal;
use super::row_key::RowKey;
use super::rows::{self, NodeRow};
use super::tables::{Table, Tables};

/// Refuses a share when the user already has [`NODES_PER_USER_AND_FILE`] shares of this file and all are of online nodes.
pub(super) fn check_share_limit(
    tables: &dyn Tables,
    file: &GroupFile,
    user: &UserId,
    holder: NodeEndpoint,
    session: SessionId,
) -> Result<(), CommandRefusal> {
    let node = binding::node_key(tables, user, holder, session);
    match find_room(tables, file, user, &node) {
        ShareRoom::Free | ShareRoom::InPlaceOf(_) => Ok(()),
        ShareRoom::None => Err(CommandRefusal::TooManyNodes(file.clone())),
    }
}

/// Whether a user may have one more share of a file.
enum ShareRoom {
    Free,
    /// It must replace the share of an offline node; this is that share's key.
    InPlaceOf(RowKey),
    None,
}

fn find_room(tables: &dyn Tables, file: &GroupFile, user: &UserId, node: &RowKey) -> ShareRoom {
    if tables.get(Table::Shares, &RowKey::share(file, node).0).is_some() {
        return ShareRoom::Free;
    }
    let shares = rows::collect_keys(tables, Table::Shares, &RowKey::shares_of_user(file, user));
    if shares.len() < NODES_PER_USER_AND_FILE {
        return ShareRoom::Free;
    }
    let is_offline = |share: &RowKey| {
        let (_, node) = share.share_of_file(file);
        rows::read_row::<NodeRow>(tables, &node).is_some_and(|row| row.logged_out)
    };
    shares.into_iter().find(is_offline).map_or(ShareRoom::None, ShareRoom::InPlaceOf)
}

/// Makes a node a seeder of a file and binds it to the session. The caller has called [`check_share_limit`]. Idempotent.
pub(super) fn add_share(
    tables: &mut dyn Tables,
    file: &GroupFile,
    user: &UserId,
    holder: NodeEndpoint,
    session: SessionId,
) {
    let node = binding::node_key(tables, user, holder, session);
    let key = RowKey::share(file, &node);
    if tables.get(Table::Shares, &key.0).is_some() {
        binding::bind_node(tables, user, holder, session);
    } else {
        if let ShareRoom::InPlaceOf(offline) = find_room(tables, file, user, &node) {
            end_share(tables, file, &offline);
        }
        rows::write_key_only(tables, Table::Shares, &key);
        rows::write_key_only(tables, Table::SharesByUser, &RowKey::share_by_user(file, &node));
        binding::count_share(tables, &node, holder, session);
    }
}

/// Ends one node's share of a file; false when there was none.
pub(super) fn remove_share(
    tables: &mut dyn Tables,
    file: &GroupFile,
    user: &UserId,
    holder: NodeEndpoint,
    session: SessionId,
) -> bool {
    let node = binding::node_key(tables, user, holder, session);
    let existed = tables.remove(Table::Shares, &RowKey::share(file, &node).0);
    if existed {
        let indexed = tables.remove(Table::SharesByUser, &RowKey::share_by_user(file, &node).0);
        assert!(indexed, "a share has a row in both tables");
        binding::uncount_share(tables, &node);
    }
    existed
}

/// Ends every share of a user in a group.
pub(super) fn remove_member_shares(tables: &mut dyn Tables, group: &GroupId, user: &UserId) {
    for by_user in rows::collect_keys(tables, Table::SharesByUser, &RowKey::member(group, user).prefix()) {
        let (by_file, node) = by_user.share_of_user(group, user);
        tables.remove(Table::SharesByUser, &by_user.0);
        tables.remove(Table::Shares, &by_file.0);
        binding::uncount_share(tables, &node);
    }
}

/// Ends every share of a file.
pub(super) fn remove_file_shares(tables: &mut dyn Tables, file: &GroupFile) {
    let prefix = RowKey::file(file).prefix();
    for by_file in rows::collect_keys(tables, Table::Shares, &prefix) {
        end_share(tables, file, &by_file);
    }
}

fn end_share(tables: &mut dyn Tables, file: &GroupFile, by_file: &RowKey) {
    let (by_user, node) = by_file.share_of_file(file);
    tables.remove(Table::Shares, &by_file.0);
    tables.remove(Table::SharesByUser, &by_user.0);
    binding::uncount_share(tables, &node);
}
