//! A run is a download that this process has handed to the engine, with its record, pauses and progress.
//!
//! Always true: only the run that owns a record writes it. A run gives up its record when it is cancelled or
//! complete, or when another download of the same file replaces it (its successor).

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use engine::Download;
use engine::lock::lock;
use engine::proto::manifest::{FileProof, Manifest};
use engine::proto::units::Digest;
use engine::stats::{DownloadPhase, DownloadProgress};
use tracker::api::GroupFile;

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeEvent};
use crate::ipc::rows::TransferRow;
use crate::limits;
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::disk::records::{DownloadRecord, RecordId};
use crate::node::events::EventStream;
use crate::node::rows;
use crate::node::shutdown::Latch;

/// A download that was handed to the engine. The run remains after the download has ended there, with its figures alone.
pub(in crate::node) struct DownloadRun {
    /// The file.
    pub(super) key: GroupFile,
    /// The user who started the download.
    pub(super) user: String,
    /// The destination as requested: a file or a directory.
    pub(super) destination: PathBuf,
    /// The name of the record.
    pub(super) id: RecordId,
    /// The record, while this run owns it.
    record: Mutex<Option<DownloadRecord>>,
    content: Digest,
    /// Whether the file has digests of its pieces alone.
    pieces_only: bool,
    pub(super) download: Download,
    pause: Mutex<PauseState>,
    /// A command wants the announcer to ask the trackers at once.
    is_retry_wanted: AtomicBool,
    /// Set when the completion has been recorded, or the attempt has failed.
    pub(super) end_recorded: Latch,
    /// Set when the completion has been announced to the trackers, or the attempt has failed.
    pub(super) end_announced: Latch,
    /// Why the trackers do not take this node as a seeder of the complete file.
    unshared: OnceLock<ClientFault>,
    /// The node's limit of received bytes per second.
    limit_down: Option<NonZeroU64>,
}

/// Whether a run is paused, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PauseState {
    NotPaused,
    /// By its user. Only a command resumes it.
    ByUser,
    /// By the node, since its user is not logged in. The user's next login resumes it.
    UserAbsent,
}

impl DownloadRun {
    /// A run whose download the engine has just started.
    pub(super) fn new(
        id: RecordId,
        record: DownloadRecord,
        manifest: &Manifest,
        download: Download,
        limit_down: Option<NonZeroU64>,
    ) -> DownloadRun {
        DownloadRun {
            key: record.key.clone(),
            user: record.user.clone(),
            destination: record.destination.clone(),
            id,
            record: Mutex::new(Some(record)),
            content: manifest.proof().id(),
            pieces_only: matches!(manifest.proof(), FileProof::PiecesOnly(_)),
            download,
            pause: Mutex::new(PauseState::NotPaused),
            is_retry_wanted: AtomicBool::new(false),
            end_recorded: Latch::default(),
            end_announced: Latch::default(),
            unshared: OnceLock::new(),
            limit_down,
        }
    }

    /// The id of the content that is downloaded.
    pub(super) fn content(&self) -> Digest {
        self.content
    }

    /// Records why the trackers do not take this node as a seeder of the complete file.
    pub(super) fn set_unshared(&self, fault: ClientFault) {
        // The first reason stays.
        let _ = self.unshared.set(fault);
    }

    /// The row in the list of downloads, with the current progress.
    pub(in crate::node) fn row(&self) -> TransferRow {
        self.row_at(&self.download.progress())
    }

    /// The row with the given progress.
    fn row_at(&self, progress: &DownloadProgress) -> TransferRow {
        let absent_user = (*lock(&self.pause) == PauseState::UserAbsent).then_some(self.user.as_str());
        let row = rows::transfer_row(&to_engine_key(&self.key), progress, absent_user, self.limit_down);
        let cause = row.cause.or_else(|| self.unshared.get().cloned());
        TransferRow {
            cause,
            pieces_only: self.pieces_only,
            figures: rows::transfer_figures(&self.download, progress),
            ..row
        }
    }

