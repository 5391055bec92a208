//! The state machine for the consensus library: applies entries to the tables, many in one transaction.
//!
//! Invariants: the rows and the number of the last applied entry change together. Applying is not synced: the entries are
//! durable, and what a crash undoes is applied again. Each append syncs what was applied before it, so at most the entries
//! of the last append are applied again, to rows that lack them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::state::machine::StateMachine;

use super::fault::ReplicaFault;
use super::log_store::run_blocking;
use super::raft_types::{
    BatchAnswers, Entry, LogId, Membership, RaftTypes, SnapshotMeta, StorageError, parse_entry, read_error,
    write_error,
};
use super::snapshot::Snapshot;
use super::store::{FlushMode, LOG, ReplicaStore, meta, meta_in_change, meta_in_view, put_meta};
use super::tables::WritableTables;

/// The state machine of a store.
#[derive(Clone, Debug)]
pub struct MachineStore {
    store: Arc<ReplicaStore>,
}

/// The last applied entry, and the membership at that entry.
pub(super) type Applied = (Option<LogId>, Membership);

impl MachineStore {
    /// The state machine of a store.
    #[must_use]
    pub fn new(store: Arc<ReplicaStore>) -> MachineStore {
        MachineStore { store }
    }

    fn apply_all(store: &ReplicaStore, entries: Vec<Entry>) -> Result<Vec<BatchAnswers>, ReplicaFault> {
        let applied = entries.last().map(|entry| entry.log_id.index);
        let answers = store.write(FlushMode::Lazy, |change| {
            let (mut last, mut membership): Applied =
                meta_in_change(change, meta::APPLIED)?.unwrap_or_default();
            let mut machine = StateMachine::new(WritableTables::of(change)?);
            let mut all = Vec::with_capacity(entries.len());
            for entry in entries {
                last = Some(entry.log_id);
                let mut answers = Vec::new();
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(batch) => {
                        answers.extend(batch.commands.iter().map(|command| machine.apply(command)));
                    }
                    EntryPayload::Membership(new) => membership = Membership::new(last, new),
                }
                all.push(BatchAnswers(answers));
            }
            machine.tables().check()?;
            drop(machine);
            put_meta(change, meta::APPLIED, &(last, membership))?;
            Ok(all)
        })?;
        let commands = answers.iter().map(|answers| answers.0.len() as u64).sum();
        store.gauges().commands.fetch_add(commands, Ordering::Relaxed);
        if let Some(index) = applied {
            store.gauges().applied.store(index, Ordering::Relaxed);
        }
        Ok(answers)
    }

    /// Applies every entry of the log that is not applied yet. Used on a log opened through an overlay: in a cluster of one
    /// every entry counts as committed.
    pub(super) fn catch_up(&self) -> Result<(), ReplicaFault> {
        let applied: Option<Applied> = self.store.read(|view| meta_in_view(view, meta::APPLIED))?;
        let next = applied.and_then(|(last, _)| last).map_or(0, |last| last.index + 1);
        let entries = self.store.read(|view| {
            let log = view.open_table(LOG)?;
            log.range(next..)?.map(|row| parse_entry(row?.1.value())).collect()
        })?;
        MachineStore::apply_all(&self.store, entries).map(drop)
    }

    /// A snapshot of the current tables.
    fn snapshot(&self) -> Result<openraft::Snapshot<RaftTypes>, ReplicaFault> {
        let view = self.store.begin_read()?;
        let (last_log_id, last_membership): Applied = meta_in_view(&view, meta::APPLIED)
            .map_err(|trouble| self.store.fault(trouble))?
            .unwrap_or_default();
        let snapshot_id = last_log_id.map_or_else(|| "empty".to_owned(), |last| last.to_string());
        let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
        Ok(openraft::Snapshot { meta, snapshot: Box::new(Snapshot::of_tables(view)) })
    }
}

impl RaftSnapshotBuilder<RaftTypes> for MachineStore {
    /// Records that a snapshot exists. Nothing is copied: the tables are the snapshot, and the log before it may be purged.
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<RaftTypes>, StorageError> {
        let store = Arc::clone(&self.store);
        run_blocking(&self.store, move || {
            store.write(FlushMode::Lazy, |change| put_meta(change, meta::SNAPSHOT, &true))
        })
        .await
        .map_err(write_error)?;
        self.snapshot().map_err(read_error)
    }
}

impl RaftStateMachine<RaftTypes> for MachineStore {
    type SnapshotBuilder = MachineStore;

    async fn applied_state(&mut self) -> Result<Applied, StorageError> {
        let applied = self.store.read(|view| meta_in_view(view, meta::APPLIED)).map_err(read_error)?;
        Ok(applied.unwrap_or_default())
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<BatchAnswers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let store = Arc::clone(&self.store);
        run_blocking(&self.store, move || MachineStore::apply_all(&store, entries)).await.map_err(write_error)
    }

    async fn get_snapshot_builder(&mut self) -> MachineStore {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Snapshot>, StorageError> {
        Ok(Box::new(Snapshot::none()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Snapshot>,
    ) -> Result<(), StorageError> {
        let store = Arc::clone(&self.store);
        let applied: Applied = (meta.last_log_id, meta.last_membership.clone());
        run_blocking(&self.store, move || {
            store.write(FlushMode::Durable, |change| {
                snapshot.replace_rows(change)?;
                put_meta(change, meta::SNAPSHOT, &true)?;
                put_meta(change, meta::APPLIED, &applied)
            })
        })
        .await
        .map_err(write_error)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<openraft::Snapshot<RaftTypes>>, StorageError> {
        let noted = self.store.read(|view| meta_in_view::<bool>(view, meta::SNAPSHOT)).map_err(read_error)?;
        noted.map(|_| self.snapshot()).transpose().map_err(read_error)
    }
}
