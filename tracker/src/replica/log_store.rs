//! The log for the consensus library: entries and vote.
//!
//! Invariants: entries and votes are synced before their call returns. Purging is not synced, since a log that is too long
//! is still correct. Writes run on threads of their own, so a sync never delays the library's clock.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use redb::{ReadableTable as _, WriteTransaction};

use super::fault::{ReplicaFault, StoreError};
use super::limits::LOG_READ_MAX_BYTES;
use super::raft_types::{Entry, LogId, RaftTypes, StorageError, Vote, parse_entry, read_error, write_error};
use super::store::{FlushMode, LOG, ReplicaStore, meta, meta_in_view, put_meta};

/// The log of a store.
#[derive(Clone, Debug)]
pub struct LogStore {
    store: Arc<ReplicaStore>,
}

impl LogStore {
    /// The log of a store.
    #[must_use]
    pub fn new(store: Arc<ReplicaStore>) -> LogStore {
        LogStore { store }
    }

    fn entries(&self, range: impl RangeBounds<u64>, most_bytes: usize) -> Result<Vec<Entry>, ReplicaFault> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.store.read(|view| {
            let mut entries = Vec::new();
            let mut bytes = 0;
            for row in view.open_table(LOG)?.range::<u64>(range)? {
                let (_, row) = row?;
                bytes += row.value().len();
                if bytes > most_bytes && !entries.is_empty() {
                    break;
                }
                entries.push(parse_entry(row.value())?);
            }
            Ok(entries)
        })
    }

    async fn write(
        &self,
        flush: FlushMode,
        change: impl FnOnce(&WriteTransaction) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StorageError> {
        let store = Arc::clone(&self.store);
        run_blocking(&self.store, move || store.write(flush, change)).await.map_err(write_error)
    }
}

/// Runs a blocking function on another thread. Its panic becomes a fault of the store.
pub(super) async fn run_blocking<R: Send + 'static>(
    store: &ReplicaStore,
    run: impl FnOnce() -> Result<R, ReplicaFault> + Send + 'static,
) -> Result<R, ReplicaFault> {
    tokio::task::spawn_blocking(run).await.unwrap_or_else(|panic| {
        Err(ReplicaFault::Stopped { path: store.path().to_owned(), reason: panic.to_string() })
    })
}

impl RaftLogReader<RaftTypes> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(range, usize::MAX).map_err(read_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.entries(start..end, LOG_READ_MAX_BYTES).map_err(read_error)
    }
}

impl RaftLogStorage<RaftTypes> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<RaftTypes>, StorageError> {
        let read = self.store.read(|view| {
            let last_purged_log_id: Option<LogId> = meta_in_view(view, meta::PURGED)?;
            let table = view.open_table(LOG)?;
            let last_log_id = match table.last()? {
                Some((_, row)) => Some(parse_entry(row.value())?.log_id),
                None => last_purged_log_id,
            };
            Ok(LogState { last_purged_log_id, last_log_id })
        });
        read.map_err(read_error)
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.write(FlushMode::Durable, move |change| put_meta(change, meta::VOTE, &vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.store.read(|view| meta_in_view(view, meta::VOTE)).map_err(read_error)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<RaftTypes>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let rows = entries
            .into_iter()
            .map(|entry| serde_json::to_vec(&entry).map(|row| (entry.log_id.index, row)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| write_error(self.store.fault(error.into())))?;
        let count = rows.len() as u64;
        let written = self
            .write(FlushMode::Durable, move |change| {
                let mut table = change.open_table(LOG)?;
                for (index, row) in &rows {
                    table.insert(index, row.as_slice())?;
                }
                Ok(())
            })
            .await;
        written?;
        self.store.gauges().entries.fetch_add(count, Ordering::Relaxed);
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.write(FlushMode::Durable, move |change| {
            let range = (Bound::Included(since.index), Bound::Unbounded);
            Ok(change.open_table(LOG)?.retain_in::<u64, _>(range, |_, _| false)?)
        })
        .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.write(FlushMode::Lazy, move |change| {
            change.open_table(LOG)?.retain_in::<u64, _>(..=upto.index, |_, _| false)?;
            put_meta(change, meta::PURGED, &upto)
        })
        .await
    }
}
