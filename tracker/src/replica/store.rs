//! The file of the log and the tables, and the rules of its transactions.
//!
//! Invariants: a durable transaction is on the disk, and its number in the witness, before `write` returns. A lazy one
//! reaches the disk with the next durable one, as a whole or not at all, and never before an earlier one. A file is opened
//! for writing only after every page was checked through an overlay, so a refused file is unchanged.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    StorageBackend, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::{CountedStorage, LockedFile, LogGauges, sync_directory};
use super::fault::{ReplicaFault, StoreError};
use super::limits::{CACHE_BYTES, COMPACT_MIN_BYTES};
use super::overlay::Overlay;
use super::witness::Witness;

/// Log entries by index, as JSON.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// Rows of all tables of the state, by table number and row key.
pub(super) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// Facts about the log and the tables, as JSON.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Name of the log's file in a tracker's directory.
pub const LOG_FILE: &str = "tracker.redb";

/// Name of the witness beside it.
pub const WITNESS_FILE: &str = "acknowledged";

/// Keys of [`META`].
pub(super) mod meta {
    /// Number of the last durable change.
    pub(in crate::replica) const CHANGE: &str = "change";
    /// The cluster's id.
    pub(in crate::replica) const CLUSTER: &str = "cluster";
    /// Number of openings.
    pub(in crate::replica) const STARTS: &str = "starts";
    /// The vote of the consensus library.
    pub(in crate::replica) const VOTE: &str = "vote";
    /// Id of the last purged entry.
    pub(in crate::replica) const PURGED: &str = "purged";
    /// The last applied entry, and the membership at that entry.
    pub(in crate::replica) const APPLIED: &str = "applied";
    /// Present when a snapshot was recorded.
    pub(in crate::replica) const SNAPSHOT: &str = "snapshot";
}

/// When a transaction becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushMode {
    /// Before its `write` returns.
    Durable,
    /// With the next durable one.
    Lazy,
}

/// The open file.
pub struct ReplicaStore {
    database: Database,
    witness: Witness,
    gauges: Arc<LogGauges>,
    path: PathBuf,
    /// Whether it was opened through an overlay: then nothing is acknowledged.
    in_memory: bool,
}

impl std::fmt::Debug for ReplicaStore {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Store({})", self.path.display())
    }
}

