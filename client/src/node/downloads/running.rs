//! One download of this node: what it is, whose, and where to; and its record.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::Download;
use engine::lock::lock;
use engine::proto::manifest::{FileProof, Manifest};
use engine::stats::{DownloadPhase, DownloadProgress};
use tracker::api::GroupFile;

use super::recorded;
use crate::exit::ClientFault;
use crate::ipc::rows::TransferRow;
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::disk::records::{DownloadRecord, RecordId};
use crate::node::rows;
use crate::node::shutdown::ShutdownLatch;

/// What is on record of a download.
struct OwnedRecord {
    wanted: DownloadRecord,
    /// Whether the record was given up, or is another download's by now: then this one writes it no more.
    is_given_up: bool,
}

/// What a download begins with.
pub(in crate::node) struct NewDownload {
    /// Its record's name.
    pub(in crate::node) id: RecordId,
    /// Its record.
    pub(in crate::node) wanted: DownloadRecord,
    /// What the file is.
    pub(in crate::node) manifest: Arc<Manifest>,
    /// The engine's part.
    pub(in crate::node) download: Download,
    /// The node's limit for what it receives, in bytes a second.
    pub(in crate::node) limit_down: Option<NonZeroU64>,
}

/// One download.
pub(in crate::node) struct DownloadRun {
    /// Which file.
    pub(in crate::node) key: GroupFile,
    /// Whose it is.
    pub(in crate::node) user: String,
    /// Its record's name.
    pub(in crate::node) id: RecordId,
    /// Its record.
    record: Mutex<OwnedRecord>,
    /// What the file is.
    pub(in crate::node) manifest: Arc<Manifest>,
    /// Ends when its end is on record.
    pub(in crate::node) end_recorded: ShutdownLatch,
    /// Ends when the trackers were told for the first time that it is complete, whatever they said.
    pub(in crate::node) end_announced: ShutdownLatch,
    /// The engine's part.
    pub(in crate::node) download: Download,
    /// Why the node paused it, when it did.
    pub(in crate::node) pause_reason: Mutex<Option<String>>,
    /// The node's limit for what it receives, in bytes a second.
    pub(in crate::node) limit_down: Option<NonZeroU64>,
}

impl DownloadRun {
    /// One that has just begun.
    pub(in crate::node) fn new(begun: NewDownload) -> DownloadRun {
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
    pub(in crate::node) fn destination(&self) -> PathBuf {
        lock(&self.record).wanted.destination.clone()
    }

    /// As it stands.
    pub(in crate::node) fn row(&self) -> TransferRow {
        self.row_at(&self.download.progress())
    }

    /// As it stood.
    pub(in crate::node) fn row_at(&self, progress: &DownloadProgress) -> TransferRow {
        let held_back = lock(&self.pause_reason);
        let transfer =
            rows::transfer_row(&to_engine_key(&self.key), progress, held_back.as_deref(), self.limit_down);
        let pieces_only = matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
        TransferRow { pieces_only, figures: rows::transfer_figures(&self.download, progress), ..transfer }
    }

    /// Pauses for its user, who alone lets it go on from here: whatever else had held it back does not count any more.
    pub(in crate::node) fn pause(&self) {
        let mut held_back = lock(&self.pause_reason);
        *held_back = None;
        self.download.pause();
    }

    /// Goes on, whoever had paused it.
    pub(in crate::node) fn resume(&self) {
        let mut held_back = lock(&self.pause_reason);
        *held_back = None;
        self.download.resume();
    }

    /// Goes on if the node had held it back and `user` is whose it is; is held back if it is another's.
    pub(in crate::node) fn set_active_user(&self, user: Option<&str>) {
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
    pub(in crate::node) fn update_record(
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
    pub(in crate::node) fn clear_replaced(&self, core: &NodeCore) -> Result<(), ClientFault> {
        if lock(&self.record).wanted.replaced.is_none() {
            return Ok(());
        }
        self.update_record(core, |wanted| wanted.replaced = None)
    }

    /// Leaves its record to another download, and gives what is on it: from here on this one writes it no more.
    pub(in crate::node) fn hand_over_record(&self) -> DownloadRecord {
        let mut record = lock(&self.record);
        record.is_given_up = true;
        // Its keeper may not have come to note that.
        if let DownloadPhase::Failed(failure) = &self.download.progress().phase {
            record.wanted.failed = Some(failure.into());
        }
        record.wanted.clone()
    }

    /// The other one did not begin: its record is its own again.
    pub(in crate::node) fn take_back_record(&self) {
        lock(&self.record).is_given_up = false;
    }

    /// Removes its record, for good: whatever its keeper notes from here on is not written.
    ///
    /// # Errors
    /// A fault when it cannot be removed.
    pub(in crate::node) fn delete_record(&self, core: &NodeCore) -> Result<(), ClientFault> {
        let mut record = lock(&self.record);
        record.is_given_up = true;
        core.records.forget_download(&self.id)
    }

    /// Whether nothing more will happen to it.
    pub(in crate::node) fn has_ended(&self) -> bool {
        self.download.progress().phase.is_end()
    }
}
