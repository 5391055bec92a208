//! A folder of records, each a JSON file.
//!
//! Always true: a record that was written or removed is so on the disk when the call returns. A file that is
//! not a record of this version is renamed, never removed; one that cannot be read now is left as it is; both
//! are reported, and the others are read. Files are removed for want of a record only if the list of the
//! folder was complete.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::node::disk::private;
use crate::printable::show_path;
use crate::quoting;

/// The version of the records that this program writes.
const RECORD_FORMAT: u32 = 3;

/// The oldest version that it reads. The fingerprints of version 1 lack the time of the last status change; versions 1
/// and 2 lack the number of the write.
const RECORD_FORMAT_OLDEST: u32 = 1;

const RECORD_EXTENSION: &str = "json";
const TEMPORARY_EXTENSION: &str = "new";

/// The extension of a manifest beside a record.
pub(super) const MANIFEST_EXTENSION: &str = "manifest";

/// The name of a record in its folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) struct RecordId(String);

impl RecordId {
    /// A random name.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(in crate::node) fn new() -> Result<RecordId, ClientFault> {
        let number = getrandom::u64().map_err(|error| ClientFault::no_random(&error))?;
        Ok(RecordId(format!("{number:016x}")))
    }
}

/// A folder of the state directory.
#[derive(Debug)]
pub(in crate::node) struct RecordFolder {
    path: PathBuf,
    records_max: usize,
    /// The number of the next write: above those of all records that were read.
    next_write: AtomicU64,
}

/// A record as it is written.
#[derive(Serialize, Deserialize)]
struct RecordEnvelope<R> {
    format: u32,
    /// Counts the writes in a folder. Of two records the one with the larger number was written later, also if the clock
    /// was set back between.
    #[serde(default)]
    write: u64,
    record: R,
}

/// What the records of every version begin with.
#[derive(Deserialize)]
struct RecordHeader {
    format: u32,
}

/// Why a file is not a record.
enum RecordFault {
    Damaged(String),
    OtherVersion(u32),
    /// It cannot be read now.
    Unreadable(io::Error),
}

/// The sorted names in a folder.
struct FolderListing {
    names: Vec<String>,
    /// Whether these are all of them.
    is_complete: bool,
}

impl RecordFolder {
    /// The folder of this name, which may not exist yet, with room for `records_max` records.
    pub(super) fn new(state: &Path, name: &str, records_max: usize) -> RecordFolder {
        RecordFolder { path: state.join(name), records_max, next_write: AtomicU64::new(1) }
    }

    /// The path of a file of a record.
    pub(super) fn path_of(&self, id: &RecordId, extension: &str) -> PathBuf {
        self.path.join(format!("{}.{extension}", id.0))
    }

    /// Writes a file of a record with `write`. It is on the disk when this returns.
    ///
    /// # Errors
    /// A fault that names the file.
    pub(super) fn write_with(
        &self,
        id: &RecordId,
        extension: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), ClientFault> {
        let name = format!("{}.{extension}", id.0);
        let fault = |error: &io::Error| write_fault(&self.path.join(&name), error);
        if !self.path.is_dir() {
            private::prepare_directory(&self.path)?;
            private::sync_parent(&self.path).map_err(|error| fault(&error))?;
        }
        private::replace_file_with(&self.path, &name, write).map_err(|error| fault(&error))
    }

    /// Writes a record. It is on the disk when this returns.
    ///
    /// # Errors
    /// A fault that names the file.
    pub(super) fn write<R: Serialize>(&self, id: &RecordId, record: &R) -> Result<(), ClientFault> {
        let write = self.next_write.fetch_add(1, Ordering::SeqCst);
        let envelope = RecordEnvelope { format: RECORD_FORMAT, write, record };
        let bytes = serde_json::to_vec(&envelope).map_err(|error| {
            ClientFault::new(ExitCause::Other, format!("a record cannot be written: {error}"))
        })?;
        self.write_with(id, RECORD_EXTENSION, |file| file.write_all(&bytes))
    }

