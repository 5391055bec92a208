//! The typed rows of the tables, and how they are read and written as bytes.
//!
//! Invariants: a value is JSON with fields in a fixed order, so equal rows are equal bytes. Exceptions: rows of
//! [`manifest`](super::manifest) are raw bytes, and marks are empty. A row that cannot be parsed is a bug or corruption
//! and stops the process.

use std::ops::ControlFlow;

use engine::proto::manifest::FileProof;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::command::Policy;
use super::id::{SessionId, UserId};
use super::node::NodeEndpoint;
use super::outcome::ApplyResult;
use super::row_key::RowKey;
use super::serde_forms;
use super::tables::{Table, Tables, Visit};

/// A typed row of one table.
pub(super) trait TableRow: Serialize + DeserializeOwned {
    const TABLE: Table;
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// Hash of the password, which only the server reads.
    pub password_hash: String,
    /// Number of password changes.
    pub password_epoch: u32,
    /// When the user was created, in seconds since the Unix epoch.
    pub created_s: u64,
}

/// A session. After its end the row stays until it expires, so that a retried request gets its first outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionRow {
    pub(super) user: UserId,
    /// Epoch of the password at login.
    pub(super) password_epoch: u32,
    pub(super) expires_s: u64,
    pub(super) ended: bool,
    /// The node that logged in or reconnected last.
    pub(super) node: Option<NodeEndpoint>,
    /// Number of outcomes remembered so far.
    pub(super) answers: u64,
}

/// A node that shares files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRow {
    /// Current address and key.
    pub(super) holder: NodeEndpoint,
    /// The session that keeps it online.
    pub(super) session: SessionId,
    /// True after that session ended: offline until the next login.
    pub(super) logged_out: bool,
    /// Number of files that it shares. The row is removed when no file is left.
    pub(super) shares: u64,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRow {
    pub(super) owner: UserId,
    pub(super) policy: Policy,
    pub(super) created_s: u64,
    pub(super) members: u64,
    /// Join number of the next member. It grows with each join.
    pub(super) next_joined: u64,
}

/// A user's membership in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberRow {
    /// Join number, from [`GroupRow::next_joined`].
    pub(super) joined: u64,
}

/// A group's member in the index by join number, which lists the earliest member first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberByJoinRow {
    pub(super) user: UserId,
}

/// A user's request to join a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JoinRequestRow {
    pub(super) asked_s: u64,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRow {
    pub(super) uploader: UserId,
    pub(super) uploaded_s: u64,
    /// Length in bytes, if the uploader gave it.
    pub(super) length: Option<u64>,
    pub(super) pieces: u32,
    #[serde(with = "serde_forms::proof")]
    pub(super) proof: FileProof,
    pub(super) has_chain: bool,
    /// Number of its manifest, which is part of the keys of the manifest's rows.
    pub(super) manifest: u64,
    /// Fold of all its piece digests, see [`manifest`](super::manifest).
    #[serde(with = "serde_forms::hex_bytes")]
    pub(super) fold: [u8; 32],
}

/// An unfinished upload in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadRow {
    /// Number of the manifest that its parts are stored in.
    pub(super) manifest: u64,
    /// Number of pieces stored so far, and so the index of the next part's first piece.
    pub(super) next: u32,
    pub(super) has_chain: bool,
    /// Fold of the digests of all pieces stored so far.
    #[serde(with = "serde_forms::hex_bytes")]
    pub(super) fold: [u8; 32],
    /// When the last part came, in seconds since the Unix epoch.
    pub(super) part_s: u64,
}

/// The first outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutcomeRow {
    /// Digest of the request, see [`retry`](super::retry). Stored tables call it `wish`.
    #[serde(rename = "wish", with = "serde_forms::hex_bytes")]
    pub(super) request_digest: [u8; 32],
    pub(super) answer: ApplyResult,
}

/// The id of the request whose outcome was the n-th that the session remembered; n is in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutcomeOrderRow(#[serde(with = "serde_forms::hex_bytes")] pub(super) [u8; 32]);

/// The next number to give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CounterRow(pub(super) u64);

macro_rules! rows {
    ($($row:ident in $table:ident),* $(,)?) => {$(
        impl TableRow for $row {
            const TABLE: Table = Table::$table;
        }
    )*};
}

