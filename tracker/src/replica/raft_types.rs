//! Type parameters of the consensus library: content of an entry, result of applying it, identity of a node.
//!
//! An entry carries a batch of commands. The library syncs its log once for each entry, so commands that wait together
//! share a sync.

use serde::{Deserialize, Serialize};

use crate::state::command::LogCommand;
pub use crate::state::outcome::ApplyResult;

use super::fault::{ReplicaFault, StoreError};
use super::snapshot::Snapshot;

/// The commands of one entry, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBatch {
    /// At least one command.
    pub commands: Vec<LogCommand>,
}

/// Results of an entry's commands, in order; empty for the library's own entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswers(pub Vec<ApplyResult>);

openraft::declare_raft_types!(
    /// The type parameters that the replica gives to the consensus library.
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

/// Parses an entry from its row.
pub(super) fn parse_entry(row: &[u8]) -> Result<Entry, StoreError> {
    Ok(serde_json::from_slice(row)?)
}

/// A fault as the library's error of a read.
#[expect(clippy::needless_pass_by_value, reason = "given to `map_err`")]
pub(super) fn read_error(fault: ReplicaFault) -> StorageError {
    StorageIoError::read(openraft::AnyError::new(&fault)).into()
}

/// A fault as the library's error of a write.
#[expect(clippy::needless_pass_by_value, reason = "given to `map_err`")]
pub(super) fn write_error(fault: ReplicaFault) -> StorageError {
    StorageIoError::write(openraft::AnyError::new(&fault)).into()
}
