//! One download of this node: what it is, whose, and where to; and its record.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::Download;
use engine::lock::lock;
use engine::proto::manifest::{FileProof, Manifest};
use engine::stats::{DownloadPhase, DownloadProgress};
use tracker::api::GroupFile;

use super::core::{NodeCore, to_engine_key};
use super::recorded;
use super::records::{DownloadRecord, RecordId};
use super::rows;
use super::shutdown::ShutdownLatch;
use crate::exit::ClientFault;
use crate::ipc::rows::TransferRow;

/// What is on record of a download.
struct OwnedRecord {
    wanted: DownloadRecord,
    /// Whether the record was given up, or is another download's by now: then this one writes it no more.
    is_given_up: bool,
}

/// What a download begins with.
pub(super) struct NewDownload {
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    pub(super) wanted: DownloadRecord,
    /// What the file is.
    pub(super) manifest: Arc<Manifest>,
    /// The engine's part.
    pub(super) download: Download,
    /// The node's limit for what it receives, in bytes a second.
    pub(super) limit_down: Option<NonZeroU64>,
}

/// One download.
pub(super) struct DownloadRun {
    /// Which file.
    pub(super) key: GroupFile,
    /// Whose it is.
    pub(super) user: String,
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    record: Mutex<OwnedRecord>,
    /// What the file is.
    pub(super) manifest: Arc<Manifest>,
    /// Ends when its end is on record.
    pub(super) end_recorded: ShutdownLatch,
    /// Ends when the trackers were told for the first time that it is complete, whatever they said.
    pub(super) end_announced: ShutdownLatch,
    /// The engine's part.
    pub(super) download: Download,
    /// Why the node paused it, when it did.
    pub(super) pause_reason: Mutex<Option<String>>,
    /// The node's limit for what it receives, in bytes a second.
    pub(super) limit_down: Option<NonZeroU64>,
}

impl DownloadRun {
    /// One that has just begun.
    pub(super) fn new(begun: NewDownload) -> DownloadRun {
        let NewDownload { id, wanted, manifest, download, limit_down } = begun;
        DownloadRun {
            key: wanted.key.clone(),
            user: wanted.user.clone(),
            id,
            record: Mutex::new(OwnedRecord { wanted, is_given_up: false }),
            manifest,
            end_recorded: ShutdownLatch::default(),
            end_announced: ShutdownLatch::default(),
            download,
            pause_reason: Mutex::default(),
            limit_down,
        }
    }

    /// Where it was asked to go.
    pub(super) fn destination(&self) -> PathBuf {
        lock(&self.record).wanted.destination.clone()
    }

    /// As it stands.
    pub(super) fn row(&self) -> TransferRow {
        self.row_at(&self.download.progress())
    }

    /// As it stood.
    pub(super) fn row_at(&self, progress: &DownloadProgress) -> TransferRow {
        let held_back = lock(&self.pause_reason);
        let transfer =
            rows::transfer_row(&to_engine_key(&self.key), progress, held_back.as_deref(), self.limit_down);
        let pieces_only = matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
        TransferRow { pieces_only, figures: rows::transfer_figures(&self.download, progress), ..transfer }
    }

    /// Pauses for its user, who alone lets it go on from here: whatever else had held it back does not count any more.
    pub(super) fn pause(&self) {
        let mut held_back = lock(&self.pause_reason);
        *held_back = None;
        self.download.pause();
    }

    /// Goes on, whoever had paused it.
    pub(super) fn resume(&self) {
        let mut held_back = lock(&self.pause_reason);
        *held_back = None;
        self.download.resume();
    }

    /// Goes on if the node had held it back and `user` is whose it is; is held back if it is another's.
    pub(super) fn set_active_user(&self, user: Option<&str>) {
        let mut held_back = lock(&self.pause_reason);
        if user == Some(self.user.as_str()) {
            if held_back.take().is_some() {
                self.download.resume();
            }
        } else if !matches!(self.download.progress().phase, DownloadPhase::Paused) && !self.has_ended() {
            *held_back = Some(recorded::user_absent_fault(&self.user).message);
            self.download.pause();
        }
    }

    /// Changes its record, here and on the disk, unless it was given up.
    ///
    /// # Errors
    /// A fault when it cannot be written.
    pub(super) fn update_record(
        &self,
        core: &NodeCore,
        change: impl FnOnce(&mut DownloadRecord),
    ) -> Result<(), ClientFault> {
        let mut record = lock(&self.record);
        if record.is_given_up {
            return Ok(());
        }
        change(&mut record.wanted);
        core.records.write_download(&self.id, &record.wanted)
    }

    /// It runs: what was on record before it is forgotten.
    ///
    /// # Errors
    /// A fault when that cannot be written.
    pub(super) fn clear_replaced(&self, core: &NodeCore) -> Result<(), ClientFault> {
        if lock(&self.record).wanted.replaced.is_none() {
            return Ok(());
        }
        self.update_record(core, |wanted| wanted.replaced = None)
    }

    /// Leaves its record to another download, and gives what is on it: from here on this one writes it no more.
    pub(super) fn hand_over_record(&self) -> DownloadRecord {
        let mut record = lock(&self.record);
        record.is_given_up = true;
        // Its keeper may not have come to note that.
        if let DownloadPhase::Failed(failure) = &self.download.progress().phase {
            record.wanted.failed = Some(failure.into());
        }
        record.wanted.clone()
    }

    /// The other one did not begin: its record is its own again.
    pub(super) fn take_back_record(&self) {
        lock(&self.record).is_given_up = false;
    }

    /// Removes its record, for good: whatever its keeper notes from here on is not written.
    ///
    /// # Errors
    /// A fault when it cannot be removed.
    pub(super) fn delete_record(&self, core: &NodeCore) -> Result<(), ClientFault> {
        let mut record = lock(&self.record);
        record.is_given_up = true;
        core.records.forget_download(&self.id)
    }

    /// Whether nothing more will happen to it.
    pub(super) fn has_ended(&self) -> bool {
        self.download.progress().phase.is_end()
    }
}