impl ReplicaStore {
    /// Makes an empty log in an existing directory. It gets its name only when it is whole.
    ///
    /// # Errors
    /// [`ReplicaFault`], also when a log exists.
    pub fn create(dir: &Path) -> Result<(), ReplicaFault> {
        let path = dir.join(LOG_FILE);
        let fresh = dir.join(format!("{LOG_FILE}.new"));
        let io = |doing| move |source| ReplicaFault::io(dir, doing, source);
        if path.exists() {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(ReplicaFault::io(&path, "make the log", source));
        }
        match fs::remove_file(&fresh) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ReplicaFault::io(&fresh, "remove an unfinished log", source));
            }
            _ => {}
        }
        let disk = LockedFile::open(&fresh, true)?;
        write_first_state(disk).map_err(|trouble| trouble.into_fault(&fresh, None))?;
        fs::rename(&fresh, &path).map_err(io("put the log in its place"))?;
        sync_directory(dir).map_err(io("sync the directory"))
    }

    /// Opens the log of a tracker's directory after checking every page. Compacts a large file of which most is free.
    ///
    /// # Errors
    /// [`ReplicaFault`] says what is wrong and what to do.
    pub fn open(dir: &Path) -> Result<ReplicaStore, ReplicaFault> {
        let mut store = ReplicaStore::open_checked(dir)?;
        if !store.has_much_free_space()? {
            return Ok(store);
        }
        match store.database.compact() {
            Ok(_) => tracing::info!(path = %store.path.display(), "the file was compacted"),
            // A full disk, for example. What was not moved stays where it was.
            Err(error) => {
                tracing::warn!(path = %store.path.display(), %error, "the file could not be compacted");
            }
        }
        drop(store);
        ReplicaStore::open_checked(dir)
    }

    /// Whether most of a large file is free pages.
    fn has_much_free_space(&self) -> Result<bool, ReplicaFault> {
        let fault = |source| ReplicaFault::io(&self.path, "look at the log", source);
        let length = fs::metadata(&self.path).map_err(fault)?.len();
        if length < COMPACT_MIN_BYTES {
            return Ok(false);
        }
        let measure = || -> Result<u64, StoreError> {
            let stats = self.database.begin_write()?.stats()?;
            Ok(stats.allocated_pages() * stats.page_size() as u64)
        };
        Ok(measure().map_err(|trouble| self.fault(trouble))? < length / 2)
    }

    fn open_checked(dir: &Path) -> Result<ReplicaStore, ReplicaFault> {
        let path = dir.join(LOG_FILE);
        ReplicaStore::open_on(LockedFile::open(&path, false)?, &path, Witness::open(&dir.join(WITNESS_FILE)))
    }

    /// Opens a log on any storage, for tests that lose unsynced writes. `path` is its name in faults.
    ///
    /// # Errors
    /// As [`ReplicaStore::open`].
    pub fn open_on(
        disk: impl StorageBackend,
        path: &Path,
        witness: Witness,
    ) -> Result<ReplicaStore, ReplicaFault> {
        ReplicaStore::open_with_cache(disk, path, witness, CACHE_BYTES)
    }

    /// The same with another cache, in bytes.
    pub(super) fn open_with_cache(
        disk: impl StorageBackend,
        path: &Path,
        witness: Witness,
        cache_bytes: usize,
    ) -> Result<ReplicaStore, ReplicaFault> {
        let disk = CountedStorage::new(disk);
        drop(check_file(&disk, path, &witness)?);
        let gauges = Arc::clone(disk.gauges());
        let open = || Ok(Builder::new().set_cache_size(cache_bytes).create_with_backend(disk)?);
        let database = catch_panic(open).map_err(|error| error.into_fault(path, Some(gauges.last_read())))?;
        let store = ReplicaStore { database, witness, gauges, path: path.to_owned(), in_memory: false };
        store.write(FlushMode::Durable, |change| {
            let starts: u64 = meta_in_change(change, meta::STARTS)?.unwrap_or(0);
            put_meta(change, meta::STARTS, &(starts + 1))
        })?;
        Ok(store)
    }

    /// Opens a log through an overlay: writes stay in memory, and the file is not changed.
    ///
    /// # Errors
    /// As [`ReplicaStore::open`].
    pub fn open_overlaid(dir: &Path) -> Result<ReplicaStore, ReplicaFault> {
        let path = dir.join(LOG_FILE);
        ReplicaStore::open_overlaid_on(
            LockedFile::open(&path, false)?,
            &path,
            Witness::open(&dir.join(WITNESS_FILE)),
        )
    }

    /// The same on any storage.
    ///
    /// # Errors
    /// As [`ReplicaStore::open`].
    pub fn open_overlaid_on(
        disk: impl StorageBackend,
        path: &Path,
        witness: Witness,
    ) -> Result<ReplicaStore, ReplicaFault> {
        let disk = CountedStorage::new(disk);
        let database = check_file(&disk, path, &witness)?;
        let gauges = Arc::clone(disk.gauges());
        Ok(ReplicaStore { database, witness, gauges, path: path.to_owned(), in_memory: true })
    }

    /// Path of the file, for faults.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records the cluster of a new log, or compares the recorded one.
    ///
    /// # Errors
    /// [`ReplicaFault::Foreign`] when the log belongs to another cluster.
    pub(super) fn claim_cluster(&self, cluster: &str) -> Result<(), ReplicaFault> {
        match self.read(|view| meta_in_view::<String>(view, meta::CLUSTER))? {
            Some(noted) if noted == cluster => Ok(()),
            Some(log) => Err(ReplicaFault::Foreign { path: self.path.clone(), log, key: cluster.to_owned() }),
            None => self.write(FlushMode::Durable, |change| put_meta(change, meta::CLUSTER, &cluster)),
        }
    }

    /// Whether the log has or had an entry, that is, its founding was completed.
    ///
    /// # Errors
    /// [`ReplicaFault`] when it cannot be read.
    pub fn has_entries(&self) -> Result<bool, ReplicaFault> {
        self.read(|view| {
            let purged: Option<serde_json::Value> = meta_in_view(view, meta::PURGED)?;
            Ok(purged.is_some() || view.open_table(LOG)?.last()?.is_some())
        })
    }

    /// Number of openings, this one included.
    pub(super) fn starts(&self) -> Result<u64, ReplicaFault> {
        Ok(self.read(|view| meta_in_view(view, meta::STARTS))?.unwrap_or(0))
    }

    pub(super) fn gauges(&self) -> &Arc<LogGauges> {
        &self.gauges
    }

    /// Makes one change, as a whole or not at all.
    pub(super) fn write<R>(
        &self,
        flush: FlushMode,
        change: impl FnOnce(&WriteTransaction) -> Result<R, StoreError>,
    ) -> Result<R, ReplicaFault> {
        let commit = || -> Result<(R, Option<u64>), StoreError> {
            let mut transaction = self.database.begin_write()?;
            let result = change(&transaction)?;
            let mut number = None;
            match flush {
                FlushMode::Lazy => transaction.set_durability(Durability::None)?,
                FlushMode::Durable => {
                    let next = meta_in_change(&transaction, meta::CHANGE)?.unwrap_or(0) + 1;
                    put_meta(&transaction, meta::CHANGE, &next)?;
                    number = Some(next);
                }
            }
            transaction.commit()?;
            Ok((result, number))
        };
        let (result, number) = commit().map_err(|trouble| self.fault(trouble))?;
        if let Some(number) = number
            && !self.in_memory
        {
            self.witness.record_change(number);
        }
        Ok(result)
    }

    /// Reads one state of the file.
    pub(super) fn read<R>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<R, StoreError>,
    ) -> Result<R, ReplicaFault> {
        let view = self.begin_read()?;
        look(&view).map_err(|trouble| self.fault(trouble))
    }

    /// A view of the file's current state, for several reads.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, ReplicaFault> {
        self.database.begin_read().map_err(|error| self.fault(error.into()))
    }

    pub(super) fn fault(&self, trouble: StoreError) -> ReplicaFault {
        trouble.into_fault(&self.path, Some(self.gauges.last_read()))
    }
}

