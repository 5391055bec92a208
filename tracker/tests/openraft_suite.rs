//! The consensus library's own test suite, run on the replica's log and state machine on files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;
use tracker::replica::{LogStore, MachineStore, RaftTypes, ReplicaStore};

struct Fresh;

impl StoreBuilder<RaftTypes, LogStore, MachineStore, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, MachineStore), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        ReplicaStore::create(dir.path()).unwrap();
        let store = Arc::new(ReplicaStore::open(dir.path()).unwrap());
        Ok((dir, LogStore::new(Arc::clone(&store)), MachineStore::new(store)))
    }
}

#[test]
fn the_log_and_the_state_machine_keep_the_librarys_rules() {
    Suite::test_all(Fresh).unwrap();
}
