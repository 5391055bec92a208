//! A download that is on record but not running: it waits for a tracker, a disk or its user, or it has failed.

use std::os::unix::fs::MetadataExt;

use engine::storage::destination::{Destination, DestinationEntry, partial_name};
use engine::storage::error::{StorageError, StorageErrorKind};
use engine::storage::filesystem_threads::FilesystemId;
use engine::storage::resume::remove_orphaned_record;
use rustix::fs::{FlockOperation, flock};

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{TransferRow, TransferState, WaitCause};
use crate::node::core::{quote_key, to_engine_key};
use crate::node::disk::records::{DownloadRecord, RecordId, RecordStore};
use crate::node::rows;
use crate::printable::show_path;

/// A download that is on record but not running.
#[derive(Clone, Debug)]
pub(super) struct RecordedDownload {
    /// The name of the record.
    pub(super) id: RecordId,
    /// The record.
    pub(super) record: DownloadRecord,
    /// Why the last attempt to resume failed; `None` if there was no attempt.
    pub(super) wait: Option<RecordedWait>,
}

/// Why a recorded download could not be resumed yet.
#[derive(Clone, Debug)]
pub(super) struct RecordedWait {
    pub(super) waits_for: WaitCause,
    pub(super) fault: ClientFault,
}

impl RecordedWait {
    /// The wait of a download whose file could not be described.
    pub(super) fn for_description(fault: ClientFault) -> RecordedWait {
        let waits_for = match fault.exit {
            ExitCause::NotLoggedIn => WaitCause::Login,
            _ => WaitCause::Tracker,
        };
        RecordedWait { waits_for, fault }
    }

    /// The wait of a download whose destination's filesystem does not answer.
    pub(super) fn for_no_answer(record: &DownloadRecord) -> RecordedWait {
        let message = format!("the filesystem of {} does not answer", show_path(&record.destination));
        let fix = format!("check that disk or server, or `cancel {}`", quote_key(&record.key));
        RecordedWait {
            waits_for: WaitCause::Disk,
            fault: ClientFault::new(ExitCause::LocalIo, message).fix(fix),
        }
    }

    /// The wait of a download that this machine could not start.
    pub(super) fn for_start(fault: ClientFault) -> RecordedWait {
        let waits_for = match fault.exit {
            ExitCause::DiskFull | ExitCause::LocalIo | ExitCause::NotFound => WaitCause::Disk,
            _ => WaitCause::System,
        };
        RecordedWait { waits_for, fault }
    }
}

/// What decides how the downloads that are not running are shown.
#[derive(Clone, Copy)]
pub(super) struct NodeSituation<'a> {
    /// The logged-in user.
    pub(super) user: Option<&'a str>,
    /// Whether this node resumes recorded downloads. One that ends with its command does not.
    pub(super) resumes_recorded: bool,
    /// Why no tracker can be asked, if none can.
    pub(super) tracker_trouble: Option<&'a str>,
}

/// Reads the downloads on record. If two records have the same key, the one written last is kept and the other removed.
pub(super) fn load_downloads(records: &RecordStore) -> Vec<RecordedDownload> {
    let mut downloads: Vec<RecordedDownload> = Vec::new();
    // The records come in the order in which they were written.
    for (id, record) in records.read_downloads() {
        let record = undo_replacement(records, &id, record);
        let download = RecordedDownload { id, record, wait: None };
        match downloads.iter_mut().find(|known| known.record.key == download.record.key) {
            None => downloads.push(download),
            Some(known) => {
                let older = std::mem::replace(known, download);
                if let Err(fault) = records.remove_download(&older.id) {
                    tracing::warn!("{fault}");
                }
            }
        }
    }
    downloads
}

/// A record with another inside belongs to a download that was about to replace that other one, and that an
/// earlier process did not start before it ended. Restores the record inside.
fn undo_replacement(records: &RecordStore, id: &RecordId, record: DownloadRecord) -> DownloadRecord {
    let Some(replaced) = record.replaced else { return record };
    if let Err(fault) = records.write_download(id, &replaced) {
        // Not needed for correctness: the next start reads the same record and restores it again.
        tracing::warn!("{fault}");
    }
    *replaced
}

