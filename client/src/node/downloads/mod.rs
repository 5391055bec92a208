//! Starts, resumes, controls and lists the downloads of this node.
//!
//! Always true: a download is on record before it starts. If it replaces another download of the same file,
//! its record contains the replaced record until it runs. At most `DOWNLOADS_MAX` downloads run. A thread that
//! starts a download, or changes one that is not running, holds its lock.
//!
//! ```text
//!   requests ──┬──► start, resume (here) ──┬──► compare    the file at the destination with the manifest
//!              │            │              ├──► describe   ask the trackers for the manifest
//!              │            │              └──► announcer  one thread per run: announces pieces
//!              ▼            ▼
//!           control ──► table (states) ──┬──► recorded     on record but not running
//!                                        └──► running      the engine's download and its record
//! ```

mod announcer;
mod compare;
mod control;
mod describe;
mod matching;
mod recorded;
mod running;
mod table;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use engine::DownloadOrder;
use engine::proto::manifest::Manifest;
use engine::stats::DownloadFailure;
use engine::storage::fingerprint::Fingerprint;
use tracker::api::GroupFile;

pub(super) use compare::DownloadRequest;
pub(super) use control::DownloadControl;
pub(super) use recorded::occupied_filesystem;
pub(super) use running::{DownloadRun, follow_download};

use compare::{CompareOutcome, CompareProgress, aborted_fault, continue_while};
use describe::FileDescription;
use recorded::{NodeSituation, RecordedDownload, RecordedWait};
use table::DownloadTable;

use super::core::{NodeCore, to_engine_key};
use super::disk::records::{DownloadRecord, RecordId};
use super::events::EventStream;
use super::locks::{DownloadLock, LockDemand};
use super::retry_policy::{PendingWork, pending_after, withdrawal_cause};
use super::shares::{self, ShareOrigin, ShareState, Shares};
use super::trackers::RequestUrgency;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeEvent;
use crate::ipc::rows::{PeerTroubleRow, TransferRow, TransferState, WaitCause};
use crate::limits;
use crate::printable::show_path;

/// The downloads of one node.
pub(super) struct Downloads {
    /// The shares of this node. A complete download becomes one.
    pub(super) shares: Arc<Shares>,
    table: DownloadTable,
    /// Whether recovery resumes recorded downloads. It does not in a node that ends with its command.
    resumes_recorded: AtomicBool,
}

/// The result of a request for a download.
pub(super) enum StartOutcome {
    /// The download runs.
    Running(Arc<DownloadRun>),
    /// The file is complete at its destination.
    AlreadyComplete {
        /// The path of the file.
        path: PathBuf,
        /// The length of the file in bytes.
        size_bytes: u64,
    },
}

/// Why a recorded download could not be resumed.
enum ResumeError {
    /// A later attempt may succeed.
    Transient(RecordedWait),
    /// Another thread waits for the lock, the user logged out, or the node is shutting down.
    Preempted,
    /// No later attempt can succeed.
    Final(ClientFault),
}

impl Downloads {
    /// Reads the downloads on record. None of them is running.
    pub(super) fn load(shares: Arc<Shares>) -> Downloads {
        let table = DownloadTable::from_recorded(recorded::load_downloads(&shares.core.records));
        Downloads { shares, table, resumes_recorded: AtomicBool::new(false) }
    }

    /// From now on recovery resumes recorded downloads: the node does not end with its command.
    pub(super) fn begin_resuming(&self) {
        self.resumes_recorded.store(true, Ordering::SeqCst);
    }

    /// Whether [`Downloads::begin_resuming`] was called.
    pub(super) fn resumes_recorded(&self) -> bool {
        self.resumes_recorded.load(Ordering::SeqCst)
    }

    fn core(&self) -> &Arc<NodeCore> {
        &self.shares.core
    }

    /// The peers that this node's download of a file cannot fetch from; none without such a download.
    pub(super) fn peer_troubles(&self, key: &GroupFile) -> Vec<PeerTroubleRow> {
        let run = self.table.find_run(key).filter(|run| !run.has_ended());
        run.map(|run| run.row().peer_troubles).unwrap_or_default()
    }

