//! The state's tables in the log's file: a view for reads, and rows for changes inside one transaction.
//!
//! One table of the database holds all rows; a key is the table's number, then the row's key. Invariants: a table's number
//! never changes, since it is in existing files. The first error is kept, and from then on the tables read as empty. So the
//! caller checks with [`TablesView::check`] or [`WritableTables::check`] before it answers or commits.

use std::cell::RefCell;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{ReadOnlyTable, ReadableTable, StorageError, Table as DatabaseTable, WriteTransaction};

use crate::state::tables::{Table, Tables, Visit};

use super::fault::{ReplicaFault, StoreError};
use super::store::{ROWS, ReplicaStore};

/// Number of a table in the file.
pub(super) fn table_number(table: Table) -> u8 {
    match table {
        Table::Users => 1,
        Table::Sessions => 2,
        Table::UserSessions => 3,
        Table::Nodes => 4,
        Table::SessionNodes => 5,
        Table::Groups => 6,
        Table::Members => 7,
        Table::MembersByJoining => 8,
        Table::JoinRequests => 9,
        Table::Files => 10,
        Table::Manifests => 11,
        Table::Uploads => 12,
        Table::Shares => 13,
        Table::SharesByUser => 14,
        Table::Outcomes => 15,
        Table::OutcomeOrder => 16,
        Table::Counters => 17,
    }
}

/// The table with a number.
pub(super) fn table_by_number(number_wanted: u8) -> Option<Table> {
    Table::ALL.into_iter().find(|table| table_number(*table) == number_wanted)
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table_number(table)], key].concat()
}

type Bytes = &'static [u8];

fn get_row(
    rows: &impl ReadableTable<Bytes, Bytes>,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StorageError> {
    Ok(rows.get(full_key(table, key).as_slice())?.map(|value| value.value().to_vec()))
}

fn scan_rows(
    rows: &impl ReadableTable<Bytes, Bytes>,
    table: Table,
    from: &[u8],
    visit: Visit<'_>,
) -> Result<(), StorageError> {
    let (start, end) = (full_key(table, from), [table_number(table) + 1]);
    let range = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
    for row in rows.range::<&[u8]>(range)? {
        let (key, value) = row?;
        if visit(&key.value()[1..], value.value()).is_break() {
            break;
        }
    }
    Ok(())
}

/// One state of the tables, for reads. Later changes do not affect it.
pub struct TablesView {
    rows: ReadOnlyTable<Bytes, Bytes>,
    first_error: Mutex<Option<StorageError>>,
    path: PathBuf,
}

impl std::fmt::Debug for TablesView {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "View({})", self.path.display())
    }
}

impl TablesView {
    /// The current tables.
    ///
    /// # Errors
    /// [`ReplicaFault`] when the file cannot be read.
    pub fn of(store: &ReplicaStore) -> Result<TablesView, ReplicaFault> {
        let rows = store.read(|view| Ok(view.open_table(ROWS)?))?;
        Ok(TablesView { rows, first_error: Mutex::new(None), path: store.path().to_owned() })
    }

    /// Whether every row was read; only then do the results count.
    ///
    /// # Errors
    /// [`ReplicaFault`] of the first failed read. The view cannot be used further.
    pub fn check(&self) -> Result<(), ReplicaFault> {
        match self.first_error().as_ref() {
            None => Ok(()),
            Some(StorageError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(ReplicaFault::Damaged { path: self.path.clone(), offset: None, what: error.to_string() })
            }
            Some(error) => Err(ReplicaFault::Stopped {
                path: self.path.clone(),
                reason: format!("a row was not read: {error}"),
            }),
        }
    }

    /// Makes all further reads fail.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        self.first_error().get_or_insert(StorageError::ValueTooLarge(0));
    }

    fn first_error(&self) -> MutexGuard<'_, Option<StorageError>> {
        self.first_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep<R: Default>(&self, read: impl FnOnce() -> Result<R, StorageError>) -> R {
        if self.first_error().is_some() {
            return R::default();
        }
        read().unwrap_or_else(|error| {
            self.first_error().get_or_insert(error);
            R::default()
        })
    }
}

