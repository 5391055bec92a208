//! Snapshots: all rows of one state, streamed one at a time.
//!
//! A snapshot is a view of the tables, without a copy. Its stream to another tracker has, for each row, the lengths of key
//! and value (u32, big-endian), then both; two lengths of `u32::MAX` end it, followed by the SHA-256 of all before.
//! Invariants: no part is longer than its limit. All rows are replaced in one transaction, or none when the stream is cut or
//! altered.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write};

use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};
use sha2::{Digest as _, Sha256};

use super::fault::StoreError;
use super::limits::SNAPSHOT_PART_MAX_BYTES;
use super::store::ROWS;

/// In place of a row's lengths: the end of the rows.
const END: u32 = u32::MAX;

/// All rows of one state.
pub struct Snapshot(SnapshotSource);

enum SnapshotSource {
    /// Not received yet.
    None,
    /// In a view of the tables.
    Tables(ReadTransaction),
    /// In a file, as a stream.
    Stream(File),
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self.0 {
            SnapshotSource::None => "Snapshot(none)",
            SnapshotSource::Tables(_) => "Snapshot(tables)",
            SnapshotSource::Stream(_) => "Snapshot(stream)",
        })
    }
}

type RowVisitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

impl Snapshot {
    /// A snapshot still to be received.
    pub(super) fn none() -> Snapshot {
        Snapshot(SnapshotSource::None)
    }

    /// The rows of a view.
    pub(super) fn of_tables(view: ReadTransaction) -> Snapshot {
        Snapshot(SnapshotSource::Tables(view))
    }

    /// The rows of a received stream.
    #[must_use]
    pub fn of_stream(file: File) -> Snapshot {
        Snapshot(SnapshotSource::Stream(file))
    }

    /// Writes the rows as a stream and returns their number.
    ///
    /// # Errors
    /// The error of reading a row or of writing it.
    pub fn write_to(&mut self, to: &mut impl Write) -> io::Result<u64> {
        let mut sum = Sha256::new();
        let mut rows = 0;
        let mut put = |bytes: &[u8]| {
            sum.update(bytes);
            to.write_all(bytes)
        };
        let length = |part: &[u8]| {
            u32::try_from(part.len())
                .ok()
                .filter(|length| *length <= SNAPSHOT_PART_MAX_BYTES)
                .ok_or_else(|| io::Error::other(format!("a row with {} bytes in one part", part.len())))
        };
        self.visit_rows(&mut |key, value| {
            put(&length(key)?.to_be_bytes())?;
            put(&length(value)?.to_be_bytes())?;
            put(key)?;
            put(value)?;
            rows += 1;
            Ok(())
        })
        .map_err(io::Error::other)?;
        put(&END.to_be_bytes())?;
        put(&END.to_be_bytes())?;
        to.write_all(&sum.finalize())?;
        Ok(rows)
    }

    /// Replaces all rows of the tables.
    pub(super) fn replace_rows(mut self, change: &WriteTransaction) -> Result<(), StoreError> {
        change.delete_table(ROWS)?;
        let mut table = change.open_table(ROWS)?;
        self.visit_rows(&mut |key, value| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    /// Visits every row in the order of keys.
    fn visit_rows(&mut self, each: RowVisitor<'_>) -> Result<(), StoreError> {
        match &mut self.0 {
            SnapshotSource::None => {
                Err(StoreError::Unreadable("a snapshot that was never received".to_owned()))
            }
            SnapshotSource::Tables(view) => {
                for row in view.open_table(ROWS)?.iter()? {
                    let (key, value) = row?;
                    each(key.value(), value.value())?;
                }
                Ok(())
            }
            SnapshotSource::Stream(file) => {
                file.rewind()?;
                read_stream(&mut BufReader::new(file), each)
            }
        }
    }
}

fn read_stream(from: &mut impl Read, each: RowVisitor<'_>) -> Result<(), StoreError> {
    let mut sum = Sha256::new();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    loop {
        let mut lengths = [0; 8];
        from.read_exact(&mut lengths)?;
        sum.update(lengths);
        let (key_bytes, value_bytes) = part_lengths(lengths);
        if (key_bytes, value_bytes) == (END, END) {
            break;
        }
        for (part, bytes) in [(&mut key, key_bytes), (&mut value, value_bytes)] {
            if bytes > SNAPSHOT_PART_MAX_BYTES {
                return Err(StoreError::Unreadable(format!(
                    "a snapshot's row with {bytes} bytes in one part"
                )));
            }
            part.resize(bytes as usize, 0);
            from.read_exact(part)?;
            sum.update(part);
        }
        each(&key, &value)?;
    }
    let mut expected = [0; 32];
    from.read_exact(&mut expected)?;
    if expected[..] == sum.finalize()[..] {
        Ok(())
    } else {
        Err(StoreError::Unreadable("a snapshot was altered on its way".to_owned()))
    }
}

fn part_lengths(lengths: [u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = lengths;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::super::fault::ReplicaFault;
    use super::super::store::{FlushMode, ReplicaStore};
    use super::*;

    fn store(dir: &tempfile::TempDir, rows: u8) -> ReplicaStore {
        ReplicaStore::create(dir.path()).unwrap();
        let store = ReplicaStore::open(dir.path()).unwrap();
        let fill = |change: &WriteTransaction| {
            let mut table = change.open_table(ROWS)?;
            for row in 0..rows {
                table.insert([1, row].as_slice(), vec![row; usize::from(row) * 300].as_slice())?;
            }
            Ok(())
        };
        store.write(FlushMode::Lazy, fill).unwrap();
        store
    }

    fn rows(store: &ReplicaStore) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let each = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        Snapshot::of_tables(store.begin_read().unwrap()).visit_rows(&mut { each }).unwrap();
        rows
    }

    fn install(store: &ReplicaStore, stream: &[u8]) -> Result<(), ReplicaFault> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(stream).unwrap();
        store.write(FlushMode::Durable, |change| Snapshot::of_stream(file).replace_rows(change))
    }

    #[test]
    fn a_stream_carries_all_rows_or_changes_nothing() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (from, to) = (store(&dirs[0], 40), store(&dirs[1], 3));
        let mut stream = Vec::new();
        let count = Snapshot::of_tables(from.begin_read().unwrap()).write_to(&mut stream).unwrap();
        assert_eq!(count, 40);
        let before = rows(&to);
        for cut in [0, 7, stream.len() / 2, stream.len() - 1] {
            assert!(install(&to, &stream[..cut]).is_err(), "cut at {cut}");
        }
        let mut altered = stream.clone();
        altered[stream.len() / 2] ^= 4;
        assert!(install(&to, &altered).is_err());
        assert_eq!(rows(&to), before);
        install(&to, &stream).unwrap();
        assert_eq!(rows(&to), rows(&from));
    }
}
