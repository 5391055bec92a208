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
mod recorded;
mod running;
mod table;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use engine::DownloadOrder;
use engine::proto::manifest::Manifest;
use engine::stats::DownloadFailure;
use engine::storage::fingerprint::Fingerprint;
use tracker::api::GroupFile;

pub(super) use compare::DownloadRequest;
pub(super) use control::DownloadControl;
pub(super) use running::{DownloadRun, follow_download};

use compare::{CompareOutcome, CompareProgress};
use describe::FileDescription;
use recorded::RecordedDownload;
use table::DownloadTable;

use super::core::{NodeCore, quote_key, to_engine_key};
use super::disk::records::{DownloadRecord, RecordId};
use super::events::EventStream;
use super::locks::{DownloadLock, LockDemand};
use super::retry_policy::{PendingWork, pending_after, withdrawal_cause};
use super::shares::{self, ShareOrigin, ShareState, Shares};
use super::trackers::RequestUrgency;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeEvent;
use crate::ipc::rows::TransferRow;
use crate::limits;
use crate::printable::show_path;

/// The downloads of one node.
pub(super) struct Downloads {
    /// The shares of this node. A complete download becomes one.
    pub(super) shares: Arc<Shares>,
    table: DownloadTable,
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
    Transient(ClientFault),
    /// Another thread waits for the lock, the user logged out, or the node is shutting down.
    Preempted,
    /// No later attempt can succeed.
    Final(ClientFault),
}

impl Downloads {
    /// Reads the downloads on record. None of them is running.
    pub(super) fn load(shares: Arc<Shares>) -> Downloads {
        let table = DownloadTable::from_recorded(recorded::load_downloads(&shares.core.records));
        Downloads { shares, table }
    }

    fn core(&self) -> &Arc<NodeCore> {
        &self.shares.core
    }

