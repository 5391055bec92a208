//! The downloads of this node: begun by users, resumed after a restart, controlled, listed.
//!
//! ```text
//!   start, resume (here) ──┬──► describe (asks the tracker), compare (reads the destination)
//!   control ───────────────┤
//!                          └──► table (states) ──► running, recorded
//!   announcer (one thread a run) ────────────────► running, describe
//! ```
//!
//! Always true: a download is on record before it begins, and until then the record of the one that it
//! replaces stays inside. At most `DOWNLOADS_MAX` run. A thread that begins a download, or changes one that
//! does not run, holds its lock.

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
use super::retry_policy::{PendingWork, pending_after};
use super::shares::{self, ShareOrigin, ShareState, Shares};
use super::trackers::RequestUrgency;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeEvent;
use crate::ipc::rows::TransferRow;
use crate::limits;

/// The downloads of one node.
pub(super) struct Downloads {
    /// What complete downloads become.
    pub(super) shares: Arc<Shares>,
    table: DownloadTable,
}

/// What a request for a download leads to.
pub(super) enum StartOutcome {
    /// The download runs.
    Running(Arc<DownloadRun>),
    /// The file is complete at its destination.
    AlreadyComplete {
        /// Where.
        path: PathBuf,
        /// Its length.
        size_bytes: u64,
    },
}

/// Why a download on record does not run again.
enum ResumeError {
    /// The cause may pass.
    Transient(ClientFault),
    /// Another thread waits for the lock, or the user logged out.
    Preempted,
    /// It cannot succeed.
    Final(ClientFault),
}

impl Downloads {
    /// The downloads on record, none of them running.
    pub(super) fn load(shares: Arc<Shares>) -> Downloads {
        let table = DownloadTable::of_recorded(recorded::load_downloads(&shares.core.records));
        Downloads { shares, table }
    }

    fn core(&self) -> &Arc<NodeCore> {
        &self.shares.core
    }