/// Writes the first state of a log.
fn write_first_state(disk: LockedFile) -> Result<(), StoreError> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(disk)?;
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    transaction.open_table(ROWS)?;
    put_meta(&transaction, meta::CHANGE, &1u64)?;
    transaction.commit()?;
    Ok(())
}

/// Checks every page of a log, and that it contains what was acknowledged. Returns the database over an overlay.
fn check_file(disk: &CountedStorage, path: &Path, witness: &Witness) -> Result<Database, ReplicaFault> {
    let open = || -> Result<(Database, u64), StoreError> {
        let overlay = Overlay::new(disk.clone())?;
        if overlay.len()? == 0 {
            // The database would initialize an empty file.
            return Err(StoreError::Unreadable("it is empty".to_owned()));
        }
        let mut builder = Builder::new();
        let database = builder
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(overlay)?;
        let change = last_change(&database)?;
        Ok((database, change))
    };
    let last_read = || disk.gauges().last_read();
    let (database, change) = catch_panic(open).map_err(|error| error.into_fault(path, Some(last_read())))?;
    let acknowledged = witness.acknowledged();
    if change < acknowledged {
        let (path, witness) = (path.to_owned(), witness.path().to_owned());
        return Err(ReplicaFault::RolledBack { path, witness, found: change, acknowledged });
    }
    Ok(database)
}

/// Runs code that reads a possibly damaged file. A panic counts as damage.
fn catch_panic<R>(open: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(StoreError::Unreadable("its pages contradict each other".to_owned())))
}

fn last_change(database: &Database) -> Result<u64, StoreError> {
    meta_in_view(&database.begin_read()?, meta::CHANGE)?
        .ok_or_else(|| StoreError::Unreadable("it holds no change".to_owned()))
}

/// A value of [`META`] in a view.
pub(super) fn meta_in_view<T: DeserializeOwned>(
    view: &ReadTransaction,
    key: &str,
) -> Result<Option<T>, StoreError> {
    let table = view.open_table(META)?;
    let value = table.get(key)?;
    Ok(value.map(|value| serde_json::from_slice(value.value())).transpose()?)
}

/// A value of [`META`] inside a change.
pub(super) fn meta_in_change<T: DeserializeOwned>(
    change: &WriteTransaction,
    key: &str,
) -> Result<Option<T>, StoreError> {
    let table = change.open_table(META)?;
    let value = table.get(key)?;
    Ok(value.map(|value| serde_json::from_slice(value.value())).transpose()?)
}

/// Sets a value of [`META`].
pub(super) fn put_meta<T: Serialize>(
    change: &WriteTransaction,
    key: &str,
    value: &T,
) -> Result<(), StoreError> {
    change.open_table(META)?.insert(key, serde_json::to_vec(value)?.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_with_little_in_it_is_compacted_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        ReplicaStore::create(dir.path()).unwrap();
        let store = ReplicaStore::open(dir.path()).unwrap();
        let row = vec![7; 256 * 1024];
        let rows = 2 * COMPACT_MIN_BYTES / row.len() as u64;
        let fill = |change: &WriteTransaction| {
            let mut log = change.open_table(LOG)?;
            (0..rows).try_for_each(|index| log.insert(index, row.as_slice()).map(drop))?;
            Ok(())
        };
        store.write(FlushMode::Durable, fill).unwrap();
        let length = || fs::metadata(dir.path().join(LOG_FILE)).unwrap().len();
        drop(store);
        let full = length();
        let store = ReplicaStore::open(dir.path()).unwrap();
        assert!(length() >= full / 2, "a file that is in use is left as it is");
        let clear =
            |change: &WriteTransaction| Ok(change.open_table(LOG)?.retain(|index, _| index == rows - 1)?);
        store.write(FlushMode::Durable, clear).unwrap();
        drop(store);
        let store = ReplicaStore::open(dir.path()).unwrap();
        assert!(length() < full / 4, "{} of {full} bytes are left", length());
        let kept =
            store.read(|view| Ok(view.open_table(LOG)?.get(rows - 1)?.map(|row| row.value().to_vec())));
        assert_eq!(kept.unwrap(), Some(row));
    }
}
