//! A download that this process has handed to the engine: its record, its pauses, its progress.
//!
//! Always true: only the run that owns a record writes it. A run gives its record up when it is cancelled or
//! complete, or when a successor takes the record over.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::Download;
use engine::lock::lock;
use engine::proto::manifest::{FileProof, Manifest};
use engine::stats::{DownloadPhase, DownloadProgress};
use tracker::api::GroupFile;

use super::recorded;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeEvent};
use crate::ipc::rows::TransferRow;
use crate::limits;
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::disk::records::{DownloadRecord, RecordId};
use crate::node::events::EventStream;
use crate::node::rows;
use crate::node::shutdown::Latch;

/// A download in the engine, also when it has ended there.
pub(in crate::node) struct DownloadRun {
    /// The file.
    pub(super) key: GroupFile,
    /// The user.
    pub(super) user: String,
    /// Where the file was asked to go.
    pub(super) destination: PathBuf,
    /// The name of its record.
    pub(super) id: RecordId,
    /// Its record, as long as it owns it.
    record: Mutex<Option<DownloadRecord>>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) download: Download,
    /// Why the node paused it; `None` when its user did, or when it is not paused.
    pause_reason: Mutex<Option<String>>,
    /// Set when its end is on record.
    pub(super) end_recorded: Latch,
    /// Set when the trackers were asked to note that it is complete, successfully or not.
    pub(super) end_announced: Latch,
    /// The node's limit of received bytes a second.
    limit_down: Option<NonZeroU64>,
}

impl DownloadRun {
    /// A run that the engine has just begun.
    pub(super) fn new(
        id: RecordId,
        record: DownloadRecord,
        manifest: Arc<Manifest>,
        download: Download,
        limit_down: Option<NonZeroU64>,
    ) -> DownloadRun {
        DownloadRun {
            key: record.key.clone(),
            user: record.user.clone(),
            destination: record.destination.clone(),
            id,
            record: Mutex::new(Some(record)),
            manifest,
            download,
            pause_reason: Mutex::default(),
            end_recorded: Latch::default(),
            end_announced: Latch::default(),
            limit_down,
        }
    }

    /// Its row.
    pub(in crate::node) fn row(&self) -> TransferRow {
        self.row_at(&self.download.progress())
    }

    /// Its row at some progress.
    fn row_at(&self, progress: &DownloadProgress) -> TransferRow {
        let pause_reason = lock(&self.pause_reason);
        let key = to_engine_key(&self.key);
        let row = rows::transfer_row(&key, progress, pause_reason.as_deref(), self.limit_down);
        let pieces_only = matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
        TransferRow { pieces_only, figures: rows::transfer_figures(&self.download, progress), ..row }
    }

    /// Pauses it for its user: the node does not resume it.
    pub(super) fn pause(&self) {
        let mut pause_reason = lock(&self.pause_reason);
        *pause_reason = None;
        self.download.pause();
    }

    /// Resumes it.
    pub(super) fn resume(&self) {
        let mut pause_reason = lock(&self.pause_reason);
        *pause_reason = None;
        self.download.resume();
    }

    /// Pauses it while its user is not logged in, and resumes it if that was why it is paused.
    pub(super) fn set_active_user(&self, user: Option<&str>) {
        let mut pause_reason = lock(&self.pause_reason);
        if user == Some(self.user.as_str()) {
            if pause_reason.take().is_some() {
                self.download.resume();
            }
        } else if !matches!(self.download.progress().phase, DownloadPhase::Paused) && !self.has_ended() {
            *pause_reason = Some(recorded::user_absent_fault(&self.user).message);
            self.download.pause();
        }
    }

    /// Changes its record, in memory and on the disk, if it owns one.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(super) fn update_record(
        &self,
        core: &NodeCore,
        change: impl FnOnce(&mut DownloadRecord),
    ) -> Result<(), ClientFault> {
        let mut owned = lock(&self.record);
        let Some(record) = owned.as_mut() else { return Ok(()) };
        change(record);
        core.records.write_download(&self.id, record)
    }

    /// Removes the record of the download that it replaced from its own.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(super) fn clear_replaced(&self, core: &NodeCore) -> Result<(), ClientFault> {
        if lock(&self.record).as_ref().is_none_or(|record| record.replaced.is_none()) {
            return Ok(());
        }
        self.update_record(core, |record| record.replaced = None)
    }

    /// Gives the record of a run that has failed to its successor. `None` if it has not failed, or owns no
    /// record.
    pub(super) fn hand_over_record(&self) -> Option<DownloadRecord> {
        let DownloadPhase::Failed(failure) = self.download.progress().phase else { return None };
        let mut record = lock(&self.record).take()?;
        // The announcer may not have come to write it.
        record.failed = Some((&failure).into());
        Some(record)
    }

    /// Takes the record back: the successor did not start.
    pub(super) fn take_back_record(&self, record: DownloadRecord) {
        let before = lock(&self.record).replace(record);
        assert!(before.is_none(), "{}: only a run that gave its record up takes it back", self.key);
    }

    /// Removes its record from the disk, for good.
    ///
    /// # Errors
    /// The record cannot be removed.
    pub(super) fn delete_record(&self, core: &NodeCore) -> Result<(), ClientFault> {
        // Held meanwhile, so that no other thread writes the file again.
        let mut record = lock(&self.record);
        *record = None;
        core.records.forget_download(&self.id)
    }

    /// Whether it is complete, cancelled or has failed.
    pub(super) fn has_ended(&self) -> bool {
        self.download.progress().phase.is_end()
    }
}

/// Sends the progress of a download to a front end until the download ends.
///
/// # Errors
/// The download's failure. Exit code 130 when the front end is gone or the node is shutting down.
pub(in crate::node) fn follow_download(
    core: &NodeCore,
    run: &DownloadRun,
    events: &EventStream<'_>,
) -> Result<NodeAnswer, ClientFault> {
    let mut version = 0;
    let end_wait = Duration::from_millis(limits::COMPLETION_ANNOUNCE_WAIT_MS);
    events.send(NodeEvent::Transfer(run.row()))?;
    loop {
        let progress = run.download.wait(version, Duration::from_millis(limits::HEARTBEAT_MS));
        version = progress.version;
        match &progress.phase {
            DownloadPhase::Durable => {
                // After the answer a restart shares the file, and peers find this node among the seeders;
                // unless the disk or the tracker takes too long.
                run.end_recorded.wait_timeout(end_wait);
                run.end_announced.wait_timeout(end_wait);
                return Ok(NodeAnswer::Downloaded(run.row_at(&progress)));
            }
            DownloadPhase::Failed(failure) => return Err(failure.into()),
            DownloadPhase::Cancelled => {
                let message = format!("the download of {} was cancelled", run.key);
                return Err(
                    ClientFault::new(ExitCause::Other, message).fix("give the command again to begin anew")
                );
            }
            _ => events.send_progress(|| NodeEvent::Transfer(run.row_at(&progress)))?,
        }
        if core.shutdown.is_set() {
            let message = "the node is ending; what was fetched stays beside the destination";
            return Err(
                ClientFault::new(ExitCause::Interrupted, message).fix("give the same command again to go on")
            );
        }
    }
}
