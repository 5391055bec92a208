//! The storage interface of the state machine: ordered tables of bytes.
//!
//! An implementation guarantees: keys are ordered as bytes; a read returns the last value written; a scan sees
//! the rows as they are when it starts. Tables need not fit in memory: rows come one at a time.
//!
//! Reads and writes return no error, since no decision could handle one. An implementation that fails ends the process,
//! unwinds, or keeps the error and reports it before anything is committed or answered.

use std::ops::ControlFlow;

/// The tables, by name. Their rows: `rows.rs`; their keys: `row_key.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Users and the hashes of their passwords.
    Users,
    /// Sessions; ended ones stay until they expire.
    Sessions,
    /// Sessions of each user.
    UserSessions,
    /// Nodes that share files.
    Nodes,
    /// Nodes that each session keeps online.
    SessionNodes,
    /// Groups.
    Groups,
    /// Members of groups.
    Members,
    /// Members of groups in the order of joining.
    MembersByJoining,
    /// Requests to join.
    JoinRequests,
    /// Files.
    Files,
    /// Piece digests and chains; a row has up to `MANIFEST_ROW_PIECES` pieces.
    Manifests,
    /// Unfinished uploads in parts.
    Uploads,
    /// Seeders of each file.
    Shares,
    /// Shares by group and user.
    SharesByUser,
    /// The first outcome of each request, returned again when the request is repeated.
    Outcomes,
    /// Requests in the order in which their outcomes are removed.
    OutcomeOrder,
    /// Counters.
    Counters,
}

impl Table {
    /// Every table, in order.
    pub const ALL: [Table; 17] = [
        Table::Users,
        Table::Sessions,
        Table::UserSessions,
        Table::Nodes,
        Table::SessionNodes,
        Table::Groups,
        Table::Members,
        Table::MembersByJoining,
        Table::JoinRequests,
        Table::Files,
        Table::Manifests,
        Table::Uploads,
        Table::Shares,
        Table::SharesByUser,
        Table::Outcomes,
        Table::OutcomeOrder,
        Table::Counters,
    ];
}

/// Called by a scan for each row with key and value; `Break` ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Ordered tables of bytes.
pub trait Tables {
    /// The value under a key.
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>>;

    /// Sets the value under a key.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]);

    /// Removes a key and its value; false when there was none.
    fn remove(&mut self, table: Table, key: &[u8]) -> bool;

    /// Visits the rows whose key is at least `from`, in order, until the visitor breaks.
    fn scan(&self, table: Table, from: &[u8], visit: Visit<'_>);
}