    /// Removes a record, then its manifest.
    ///
    /// # Errors
    /// A fault that names the file.
    pub(super) fn remove(&self, id: &RecordId) -> Result<(), ClientFault> {
        let path = self.path_of(id, RECORD_EXTENSION);
        let fault = |error: &io::Error| {
            let exit = ExitCause::LocalIo;
            ClientFault { exit, ..ClientFault::io("remove the record", &path, error) }
                .fix(format!("`rm {}`, or it comes back at the next start", quoting::quote_path(&path)))
        };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(&error)),
            _ => {}
        }
        self.remove_files(id);
        match private::sync_directory(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault(&error)),
            _ => Ok(()),
        }
    }

    /// Removes the files of a record as far as possible.
    pub(super) fn remove_files(&self, id: &RecordId) {
        for extension in [RECORD_EXTENSION, MANIFEST_EXTENSION] {
            // The next start removes files without a record.
            let _ = fs::remove_file(self.path_of(id, extension));
        }
    }

    /// Removes what a crash left: temporary files, and manifests without a record. A record that was set
    /// aside counts.
    fn remove_leftovers(&self, listed: &FolderListing) {
        if !listed.is_complete {
            return;
        }
        let names = &listed.names;
        for name in names {
            let stem = Path::new(name).file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let record = format!("{stem}.{RECORD_EXTENSION}");
            let extension = Path::new(name).extension().and_then(OsStr::to_str);
            let is_leftover = match extension {
                Some(TEMPORARY_EXTENSION) => true,
                Some(MANIFEST_EXTENSION) => {
                    !names.iter().any(|other| other.starts_with(&record))
                        && self.path.join(&record).try_exists().is_ok_and(|there| !there)
                }
                _ => false,
            };
            if is_leftover {
                // If it cannot be removed it only takes room.
                let _ = fs::remove_file(self.path.join(name));
            }
        }
    }

    /// Reads all records, in the order in which they were written, and removes what a crash left. Also returns what is wrong with
    /// other files, in words.
    pub(super) fn read<R: DeserializeOwned>(&self) -> (Vec<(RecordId, R)>, Vec<String>) {
        let mut found = Vec::new();
        let mut problems = Vec::new();
        let listed = self.list_names().unwrap_or_else(|error| {
            let path = show_path(&self.path);
            problems.push(format!(
                "the records in {path} cannot be listed ({error}): mend that, then start the node again"
            ));
            FolderListing { names: Vec::new(), is_complete: false }
        });
        self.remove_leftovers(&listed);
        let mut names = listed.names;
        names.retain(|name| Path::new(name).extension() == Some(OsStr::new(RECORD_EXTENSION)));
        if names.len() > self.records_max {
            let (path, most) = (show_path(&self.path), self.records_max);
            problems.push(format!("{path} holds more than {most} records; those beyond are not read"));
            names.truncate(self.records_max);
        }
        for name in names {
            let id = RecordId(name.trim_end_matches(".json").to_owned());
            match self.read_one(&id) {
                Ok(RecordEnvelope { write, record, .. }) => found.push((write, id, record)),
                Err(RecordFault::Unreadable(error)) => problems.push(format!(
                    "the record {} cannot be read ({error}) and is left as it is: mend that, then start the node again",
                    show_path(&self.path_of(&id, RECORD_EXTENSION))
                )),
                Err(RecordFault::Damaged(why)) => problems.push(self.put_away(&id, "a record", "damaged", &why)),
                Err(RecordFault::OtherVersion(format)) => {
                    let why = format!(
                        "it has format {format}, and this version of the program knows {RECORD_FORMAT_OLDEST} to {RECORD_FORMAT}"
                    );
                    problems.push(self.put_away(&id, "a record", "other-version", &why));
                }
            }
        }
        found.sort_by(|(one, one_id, _), (other, other_id, _)| (one, one_id).cmp(&(other, other_id)));
        if let Some((last, ..)) = found.last() {
            self.next_write.fetch_max(last.saturating_add(1), Ordering::SeqCst);
        }
        (found.into_iter().map(|(_, id, record)| (id, record)).collect(), problems)
    }

    fn read_one<R: DeserializeOwned>(&self, id: &RecordId) -> Result<RecordEnvelope<R>, RecordFault> {
        let path = self.path_of(id, RECORD_EXTENSION);
        // An error with a number comes from the system and may pass; one without is about the file's content.
        let bytes = private::read_limited(&path, limits::RECORD_MAX_BYTES).map_err(|error| {
            match error.raw_os_error() {
                Some(_) => RecordFault::Unreadable(error),
                None => RecordFault::Damaged(error.to_string()),
            }
        })?;
        parse_record(&bytes)
    }

    /// Renames a record that cannot be used, so that the user can look at it. Returns what happened, in
    /// words.
    pub(super) fn set_aside(&self, id: &RecordId, what: &str, why: &str) -> String {
        self.put_away(id, what, "damaged", why)
    }

    fn put_away(&self, id: &RecordId, what: &str, ending: &str, why: &str) -> String {
        let path = self.path_of(id, RECORD_EXTENSION);
        let aside = self.path_of(id, &format!("{RECORD_EXTENSION}.{ending}"));
        let next = "give the command that made it again (`upload_file`, `download_file`)";
        match fs::rename(&path, &aside) {
            Ok(()) => {
                let aside = show_path(&aside);
                format!("{what} cannot be used ({why}) and is now {aside}: {next}, then remove that file")
            }
            Err(error) => {
                let path = show_path(&path);
                format!("{what}, {path}, cannot be used ({why}), nor renamed ({error}): {next}")
            }
        }
    }

    /// The names in the folder; none if there is no folder. A name that is not UTF-8 is skipped.
    fn list_names(&self) -> io::Result<FolderListing> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(FolderListing { names: Vec::new(), is_complete: true });
            }
            entries => entries?,
        };
        let mut names = Vec::new();
        let mut whole = true;
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if names.len() == 4 * self.records_max {
                whole = false;
                break;
            }
            names.push(name);
        }
        names.sort();
        Ok(FolderListing { names, is_complete: whole })
    }
}

