//! The consensus library's types, filled in: what an entry carries, what applying it gives, who a node is.
//!
//! An entry carries a batch: the library syncs its log once an entry, so commands that wait together share one.

use serde::{Deserialize, Serialize};

use crate::state::command::LogCommand;
use crate::state::outcome::{CommandOutcome, CommandRefusal};

use super::fault::{ReplicaFault, StoreError};
use super::snapshot::Snapshot;

/// Commands that share one entry, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBatch {
    /// The commands, at least one.
    pub commands: Vec<LogCommand>,
}

/// What a command came to.
pub type ApplyResult = Result<CommandOutcome, CommandRefusal>;

/// What the commands of an entry came to, in the same order; none for the library's own entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswers(pub Vec<ApplyResult>);

openraft::declare_raft_types!(
    /// The types that the replica gives to the consensus library.
    pub RaftTypes:
        D = CommandBatch,
        R = BatchAnswers,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<RaftTypes>,
        SnapshotData = Snapshot,
);

pub(super) type NodeId = u64;
pub(super) type Entry = openraft::Entry<RaftTypes>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type Membership = openraft::StoredMembership<NodeId, openraft::BasicNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::BasicNode>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type StorageIoError = openraft::StorageIOError<NodeId>;

/// An entry out of its row.
pub(super) fn parse_entry(row: &[u8]) -> Result<Entry, StoreError> {
    Ok(serde_json::from_slice(row)?)
}

/// A fault, in the form in which the library takes it.
pub(super) fn read_error(fault: &ReplicaFault) -> StorageError {
    StorageIoError::read(openraft::AnyError::new(fault)).into()
}

/// The same, of something written.
pub(super) fn write_error(fault: &ReplicaFault) -> StorageError {
    StorageIoError::write(openraft::AnyError::new(fault)).into()
}