    /// Starts a download, or finds the run of the same file to the same place.
    ///
    /// # Errors
    /// The tracker's refusal. Exit code 6 for a file at the destination that differs. A storage fault; also
    /// that the download cannot be recorded, since a restart would lose it: then nothing is begun.
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
        let mut holder =
            scope.lock_download(&request.key, || match self.table.comparison_row(&request.key) {
                Some(TransferRow { verified_bytes: done_bytes, total_bytes, .. }) => events
                    .send_progress(|| NodeEvent::Comparing { file: file.clone(), done_bytes, total_bytes }),
                None => Ok(()),
            })?;
        // The thread that held the lock before may have started it.
        if let Some(run) = self.matching_run(request)? {
            return Ok(StartOutcome::Running(run));
        }
        self.check_limit()?;
        let recorded = self.matching_record(request, &user)?;
        let described = describe::describe_file(core, &user, &request.key, RequestUrgency::Immediate)?;
        let manifest = Arc::clone(&described.manifest);
        let total_bytes = manifest.geometry().length();
        let report = |done_bytes| {
            // A front end that is gone is noticed when there is something to lose by it.
            let _ =
                events.send_progress(|| NodeEvent::Comparing { file: file.clone(), done_bytes, total_bytes });
            continue_while(holder.demand() < LockDemand::Abort && !core.shutdown.is_set())
        };
        match self.compare(&holder, request, &manifest, &report)? {
            CompareOutcome::Vacant => {}
            CompareOutcome::Identical(path) => {
                if let Some(recorded) = recorded {
                    self.complete_existing(&mut holder, &recorded, &path, &manifest)?;
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
        self.record_and_launch(&holder, record, described).map(StartOutcome::Running)
    }

    /// Compares what is at a destination. `report` gets the bytes that are compared, and says whether to go
    /// on.
    fn compare(
        &self,
        holder: &DownloadLock<'_>,
        request: &DownloadRequest,
        manifest: &Manifest,
        report: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<CompareOutcome, ClientFault> {
        let progress = Arc::new(CompareProgress::new(request, manifest));
        // Where there is no file nothing is compared, and no state shows it.
        let begun = Once::new();
        let report = |done_bytes| {
            progress.set(done_bytes);
            begun.call_once(|| self.table.begin_comparing(holder, Arc::clone(&progress)));
            report(done_bytes)
        };
        let outcome = compare::compare_destination(self.core(), request, manifest, &report);
        self.table.end_comparing(holder);
        outcome
    }

    /// Puts a download on record and starts it. If that fails, the record of the one that it replaces is
    /// written again.
    fn record_and_launch(
        &self,
        holder: &DownloadLock<'_>,
        record: DownloadRecord,
        described: FileDescription,
    ) -> Result<Arc<DownloadRun>, ClientFault> {
        let core = self.core();
        let Some((id, replaced)) = self.table.replace(holder) else {
            let id = self.new_record_id()?;
            core.records.write_download(&id, &record)?;
            return self.launch(holder, &id, record, described).inspect_err(|_| {
                if let Err(fault) = core.records.forget_download(&id) {
                    core.notices.post(&fault.message);
                }
            });
        };
        let record = DownloadRecord { replaced: Some(Box::new(replaced.clone())), ..record };
        let written = core.records.write_download(&id, &record);
        let launched = written.and_then(|()| self.launch(holder, &id, record, described));
        if launched.is_err() {
            if let Err(fault) = core.records.write_download(&id, &replaced) {
                // The record on the disk leads to the same, at the next start.
                tracing::info!("{fault}");
            }
            self.table.restore(holder);
        }
        launched
    }

    /// The name of one record more, if there may be one.
    fn new_record_id(&self) -> Result<RecordId, ClientFault> {
        if self.table.count_on_record() < limits::DOWNLOAD_RECORDS_MAX {
            return RecordId::new();
        }
        let message =
            format!("{} downloads are on record, and more are not kept", limits::DOWNLOAD_RECORDS_MAX);
        Err(ClientFault::new(ExitCause::Other, message)
            .fix("`show_downloads`, then `cancel` what is not wanted any more"))
    }

    /// Hands a download that is on record to the engine.
    fn launch(
        &self,
        holder: &DownloadLock<'_>,
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
        // A download must not run without an announcer, so the step that may fail comes first.
        let announcer = announcer::spawn_announcer(Arc::clone(&self.shares))?;
        let download = core.peer.engine()?.download(order)?;
        download.add_peers(&peers);
        let limit_down = core.peer.limit_down();
        let run = Arc::new(DownloadRun::new(id.clone(), record, manifest, download, limit_down));
        if let Err(fault) = run.clear_replaced(core) {
            let key = &run.key;
            core.notices.post(&format!("a restart of this node would find {key} as it was before: {fault}"));
        }
        self.table.start(holder, Arc::clone(&run));
        // A login pauses the runs that it finds in the table; this one was not there.
        run.set_active_user(core.trackers.user().as_deref());
        announcer.attach(Arc::clone(&run));
        Ok(run)
    }

    /// The records of a user's downloads that do not run and could.
    pub(super) fn resumable(&self, user: &str) -> Vec<DownloadRecord> {
        let recorded = self.table.all_recorded();
        recorded.into_iter().filter(|one| one.can_resume(user)).map(|one| one.record).collect()
    }

    /// Resumes a download that is on record, if it still is. The file at its destination is compared first.
    pub(super) fn resume(&self, user: &str, key: &GroupFile) -> PendingWork {
        let core = self.core();
        let mut scope = core.locks.scope();
        let Some(mut holder) = scope.try_lock_download(key) else { return PendingWork::Retry };
        let Some(mut recorded) = self.table.find_recorded(key).filter(|now| now.can_resume(user)) else {
            return PendingWork::Nothing;
        };
        let room = self.check_limit().map_err(ResumeError::Transient);
        let pending = match room.and_then(|()| self.try_resume(&mut holder, &recorded)) {
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
        self.table.update_recorded(&holder, recorded);
        pending
    }

    fn try_resume(
        &self,
        holder: &mut DownloadLock<'_>,
        recorded: &RecordedDownload,
    ) -> Result<(), ResumeError> {
        let core = self.core();
        let record = &recorded.record;
        let described = describe::describe_file(core, &record.user, &record.key, RequestUrgency::Background)
            .map_err(|fault| match pending_after(&fault) {
                Some(_) => ResumeError::Transient(fault),
                None => ResumeError::Final(fault),
            })?;
        let manifest = Arc::clone(&described.manifest);
        if manifest.proof().id() != record.content {
            return Err(ResumeError::Final(other_content_fault(&record.key)));
        }
        let request = DownloadRequest {
            key: record.key.clone(),
            destination: record.destination.clone(),
            overwrite: record.overwrite,
        };
        let storage = |fault: ClientFault| match fault.exit {
            ExitCause::Exists | ExitCause::Usage => ResumeError::Final(fault),
            _ => ResumeError::Transient(fault),
        };
        let is_wanted = |_| {
            let is_user_here = core.trackers.user().as_ref() == Some(&record.user);
            continue_while(holder.demand() == LockDemand::Nothing && is_user_here && !core.shutdown.is_set())
        };
        match self.compare(holder, &request, &manifest, &is_wanted).map_err(storage)? {
            CompareOutcome::Vacant => {
                self.launch(holder, &recorded.id, record.clone(), described).map(drop).map_err(storage)
            }
            CompareOutcome::Identical(path) => {
                self.complete_existing(holder, recorded, &path, &manifest).map_err(ResumeError::Transient)
            }
            CompareOutcome::Aborted => Err(ResumeError::Preempted),
        }
    }

    /// A download on record is complete: an earlier process ended between its last step and the record of
    /// that step.
    fn complete_existing(
        &self,
        holder: &mut DownloadLock<'_>,
        recorded: &RecordedDownload,
        path: &Path,
        manifest: &Manifest,
    ) -> Result<(), ClientFault> {
        let core = self.core();
        let fingerprint = Fingerprint::at(path)
            .map_err(|error| ClientFault::io("look at", path, &error).fix("check the path"))?;
        let DownloadRecord { key, user, .. } = &recorded.record;
        {
            let _share = holder.lock_share()?;
            let origin = ShareOrigin { user: user.clone(), path: path.to_owned(), fingerprint };
            shares::share_download(&self.shares, key, origin, manifest, ShareState::NotServed)?;
            core.records.forget_download(&recorded.id)?;
        }
        self.table.remove_recorded(holder);
        core.notices.post(&format!("{key} is complete: {}", path.display()));
        core.recovery_wakeup.set();
        Ok(())
    }

    /// A user's download on record under the key of a request, for the same place.
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

    /// The run under the key of a request, if it has not ended and goes to the same place.
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

    /// Refuses one more download than may run. Downloads that are locked count too, the caller's among them.
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
    /// Exit code 5 for a download that does not exist, 1 for one that has ended. Also when it is done and
    /// cannot be recorded.
    pub(super) fn control(&self, key: &GroupFile, control: DownloadControl) -> Result<String, ClientFault> {
        control::control_download(&self.shares, &self.table, key, control)
    }

    /// The rows of all downloads while `user` is logged in.
    pub(super) fn rows(&self, user: Option<&str>) -> Vec<TransferRow> {
        self.table.rows(user)
    }

    /// The files that a user fetches or has fetched in this process.
    pub(super) fn keys_of_user(&self, user: &str) -> Vec<GroupFile> {
        let runs = self.table.runs();
        runs.iter().filter(|run| run.user == user).map(|run| run.key.clone()).collect()
    }

    /// Continues the downloads of the user who has logged in, as far as the node had paused them, and pauses
    /// those of others.
    pub(super) fn set_active_user(&self, user: Option<&str>) {
        self.table.runs().iter().for_each(|run| run.set_active_user(user));
    }
}

/// Whether a destination as typed leads to a file at `path`, which may be a directory as typed.
fn is_same_destination(typed: &Path, path: &Path, key: &GroupFile) -> bool {
    let name = key.name.as_str();
    typed == path || typed.join(name) == path || path.join(name) == typed
}

fn continue_while(is_wanted: bool) -> ControlFlow<()> {
    if is_wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
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
    let message = format!("{key} is being fetched to {} already", path.display());
    let fix = format!("wait until it is complete, or `cancel {}`", quote_key(key));
    ClientFault::new(ExitCause::Exists, message).fix(fix)
}

fn other_content_fault(key: &GroupFile) -> ClientFault {
    let message = format!("{key} is another file now than when its download was begun");
    let file = quote_key(key);
    let fix = format!("`cancel {file}`, then `download_file {file} DEST` fetches what it is now");
    ClientFault::new(ExitCause::Other, message).fix(fix)
}