fn write_fault(path: &Path, error: &io::Error) -> ClientFault {
    let fault = ClientFault::io("write the record", path, error);
    let exit = if fault.exit == ExitCause::DiskFull { ExitCause::DiskFull } else { ExitCause::LocalIo };
    ClientFault { exit, ..fault }
        .default_fix("make room in the state directory, or make it writable, then give the command again")
}

/// Parses the file of a record.
fn parse_record<R: DeserializeOwned>(bytes: &[u8]) -> Result<RecordEnvelope<R>, RecordFault> {
    let damaged = |error: serde_json::Error| RecordFault::Damaged(error.to_string());
    let header: RecordHeader = serde_json::from_slice(bytes).map_err(damaged)?;
    if !(RECORD_FORMAT_OLDEST..=RECORD_FORMAT).contains(&header.format) {
        return Err(RecordFault::OtherVersion(header.format));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// For fuzzing: whether these bytes are the file of a record. An accepted record must survive encoding.
pub(super) fn accepts_record<R: DeserializeOwned + Serialize + PartialEq>(bytes: &[u8]) -> bool {
    let Ok(RecordEnvelope { write, record, .. }) = parse_record::<R>(bytes) else { return false };
    let encoded = serde_json::to_vec(&RecordEnvelope { format: RECORD_FORMAT, write, record: &record });
    assert!(encoded.is_ok_and(|bytes| parse_record::<R>(&bytes).is_ok_and(|parsed| parsed.record == record)));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(dir: &tempfile::TempDir) -> RecordFolder {
        RecordFolder::new(dir.path(), "records", 3)
    }

    #[test]
    fn records_come_back_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        assert_eq!(folder.read::<u32>().0, []);
        let id = RecordId::new().unwrap();
        folder.write(&id, &7).unwrap();
        folder.write(&id, &8).unwrap();
        assert_eq!(folder.next_write.load(Ordering::SeqCst), 3);
        assert_eq!(folder.read::<u32>(), (vec![(id.clone(), 8)], vec![]));
        folder.remove(&id).unwrap();
        folder.remove(&id).unwrap();
        assert_eq!(folder.read::<u32>().0, []);
    }

    #[test]
    fn files_that_are_not_records_are_set_aside_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        let good = RecordId("good".into());
        folder.write(&good, &1).unwrap();
        fs::write(dir.path().join("records/torn.json"), "{\"format\":1,\"rec").unwrap();
        fs::write(dir.path().join("records/later.json"), "{\"format\":9,\"other\":[]}").unwrap();
        let (found, problems) = folder.read::<u32>();
        assert_eq!(found, [(good, 1)]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("later.json.other-version"), "{problems:?}");
        assert!(problems[1].contains("torn.json.damaged"), "{problems:?}");
        assert!(dir.path().join("records/torn.json.damaged").exists());
        assert_eq!(folder.read::<u32>().1, Vec::<String>::new(), "each is reported once");
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_files_of_records_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        let kept = RecordId("kept".into());
        folder.write(&kept, &1).unwrap();
        let at = |name: &str| dir.path().join("records").join(name);
        for name in
            ["kept.manifest", "aside.json.damaged", "aside.manifest", "orphan.manifest", "kept.json.new"]
        {
            fs::write(at(name), "x").unwrap();
        }
        folder.remove_leftovers(&FolderListing { is_complete: false, ..folder.list_names().unwrap() });
        assert!(at("orphan.manifest").exists(), "its record may be among the names that were not listed");
        folder.remove_leftovers(&folder.list_names().unwrap());
        assert!(at("kept.manifest").exists() && at("aside.manifest").exists());
        assert!(!at("orphan.manifest").exists() && !at("kept.json.new").exists());
    }

    #[test]
    fn the_number_of_records_is_limited() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        for number in 0..4 {
            folder.write(&RecordId(format!("{number}")), &number).unwrap();
        }
        let (found, problems) = folder.read::<u32>();
        assert_eq!((found.len(), problems.len()), (3, 1), "{problems:?}");
    }
}
