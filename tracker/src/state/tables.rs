//! The interface to whatever keeps the state: ordered tables of bytes.
//!
//! Invariants that an implementation keeps: keys are ordered as bytes; what was put is what is read; a scan sees the
//! rows as they are when it starts. Nothing here assumes that a table fits in memory: rows come one at a time.
//!
//! Reads and writes have no error here, since no decision could do anything about one. An implementation that can fail
//! does not return from the call that failed: it ends the process, or unwinds to where nothing decided so far is committed
//! or acknowledged.

use std::ops::ControlFlow;

/// The tables, by name. What stands in them: `rows.rs`; under which keys: `key.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Users and their passwords' hashes.
    Users,
    /// Sessions, ended ones too until they expire.
    Sessions,
    /// Which sessions a user has.
    UserSessions,
    /// Nodes that share.
    Nodes,
    /// Which nodes a session keeps online.
    SessionNodes,
    /// Groups.
    Groups,
    /// Members of groups.
    Members,
    /// Members of groups, earliest first.
    MembersByAge,
    /// Requests to join.
    Requests,
    /// Files.
    Files,
    /// Piece digests and chains, in rows of pieces.
    Manifests,
    /// Uploads in parts, not finished.
    Uploads,
    /// Who holds which file completely.
    Shares,
    /// The same by group and user.
    SharesByUser,
    /// First outcomes of requests.
    Answers,
    /// The same in the order in which they are forgotten.
    AnswerOrder,
    /// Numbers given out so far.
    Counters,
}

impl Table {
    /// Every table, in order: for snapshots and comparisons.
    pub const ALL: [Table; 17] = [
        Table::Users,
        Table::Sessions,
        Table::UserSessions,
        Table::Nodes,
        Table::SessionNodes,
        Table::Groups,
        Table::Members,
        Table::MembersByAge,
        Table::Requests,
        Table::Files,
        Table::Manifests,
        Table::Uploads,
        Table::Shares,
        Table::SharesByUser,
        Table::Answers,
        Table::AnswerOrder,
        Table::Counters,
    ];
}

/// What a scan calls for each row, with key and value; it stops at `Break`.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Ordered tables of bytes.
pub trait Tables {
    /// The value under a key.
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>>;

    /// Puts a value under a key, over any that is there.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]);

    /// Takes a key and its value out; whether it was there.
    fn remove(&mut self, table: Table, key: &[u8]) -> bool;

    /// Visits the rows whose key is at least `from`, in the order of keys, until the visitor breaks.
    fn scan(&self, table: Table, from: &[u8], visit: Visit<'_>);
}