rows!(
    UserRow in Users, SessionRow in Sessions, NodeRow in Nodes, GroupRow in Groups, MemberRow in Members,
    MemberByJoinRow in MembersByJoining, JoinRequestRow in JoinRequests, FileRow in Files, UploadRow in Uploads, OutcomeRow in Outcomes,
    OutcomeOrderRow in OutcomeOrder, CounterRow in Counters,
);

fn parse_row<R: TableRow>(value: &[u8]) -> R {
    serde_json::from_slice(value).expect("rows are written by `write_row` alone, in this form")
}

pub(super) fn read_row<R: TableRow>(tables: &dyn Tables, key: &RowKey) -> Option<R> {
    tables.get(R::TABLE, &key.0).map(|value| parse_row(&value))
}

/// Whether a row exists, without parsing it.
pub(super) fn row_exists<R: TableRow>(tables: &dyn Tables, key: &RowKey) -> bool {
    tables.get(R::TABLE, &key.0).is_some()
}

/// Reads a row that an index refers to; it must exist.
pub(super) fn indexed_row<R: TableRow>(tables: &dyn Tables, key: &RowKey) -> R {
    read_row(tables, key).expect("an index is written and removed together with the rows that it names")
}

pub(super) fn write_row<R: TableRow>(tables: &mut dyn Tables, key: &RowKey, row: &R) {
    let value =
        serde_json::to_vec(row).expect("rows have string keys, and serializing their fields cannot fail");
    tables.put(R::TABLE, &key.0, &value);
}

/// Removes a row and returns it.
pub(super) fn take_row<R: TableRow>(tables: &mut dyn Tables, key: &RowKey) -> Option<R> {
    let row = read_row(tables, key);
    tables.remove(R::TABLE, &key.0);
    row
}

/// Writes a row with an empty value: its key says everything.
pub(super) fn write_key_only(tables: &mut dyn Tables, table: Table, key: &RowKey) {
    tables.put(table, &key.0, &[]);
}

/// Visits the keys with a prefix, starting at `from`. The visitor gets the key without the prefix, and the value.
pub(super) fn visit_raw(tables: &dyn Tables, table: Table, prefix: &[u8], from: &[u8], visit: Visit<'_>) {
    let start = from.max(prefix);
    tables.scan(table, start, &mut |key, value| match key.strip_prefix(prefix) {
        Some(rest) => visit(rest, value),
        None => ControlFlow::Break(()),
    });
}

/// Visits all typed rows with a prefix.
pub(super) fn visit_rows<R: TableRow>(tables: &dyn Tables, prefix: &[u8], mut visit: impl FnMut(&[u8], R)) {
    visit_raw(tables, R::TABLE, prefix, prefix, &mut |rest, value| {
        visit(rest, parse_row(value));
        ControlFlow::Continue(())
    });
}

/// Visits at most `count` typed rows that follow the key `after`: one page of a list.
pub(super) fn visit_page<R: TableRow>(
    tables: &dyn Tables,
    prefix: &[u8],
    after: Option<&RowKey>,
    count: usize,
    mut visit: impl FnMut(&[u8], R),
) {
    // The least key above `after` is `after` followed by a zero byte.
    let from = after.map(|after| [&after.0[..], &[0]].concat()).unwrap_or_default();
    let mut left = count;
    visit_raw(tables, R::TABLE, prefix, &from, &mut |rest, value| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        visit(rest, parse_row(value));
        ControlFlow::Continue(())
    });
}

/// Collects the keys with a prefix, for removal: rows cannot change while they are visited.
pub(super) fn collect_keys(tables: &dyn Tables, table: Table, prefix: &[u8]) -> Vec<RowKey> {
    let mut keys = Vec::new();
    visit_raw(tables, table, prefix, prefix, &mut |rest, _| {
        keys.push(RowKey([prefix, rest].concat()));
        ControlFlow::Continue(())
    });
    keys
}

/// Takes the next free manifest number.
pub(super) fn next_manifest(tables: &mut dyn Tables) -> u64 {
    let key = RowKey::manifests();
    let next = read_row(tables, &key).map_or(0, |CounterRow(next)| next);
    write_row(tables, &key, &CounterRow(next + 1));
    next
}