    /// Pauses the download at its user's command. The node does not resume it by itself.
    pub(super) fn pause(&self) {
        let mut pause = lock(&self.pause);
        *pause = PauseState::ByUser;
        self.download.pause();
    }

    /// Resumes the download at its user's command, and tries at once what it waits for: calls its peers, and
    /// asks the trackers for others.
    ///
    /// # Errors
    /// The record cannot be written. The download goes on nevertheless.
    pub(super) fn resume(&self, core: &NodeCore) -> Result<(), ClientFault> {
        let was_paused = {
            let mut pause = lock(&self.pause);
            self.download.resume();
            std::mem::replace(&mut *pause, PauseState::NotPaused) == PauseState::ByUser
        };
        self.is_retry_wanted.store(true, Ordering::SeqCst);
        self.download.retry();
        if was_paused { self.update_record(core, |record| record.paused = false) } else { Ok(()) }
    }

    /// Whether [`DownloadRun::resume`] was called since the last call of this.
    pub(super) fn take_retry(&self) -> bool {
        self.is_retry_wanted.swap(false, Ordering::SeqCst)
    }

    /// Pauses the download unless its user is `user`, who is logged in. Otherwise resumes it if the node had
    /// paused it.
    pub(super) fn pause_unless_user(&self, user: Option<&str>) {
        let mut pause = lock(&self.pause);
        let is_user_here = user == Some(self.user.as_str());
        match *pause {
            PauseState::UserAbsent if is_user_here => {
                *pause = PauseState::NotPaused;
                self.download.resume();
            }
            PauseState::NotPaused if !is_user_here && !self.has_ended() => {
                *pause = PauseState::UserAbsent;
                self.download.pause();
            }
            _ => {}
        }
    }

    /// Changes the record, in memory and on the disk. Does nothing if this run owns no record.
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

    /// Removes the replaced download's record, which is stored inside the record of this run.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(super) fn clear_replaced(&self, core: &NodeCore) -> Result<(), ClientFault> {
        if lock(&self.record).as_ref().is_none_or(|record| record.replaced.is_none()) {
            return Ok(());
        }
        self.update_record(core, |record| record.replaced = None)
    }

    /// Gives the record of a failed run to its successor. `None` if the run has not failed, or owns no record.
    pub(super) fn take_failed_record(&self) -> Option<DownloadRecord> {
        let DownloadPhase::Failed(failure) = self.download.progress().phase else { return None };
        let mut record = lock(&self.record).take()?;
        // The announcer may not have written the failure yet.
        record.failed = Some((&failure).into());
        Some(record)
    }

    /// Takes the record back after the successor failed to start.
    pub(super) fn restore_record(&self, record: DownloadRecord) {
        let before = lock(&self.record).replace(record);
        assert!(before.is_none(), "{}: only a run that gave its record up takes it back", self.key);
    }

    /// Removes the record, in memory and on the disk.
    ///
    /// # Errors
    /// The record cannot be removed.
    pub(super) fn delete_record(&self, core: &NodeCore) -> Result<(), ClientFault> {
        // The lock is held until the file is removed, so that no other thread writes it again.
        let mut record = lock(&self.record);
        *record = None;
        core.records.remove_download(&self.id)
    }

    /// Whether the download is complete, was cancelled or has failed.
    pub(super) fn has_ended(&self) -> bool {
        self.download.progress().phase.is_end()
    }
}

/// Sends the progress of a download to a front end until the download ends.
///
/// # Errors
/// The download's failure. Exit code 130 if the front end disconnects or the node shuts down.
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
                // Answer only when a restart would share the file and the tracker lists this node as a seeder.
                // The wait is limited, since the disk or the tracker may be slow.
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
            _ => events.send_progress(|| {
                let trouble = core.trackers.status().trouble;
                NodeEvent::Transfer(rows::wait_for_tracker(run.row_at(&progress), trouble.as_deref()))
            })?,
        }
        if core.shutdown.is_set() {
            let message = "the node is shutting down; the downloaded part stays beside the destination";
            return Err(ClientFault::new(ExitCause::Interrupted, message)
                .fix("give the same command again to resume"));
        }
    }
}
