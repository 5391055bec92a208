//! The consensus library's types, filled in: what an entry carries, what applying it gives, who a node is.
//!
//! An entry carries a batch: the library syncs its log once an entry, so commands that wait together share one.

use serde::{Deserialize, Serialize};

use crate::state::command::Command;
use crate::state::outcome::{Outcome, Refusal};

use super::fault::{Fault, Trouble};
use super::snapshot::Snapshot;

/// Commands that share one entry, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The commands, at least one.
    pub commands: Vec<Command>,
}

/// What a command came to.
pub type Answer = Result<Outcome, Refusal>;

/// What the commands of an entry came to, in the same order; none for the library's own entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers(pub Vec<Answer>);

openraft::declare_raft_types!(
    /// The types that the replica gives to the consensus library.
    pub Kinds:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<Kinds>,
        SnapshotData = Snapshot,
);

pub(super) type NodeId = u64;
pub(super) type Entry = openraft::Entry<Kinds>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type Membership = openraft::StoredMembership<NodeId, openraft::BasicNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::BasicNode>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type StorageIoError = openraft::StorageIOError<NodeId>;

/// An entry out of its row.
pub(super) fn parse_entry(row: &[u8]) -> Result<Entry, Trouble> {
    Ok(serde_json::from_slice(row)?)
}

/// A fault, in the form in which the library takes it.
pub(super) fn reading(fault: &Fault) -> StorageError {
    StorageIoError::read(openraft::AnyError::new(fault)).into()
}

/// The same, of something written.
pub(super) fn writing(fault: &Fault) -> StorageError {
    StorageIoError::write(openraft::AnyError::new(fault)).into()
}