    /// Starts a download. If the same file is already being downloaded to the same destination, returns that
    /// run, which goes on if it was paused, and tries at once, for any cause of waiting.
    ///
    /// # Errors
    /// The tracker's refusal. Exit code 6 for a file at the destination that differs. A storage fault. If the
    /// download cannot be recorded, it is not started, since a restart would lose it.
    pub(super) fn start(
        &self,
        request: &DownloadRequest,
        events: &EventStream<'_>,
    ) -> Result<StartOutcome, ClientFault> {
        let core = self.core();
        let user = core.trackers.require_user()?;
        if let Some(run) = matching::matching_run(&self.table, request, &user)? {
            if let Err(fault) = run.resume(core) {
                core.notices.post(&fault.message);
            }
            return Ok(StartOutcome::Running(run));
        }
        let file = request.key.name.to_string();
        let mut scope = core.locks.scope();
        let mut download_lock =
            scope.lock_download(&request.key, || match self.table.comparison_row(&request.key) {
                Some(TransferRow { verified_bytes: done_bytes, total_bytes, .. }) => events
                    .send_progress(|| NodeEvent::Comparing { file: file.clone(), done_bytes, total_bytes }),
                None => Ok(()),
            })?;
        // The previous holder of the lock may have started this download.
        if let Some(run) = matching::matching_run(&self.table, request, &user)? {
            return Ok(StartOutcome::Running(run));
        }
        self.check_limit()?;
        let recorded = matching::matching_record(&self.table, request, &user)?;
        compare::refuse_claimed_destination(request, self.table.other_destinations(&request.key))?;
        let described =
            describe::describe_file(core, &user, &request.key, None, RequestUrgency::Immediate)
                .inspect_err(|fault| self.note_failed_attempt(&download_lock, recorded.as_ref(), fault))?;
        let manifest = Arc::clone(&described.manifest);
        let total_bytes = manifest.geometry().length();
        let report = |done_bytes| {
            // Ignored: the comparison goes on even if the front end has disconnected.
            let _ =
                events.send_progress(|| NodeEvent::Comparing { file: file.clone(), done_bytes, total_bytes });
            continue_while(download_lock.demand() < LockDemand::Abort && !core.shutdown.is_set())
        };
        match self.compare(&download_lock, request, &manifest, &report)? {
            CompareOutcome::Vacant => {}
            CompareOutcome::Identical(path, fingerprint) => {
                if let Some(recorded) = recorded {
                    let found = (path.as_path(), fingerprint);
                    self.complete_existing(&mut download_lock, &recorded, found, &manifest)?;
                }
                let size_bytes = path.metadata().map_or(total_bytes, |found| found.len());
                return Ok(StartOutcome::AlreadyComplete { path, size_bytes });
            }
            CompareOutcome::Aborted => return Err(aborted_fault(core, &request.key)),
        }
        let record = DownloadRecord {
            key: request.key.clone(),
            user,
            destination: request.destination.clone(),
            overwrite: request.overwrite,
            content: manifest.proof().id(),
            total_bytes,
            paused: false,
            failed: None,
            replaced: None,
        };
        self.record_and_launch(&download_lock, record, described).map(StartOutcome::Running)
    }