impl Tables for TablesView {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.keep(|| get_row(&self.rows, table, key))
    }

    fn put(&mut self, _: Table, _: &[u8], _: &[u8]) {
        unreachable!("queries use a view and take the tables by shared reference");
    }

    fn remove(&mut self, _: Table, _: &[u8]) -> bool {
        unreachable!("queries use a view and take the tables by shared reference");
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visit<'_>) {
        self.keep(|| scan_rows(&self.rows, table, from, visit));
    }
}

/// The tables inside one transaction.
pub(super) struct WritableTables<'t> {
    rows: DatabaseTable<'t, Bytes, Bytes>,
    first_error: RefCell<Option<StorageError>>,
}

impl<'t> WritableTables<'t> {
    pub(super) fn of(change: &'t WriteTransaction) -> Result<WritableTables<'t>, StoreError> {
        Ok(WritableTables { rows: change.open_table(ROWS)?, first_error: RefCell::new(None) })
    }

    /// Whether every row was read and written; only then may the change be committed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.first_error.take().map_or(Ok(()), |error| Err(error.into()))
    }

    fn keep<R: Default>(&self, result: Result<R, StorageError>) -> R {
        result.unwrap_or_else(|error| {
            self.first_error.borrow_mut().get_or_insert(error);
            R::default()
        })
    }

    fn is_good(&self) -> bool {
        self.first_error.borrow().is_none()
    }
}

impl Tables for WritableTables<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        if self.is_good() { self.keep(get_row(&self.rows, table, key)) } else { None }
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let done = self.rows.insert(full_key(table, key).as_slice(), value).map(|_| ());
        self.keep(done);
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> bool {
        let was = self.rows.remove(full_key(table, key).as_slice()).map(|was| was.is_some());
        self.keep(was)
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visit<'_>) {
        if self.is_good() {
            self.keep(scan_rows(&self.rows, table, from, visit));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::FileExt as _;

    use super::super::disk::LockedFile;
    use super::super::store::{FlushMode, LOG_FILE, WITNESS_FILE};
    use super::super::witness::Witness;
    use super::*;

    #[test]
    fn every_table_has_its_own_number() {
        let numbers: BTreeSet<u8> = Table::ALL.into_iter().map(table_number).collect();
        assert_eq!(numbers.len(), Table::ALL.len());
        for table in Table::ALL {
            assert_eq!(table_by_number(table_number(table)), Some(table));
        }
    }

    #[test]
    fn a_row_that_changed_in_the_file_of_an_open_store_is_refused_as_damaged() {
        let dir = tempfile::tempdir().unwrap();
        ReplicaStore::create(dir.path()).unwrap();
        let path = dir.path().join(LOG_FILE);
        let (disk, witness) =
            (LockedFile::open(&path, false).unwrap(), Witness::open(&dir.path().join(WITNESS_FILE)));
        let store = ReplicaStore::open_with_cache(disk, &path, witness, 0).unwrap();
        let digest = [0xA7; 20];
        let put = |change: &WriteTransaction| {
            WritableTables::of(change)?.put(Table::Manifests, b"row", &digest);
            Ok(())
        };
        store.write(FlushMode::Durable, put).unwrap();
        let read = || {
            let view = TablesView::of(&store)?;
            let row = view.get(Table::Manifests, b"row");
            view.check().map(|()| row)
        };
        assert_eq!(read().unwrap().as_deref(), Some(&digest[..]));
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len() - 20).filter(|at| bytes[*at..].starts_with(&digest)).collect();
        assert!(!places.is_empty());
        for at in places {
            bytes[at + 3] ^= 1;
        }
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&bytes, 0).unwrap();
        let fault = read().expect_err("the changed row was handed out").to_string();
        assert!(fault.contains("damaged"), "{fault}");
    }
}