    /// Starts a download. If the same file is already being downloaded to the same destination, returns that
    /// run.
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
        if let Some(run) = self.matching_run(request)? {
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
        if let Some(run) = self.matching_run(request)? {
            return Ok(StartOutcome::Running(run));
        }
        self.check_limit()?;
        let recorded = self.matching_record(request, &user)?;
        let described = describe::describe_file(core, &user, &request.key, None, RequestUrgency::Immediate)?;
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
            CompareOutcome::Identical(path) => {
                if let Some(recorded) = recorded {
                    self.complete_existing(&mut download_lock, &recorded, &path, &manifest)?;
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
        download.add_peers(&peers);
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
    pub(super) fn note_no_answer(&self, user: &str, record: &DownloadRecord) {
        let mut scope = self.core().locks.scope();
        let Some(download_lock) = scope.try_lock_download(&record.key) else { return };
        let found = self.table.find_recorded(&record.key).filter(|now| now.can_resume(user));
        let Some(mut recorded) = found else { return };
        let message = format!("the filesystem of {} does not answer", record.destination.display());
        let fix = format!("check that disk or server, or `cancel {}`", quote_key(&record.key));
        recorded.waiting_for = Some(ClientFault::new(ExitCause::LocalIo, message).fix(fix));
        self.table.update_recorded(&download_lock, recorded);
    }

    /// Resumes a recorded download, unless another thread has started or removed it meanwhile. Compares the
    /// file at its destination first.
    pub(super) fn resume(&self, user: &str, key: &GroupFile) -> PendingWork {
        let core = self.core();
        let mut scope = core.locks.scope();
        let Some(mut download_lock) = scope.try_lock_download(key) else { return PendingWork::Retry };
        let Some(mut recorded) = self.table.find_recorded(key).filter(|now| now.can_resume(user)) else {
            return PendingWork::Nothing;
        };
        let room = self.check_limit().map_err(ResumeError::Transient);
        let pending = match room.and_then(|()| self.try_resume(&mut download_lock, &recorded)) {
            Ok(()) => return PendingWork::Nothing,
            Err(ResumeError::Preempted) => return PendingWork::Retry,
            Err(ResumeError::Transient(fault)) => {
                let pending = pending_after(&fault).unwrap_or(PendingWork::Retry);
                recorded.waiting_for = Some(fault);
                pending
            }
            Err(ResumeError::Final(fault)) => {
                core.notices.post(&format!("{key} does not go on: {fault}"));
                recorded.record.failed = Some(fault);
                if let Err(fault) = core.records.write_download(&recorded.id, &recorded.record) {
                    core.notices.post(&fault.message);
                }
                PendingWork::Nothing
            }
        };
        self.table.update_recorded(&download_lock, recorded);
        pending
    }

    fn try_resume(
        &self,
        download_lock: &mut DownloadLock<'_>,
        recorded: &RecordedDownload,
    ) -> Result<(), ResumeError> {
        let core = self.core();
        let record = &recorded.record;
        let (content, urgency) = (Some(record.content), RequestUrgency::Background);
        let described = describe::describe_file(core, &record.user, &record.key, content, urgency).map_err(
            |fault| match (withdrawal_cause(&fault), pending_after(&fault)) {
                (Some(cause), _) => ResumeError::Final(ClientFault::from(&DownloadFailure::Withdrawn {
                    cause,
                    message: fault.message,
                })),
                (None, Some(_)) => ResumeError::Transient(fault),
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
            _ => ResumeError::Transient(fault),
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
            CompareOutcome::Identical(path) => self
                .complete_existing(download_lock, recorded, &path, &manifest)
                .map_err(ResumeError::Transient),
            CompareOutcome::Aborted => Err(ResumeError::Preempted),
        }
    }

    /// Makes the file of a recorded download a share: the file was already complete at its destination. An
    /// earlier process completed it, but ended before it recorded that.
    fn complete_existing(
        &self,
        download_lock: &mut DownloadLock<'_>,
        recorded: &RecordedDownload,
        path: &Path,
        manifest: &Manifest,
    ) -> Result<(), ClientFault> {
        let core = self.core();
        let fingerprint = Fingerprint::at(path)
            .map_err(|error| ClientFault::io("look at", path, &error).default_fix("check the path"))?;
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

    /// The recorded download that a request may take over: of the same file and user, and to the same
    /// destination unless it has failed. `None` if the file has no recorded download.
    fn matching_record(
        &self,
        request: &DownloadRequest,
        user: &str,
    ) -> Result<Option<RecordedDownload>, ClientFault> {
        let Some(recorded) = self.table.find_recorded(&request.key) else { return Ok(None) };
        let record = &recorded.record;
        if record.user != user {
            let message = format!("{} is being fetched by {} on this node", request.key, record.user);
            let fix =
                format!("use a node of your own (`--state DIR`), or log in as {} to cancel it", record.user);
            return Err(ClientFault::new(ExitCause::Exists, message).fix(fix));
        }
        if record.failed.is_some()
            || is_same_destination(&request.destination, &record.destination, &request.key)
        {
            return Ok(Some(recorded));
        }
        Err(other_destination_fault(&request.key, &record.destination))
    }

    /// The run of the requested file, unless it has ended. Refused if its destination is another one.
    fn matching_run(&self, request: &DownloadRequest) -> Result<Option<Arc<DownloadRun>>, ClientFault> {
        let Some(run) = self.table.find_run(&request.key).filter(|run| !run.has_ended()) else {
            return Ok(None);
        };
        let path = run.download.progress().path;
        if request.destination == run.destination
            || is_same_destination(&request.destination, &path, &request.key)
        {
            return Ok(Some(run));
        }
        Err(other_destination_fault(&run.key, &path))
    }

    /// Refuses a download if `DOWNLOADS_MAX` are already running. Locked downloads, including the caller's,
    /// count as running.
    fn check_limit(&self) -> Result<(), ClientFault> {
        let running = self.table.runs().iter().filter(|run| !run.has_ended()).count();
        if running + self.core().locks.locked_downloads() <= limits::DOWNLOADS_MAX {
            return Ok(());
        }
        let message = format!("{} downloads are under way, and more are not begun", limits::DOWNLOADS_MAX);
        Err(ClientFault::new(ExitCause::Other, message).fix("wait for one of them, or `cancel` one"))
    }

    /// Pauses, resumes or cancels a download. Returns what was done, in words.
    ///
    /// # Errors
    /// Exit code 5 for a download that does not exist, 1 for one that has ended. Also if the command took
    /// effect but could not be recorded.
    pub(super) fn control(&self, key: &GroupFile, control: DownloadControl) -> Result<String, ClientFault> {
        control::control_download(&self.shares, &self.table, key, control)
    }

    /// The rows of all downloads. `user` is the logged-in user.
    pub(super) fn rows(&self, user: Option<&str>) -> Vec<TransferRow> {
        self.table.rows(user)
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

/// Whether two destinations mean the same file. Either may be a directory, which stands for the file's name in
/// it.
fn is_same_destination(typed: &Path, path: &Path, key: &GroupFile) -> bool {
    let name = key.name.as_str();
    typed == path || typed.join(name) == path || path.join(name) == typed
}

fn continue_while(should_continue: bool) -> ControlFlow<()> {
    if should_continue { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn aborted_fault(core: &NodeCore, key: &GroupFile) -> ClientFault {
    if core.shutdown.is_set() {
        return ClientFault::ending();
    }
    let message = format!("{key} was paused or cancelled while what is at its destination was compared");
    ClientFault::new(ExitCause::Other, message)
        .fix("`show_downloads` shows how it stands; the same command compares it from the start")
}

fn other_destination_fault(key: &GroupFile, path: &Path) -> ClientFault {
    let message = format!("{key} is being fetched to {} already", show_path(path));
    let fix = format!("wait until it is complete, or `cancel {}`", quote_key(key));
    ClientFault::new(ExitCause::Exists, message).fix(fix)
}