    /// Compares the file at the destination with the wanted one, and shows this state in the table. `report`
    /// gets the number of compared bytes and decides whether to continue.
    fn compare(
        &self,
        download_lock: &DownloadLock<'_>,
        request: &DownloadRequest,
        manifest: &Manifest,
        report: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<CompareOutcome, ClientFault> {
        let progress = Arc::new(CompareProgress::new(request, manifest));
        // The state changes at the first report: without a file at the destination there is no comparison.
        let begun = Once::new();
        let report = |done_bytes| {
            progress.set(done_bytes);
            begun.call_once(|| self.table.begin_comparing(download_lock, Arc::clone(&progress)));
            report(done_bytes)
        };
        let outcome = compare::compare_destination(self.core(), request, manifest, &report);
        self.table.end_comparing(download_lock);
        outcome
    }

    /// Records a download and starts it. If that fails, restores the record of the download that it was to
    /// replace.
    fn record_and_launch(
        &self,
        download_lock: &DownloadLock<'_>,
        record: DownloadRecord,
        described: FileDescription,
    ) -> Result<Arc<DownloadRun>, ClientFault> {
        let core = self.core();
        let Some((id, replaced)) = self.table.begin_replacing(download_lock) else {
            let id = self.new_record_id()?;
            core.records.write_download(&id, &record)?;
            return self.launch(download_lock, &id, record, described).inspect_err(|_| {
                if let Err(fault) = core.records.remove_download(&id) {
                    core.notices.post(&fault.message);
                }
            });
        };
        let record = DownloadRecord { replaced: Some(Box::new(replaced.clone())), ..record };
        let written = core.records.write_download(&id, &record);
        let launched = written.and_then(|()| self.launch(download_lock, &id, record, described));
        if launched.is_err() {
            if let Err(fault) = core.records.write_download(&id, &replaced) {
                // The record on the disk contains the replaced one, which the next start restores.
                tracing::info!("{fault}");
            }
            self.table.end_replacing(download_lock);
        }
        launched
    }

    /// Shows the error of a user's attempt as the reason why a recorded download waits, and starts the pauses of
    /// recovery over.
    fn note_failed_attempt(
        &self,
        download_lock: &DownloadLock<'_>,
        recorded: Option<&RecordedDownload>,
        fault: &ClientFault,
    ) {
        let Some(recorded) = recorded.filter(|recorded| recorded.record.failed.is_none()) else { return };
        let wait = Some(RecordedWait::for_description(fault.clone()));
        self.table.update_recorded(download_lock, RecordedDownload { wait, ..recorded.clone() });
        self.core().recovery_wakeup.set();
    }

    /// The name for a new record. Refused if there are `DOWNLOAD_RECORDS_MAX` records.
    fn new_record_id(&self) -> Result<RecordId, ClientFault> {
        if self.table.count_on_record() < limits::DOWNLOAD_RECORDS_MAX {
            return RecordId::new();
        }
        let message =
            format!("{} downloads are on record, and more are not kept", limits::DOWNLOAD_RECORDS_MAX);
        Err(ClientFault::new(ExitCause::Other, message)
            .fix("`show_downloads`, then `cancel` what is not wanted any more"))
    }

    /// Hands a recorded download to the engine.
    fn launch(
        &self,
        download_lock: &DownloadLock<'_>,
        id: &RecordId,
        record: DownloadRecord,
        described: FileDescription,
    ) -> Result<Arc<DownloadRun>, ClientFault> {
        let core = self.core();
        let FileDescription { manifest, peers, ticket } = described;
        let order = DownloadOrder {
            key: to_engine_key(&record.key),
            manifest: Arc::clone(&manifest),
            destination: record.destination.clone(),
            overwrite: record.overwrite,
            ticket,
        };
        // A download must not run without an announcer, so the thread is started first: that may fail.
        let announcer = announcer::spawn_announcer(Arc::clone(&self.shares))?;
        let download = core.peer.engine()?.download(order)?;
        download.add_peers(peers);
        let limit_down = core.peer.limit_down();
        let run = Arc::new(DownloadRun::new(id.clone(), record, &manifest, download, limit_down));
        if let Err(fault) = run.clear_replaced(core) {
            let key = &run.key;
            core.notices.post(&format!("a restart of this node would find {key} as it was before: {fault}"));
        }
        self.table.insert_run(download_lock, Arc::clone(&run));
        // A login pauses or resumes the runs in the table. Do the same here for a login that came earlier.
        run.pause_unless_user(core.trackers.user().as_deref());
        announcer.attach(Arc::clone(&run), manifest);
        Ok(run)
    }

    /// The records of a user's downloads that can be resumed.
    pub(super) fn resumable(&self, user: &str) -> Vec<DownloadRecord> {
        let recorded = self.table.all_recorded();
        recorded.into_iter().filter(|one| one.can_resume(user)).map(|one| one.record).collect()
    }

    /// Notes that a recorded download waits for the filesystem of its destination.
    pub(super) fn note_no_answer(&self, record: &DownloadRecord) {
        let mut scope = self.core().locks.scope();
        let Some(download_lock) = scope.try_lock_download(&record.key) else { return };
        let Some(mut recorded) = self.table.find_recorded(&record.key) else { return };
        recorded.wait = Some(RecordedWait::for_no_answer(record));
        self.table.update_recorded(&download_lock, recorded);
    }

    /// Resumes a recorded download, unless another thread has started or removed it meanwhile. Compares the
    /// file at its destination first.
    pub(super) fn resume(&self, user: &str, key: &GroupFile) -> PendingWork {
        let mut scope = self.core().locks.scope();
        let Some(mut download_lock) = scope.try_lock_download(key) else { return PendingWork::Retry };
        self.resume_locked(&mut download_lock, user, RequestUrgency::Background)
    }

    fn resume_locked(
        &self,
        download_lock: &mut DownloadLock<'_>,
        user: &str,
        urgency: RequestUrgency,
    ) -> PendingWork {
        let core = self.core();
        let key = download_lock.key().clone();
        let Some(mut recorded) = self.table.find_recorded(&key).filter(|now| now.can_resume(user)) else {
            return PendingWork::Nothing;
        };
        let room = self
            .check_limit()
            .map_err(|fault| ResumeError::Transient(RecordedWait { waits_for: WaitCause::Slot, fault }));
        let pending = match room.and_then(|()| self.try_resume(download_lock, &recorded, urgency)) {
            Ok(()) => return PendingWork::Nothing,
            Err(ResumeError::Preempted) => return PendingWork::Retry,
            Err(ResumeError::Transient(wait)) => {
                let pending = pending_after(&wait.fault).unwrap_or(PendingWork::Retry);
                recorded.wait = Some(wait);
                pending
            }
            Err(ResumeError::Final(fault)) => {
                core.notices.post(&format!("{key} is not continued: {fault}"));
                recorded.record.failed = Some(fault);
                if let Err(fault) = core.records.write_download(&recorded.id, &recorded.record) {
                    core.notices.post(&fault.message);
                }
                PendingWork::Nothing
            }
        };
        self.table.update_recorded(download_lock, recorded);
        pending
    }

    fn try_resume(
        &self,
        download_lock: &mut DownloadLock<'_>,
        recorded: &RecordedDownload,
        urgency: RequestUrgency,
    ) -> Result<(), ResumeError> {
        let core = self.core();
        let record = &recorded.record;
        let described =
            describe::describe_file(core, &record.user, &record.key, Some(record.content), urgency).map_err(
                |fault| match (withdrawal_cause(&fault), pending_after(&fault)) {
                    (Some(cause), _) => ResumeError::Final(ClientFault::from(&DownloadFailure::Withdrawn {
                        cause,
                        message: fault.message,
                    })),
                    (None, Some(_)) => ResumeError::Transient(RecordedWait::for_description(fault)),
                    (None, None) => ResumeError::Final(fault),
                },
            )?;
        let manifest = Arc::clone(&described.manifest);
        let request = DownloadRequest {
            key: record.key.clone(),
            destination: record.destination.clone(),
            overwrite: record.overwrite,
        };
        let classify_fault = |fault: ClientFault| match fault.exit {
            ExitCause::Exists | ExitCause::Usage => ResumeError::Final(fault),
            _ => ResumeError::Transient(RecordedWait::for_start(fault)),
        };
        let should_continue = |_| {
            let is_user_here = core.trackers.user().as_ref() == Some(&record.user);
            continue_while(
                download_lock.demand() == LockDemand::Nothing && is_user_here && !core.shutdown.is_set(),
            )
        };
        match self.compare(download_lock, &request, &manifest, &should_continue).map_err(classify_fault)? {
            CompareOutcome::Vacant => self
                .launch(download_lock, &recorded.id, record.clone(), described)
                .map(drop)
                .map_err(classify_fault),
            CompareOutcome::Identical(path, fingerprint) => self
                .complete_existing(download_lock, recorded, (&path, fingerprint), &manifest)
                .map_err(|fault| ResumeError::Transient(RecordedWait::for_start(fault))),
            CompareOutcome::Aborted => Err(ResumeError::Preempted),
        }
    }

    /// Makes the file of a recorded download a share: the file was already complete at its destination. An
    /// earlier process completed it, but ended before it recorded that.
    fn complete_existing(
        &self,
        download_lock: &mut DownloadLock<'_>,
        recorded: &RecordedDownload,
        (path, fingerprint): (&Path, Fingerprint),
        manifest: &Manifest,
    ) -> Result<(), ClientFault> {
        let core = self.core();
        let DownloadRecord { key, user, .. } = &recorded.record;
        {
            let _share_lock = download_lock.lock_share()?;
            let origin = ShareOrigin { user: user.clone(), path: path.to_owned(), fingerprint };
            shares::share_download(&self.shares, key, origin, manifest, ShareState::NotServed)?;
            core.records.remove_download(&recorded.id)?;
        }
        self.table.remove_recorded(download_lock);
        core.notices.post(&format!("{key} is complete: {}", show_path(path)));
        core.recovery_wakeup.set();
        Ok(())
    }

    /// Refuses a download if `DOWNLOADS_MAX` are already running. Locked downloads, including the caller's,
    /// count as running.
    fn check_limit(&self) -> Result<(), ClientFault> {
        let running = self.table.runs().iter().filter(|run| !run.has_ended()).count();
        if running + self.core().locks.locked_downloads() <= limits::DOWNLOADS_MAX {
            return Ok(());
        }
        let message = format!("{} downloads are running, which is the most at a time", limits::DOWNLOADS_MAX);
        Err(ClientFault::new(ExitCause::Other, message).fix("wait for one of them, or `cancel` one"))
    }

    /// Pauses, resumes or cancels a download. Returns what was done, in words.
    ///
    /// # Errors
    /// Exit code 5 for a download that does not exist, 1 for one that has ended. Also if the command took
    /// effect but could not be recorded.
    pub(super) fn control(&self, key: &GroupFile, control: DownloadControl) -> Result<String, ClientFault> {
        let done = control::control_download(&self.shares, &self.table, key, control)?;
        if control == DownloadControl::Resume { self.resume_at_command(key) } else { Ok(done) }
    }

    /// Resumes at once what a command has marked as resumed. A file at the destination is compared by recovery,
    /// since that may take hours. Returns what the download does now, in words.
    fn resume_at_command(&self, key: &GroupFile) -> Result<String, ClientFault> {
        let core = self.core();
        let is_vacant = |recorded: &RecordedDownload| occupied_filesystem(&recorded.record).is_none();
        if self.resumes_recorded()
            && let Some(user) = core.trackers.user()
            && self.table.find_recorded(key).is_some_and(|recorded| is_vacant(&recorded))
        {
            let mut scope = core.locks.scope();
            let mut download_lock = scope.lock_download(key, || Ok(()))?;
            self.resume_locked(&mut download_lock, &user, RequestUrgency::Immediate);
        }
        core.recovery_wakeup.set();
        let rows = self.rows(core.trackers.user().as_deref());
        let name = to_engine_key(key);
        let row = rows.into_iter().find(|row| row.group == name.group && row.file == name.name.to_string());
        match row {
            Some(TransferRow { state: TransferState::Failed, cause: Some(cause), .. }) => Err(cause),
            Some(TransferRow { state: TransferState::Waiting { .. }, cause: Some(cause), .. }) => {
                Ok(format!("{key} is resumed, and waits: {cause}"))
            }
            Some(TransferRow { state: TransferState::Comparing, .. }) => {
                Ok(format!("{key} continues as soon as the file at its destination has been compared"))
            }
            _ => Ok(format!("{key} continues")),
        }
    }

    /// The rows of all downloads. `user` is the logged-in user.
    pub(super) fn rows(&self, user: Option<&str>) -> Vec<TransferRow> {
        let trouble = self.core().trackers.status().trouble;
        let (resumes_recorded, tracker_trouble) = (self.resumes_recorded(), trouble.as_deref());
        self.table.rows(NodeSituation { user, resumes_recorded, tracker_trouble })
    }

    /// The files of a user's runs in this process, including runs that have ended.
    pub(super) fn keys_of_user(&self, user: &str) -> Vec<GroupFile> {
        let runs = self.table.runs();
        runs.iter().filter(|run| run.user == user).map(|run| run.key.clone()).collect()
    }

    /// Resumes the downloads of the logged-in user that the node had paused, and pauses the downloads of all
    /// other users.
    pub(super) fn pause_unless_user(&self, user: Option<&str>) {
        self.table.runs().iter().for_each(|run| run.pause_unless_user(user));
    }
}