impl RecordedDownload {
    /// The row in the list of downloads.
    pub(super) fn row(&self, situation: NodeSituation<'_>) -> TransferRow {
        let DownloadRecord { key, destination, total_bytes, .. } = &self.record;
        rows::idle_transfer_row(&to_engine_key(key), destination.clone(), *total_bytes, self.state(situation))
    }

    fn state(&self, situation: NodeSituation<'_>) -> (TransferState, Option<ClientFault>) {
        let record = &self.record;
        if let Some(failed) = &record.failed {
            return (TransferState::Failed, Some(failed.clone()));
        }
        if record.paused {
            return (TransferState::Paused, None);
        }
        let (waits_for, cause) = if situation.user != Some(record.user.as_str()) {
            (WaitCause::Login, rows::user_absent_fault(&record.user))
        } else if let Some(RecordedWait { waits_for, fault }) = &self.wait {
            (*waits_for, fault.clone())
        } else if situation.resumes_recorded {
            let message = "it continues after the downloads before it";
            (WaitCause::Slot, ClientFault::new(ExitCause::NoProgress, message).fix("wait"))
        } else {
            let message = "no node runs that continues it";
            (WaitCause::Node, ClientFault::new(ExitCause::NoProgress, message).fix("`client serve`"))
        };
        (TransferState::Waiting { waits_for }, Some(cause))
    }

    /// Whether the download may be resumed while `user` is logged in.
    pub(super) fn can_resume(&self, user: &str) -> bool {
        self.record.user == user && !self.record.paused && self.record.failed.is_none()
    }

    /// Removes the partial file and the engine's record of its pieces.
    ///
    /// # Errors
    /// A storage fault. Exit code 10 when another process is writing the file.
    pub(super) fn remove_partial_file(&self) -> Result<(), ClientFault> {
        let record = &self.record;
        let target = match Destination::resolve(&record.destination, &record.key.name) {
            // With its directory the partial file is gone, too.
            Err(StorageError { kind: StorageErrorKind::Missing, .. }) => return Ok(()),
            target => target?,
        };
        let group = record.key.group.as_str();
        let partial = target.path().with_file_name(partial_name(target.name(), group, record.content));
        match std::fs::File::open(&partial) {
            Ok(file) => {
                flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
                    let message = format!("{} is being written by another process", show_path(&partial));
                    ClientFault::new(ExitCause::LocalIo, message).fix("cancel the download there")
                })?;
                std::fs::remove_file(&partial)
                    .map_err(|error| ClientFault::io("remove", &partial, &error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(ClientFault::io("open", &partial, &error)),
        }
        Ok(remove_orphaned_record(&target, group, record.content)?)
    }
}

/// The filesystem of the file at the destination, which is compared before the download is resumed. `None` if there is none.
pub(in crate::node) fn occupied_filesystem(record: &DownloadRecord) -> Option<FilesystemId> {
    let place = Destination::resolve(&record.destination, &record.key.name).ok()?;
    let is_occupied = matches!(place.existing_entry(), Ok(DestinationEntry::File { .. }));
    let metadata = std::fs::symlink_metadata(place.path()).ok().filter(|_| is_occupied)?;
    Some(FilesystemId::of_device(metadata.dev()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use engine::proto::units::Digest;

    use super::*;
    use crate::node::disk::records::tests::sample_file;

    #[test]
    fn of_two_records_with_one_key_the_one_written_last_counts_and_the_other_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let records = RecordStore::in_state_dir(dir.path());
        let record = DownloadRecord {
            key: sample_file("g", "u").key,
            user: "u".into(),
            destination: "/to".into(),
            overwrite: false,
            content: Digest([3; 20]),
            total_bytes: 9,
            paused: false,
            failed: Some(ClientFault::new(ExitCause::Exists, "why")),
            replaced: None,
        };
        let (first, second) = (RecordId::new().unwrap(), RecordId::new().unwrap());
        records.write_download(&first, &record).unwrap();
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        for entry in fs::read_dir(dir.path().join("downloads")).unwrap() {
            // This machine's clock was set back since.
            File::open(entry.unwrap().path()).unwrap().set_modified(later).unwrap();
        }
        records.write_download(&second, &DownloadRecord { failed: None, ..record.clone() }).unwrap();
        let downloads = load_downloads(&records);
        assert_eq!(downloads.len(), 1);
        assert_eq!((&downloads[0].id, &downloads[0].record.failed), (&second, &None));
        assert_eq!(records.read_downloads().len(), 1);
    }
}
