//! The node's downloads: started once for each file, attached to by whoever asks for the same again; those on record that
//! do not run, and how they come back.
//!
//! Invariants: one download a file key, running or dormant, and one record; one that has ended is replaced when the file is
//! asked for again; at most `DOWNLOADS_MAX` are under way; each is on record before it begins, and what was on record before
//! it until then. Whoever begins a download, or changes one that does not run, holds its claim.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use engine::DownloadOrder;
use engine::lock::lock;
use engine::proto::manifest::Manifest;
use engine::stats::DownloadPhase;
use engine::storage::fingerprint::Fingerprint;
use tracker::api::GroupFile;

use super::announcer;
use super::compare::{CompareOutcome, CompareTable, DownloadRequest};
use super::describe::{self, FileDescription};
use super::recorded::RecordedDownload;
use super::replaced::{self, ReplacedDownload};
use super::running::{DownloadRun, NewDownload};
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeEvent;
use crate::ipc::rows::TransferRow;
use crate::limits;
use crate::node::core::{NodeCore, quote_key, to_engine_key};
use crate::node::disk::records::{DownloadRecord, RecordId, RecordStore};
use crate::node::events::EventStream;
use crate::node::locks::{KeyLock, KeyLocks, LockDemand};
use crate::node::retry_policy::{PendingWork, pending_after};
use crate::node::share::ShareState;
use crate::node::shares;
use crate::node::trackers::RequestUrgency;

/// All of them.
#[derive(Default)]
pub(in crate::node) struct DownloadTable {
    runs: Mutex<Vec<Arc<DownloadRun>>>,
    recorded: Mutex<Vec<RecordedDownload>>,
    locks: KeyLocks,
    comparisons: CompareTable,
}

/// What came of a wish to fetch a file.
pub(in crate::node) enum StartOutcome {
    /// It is under way.
    Running(Arc<DownloadRun>),
    /// It is there already, at this path, and this long.
    AlreadyComplete { path: PathBuf, size_bytes: u64 },
}

/// Why a download does not come back.
enum ResumeError {
    /// What it waits for may pass.
    Transient(ClientFault),
    /// Somebody else wants to do something about it.
    Preempted,
    /// It cannot succeed.
    Final(ClientFault),
}

impl DownloadTable {
    /// The downloads on record, none of them running.
    pub(in crate::node) fn load(records: &RecordStore) -> DownloadTable {
        let dormant = records.read_downloads().into_iter().map(|(id, wanted)| {
            let wanted = replaced::settle_record(records, &id, wanted);
            RecordedDownload { id, wanted, waiting_for: None }
        });
        let mut all: Vec<RecordedDownload> = Vec::new();
        for one in dormant {
            // They come in the order in which they were written, and the last word counts.
            match all.iter_mut().find(|known| known.wanted.key == one.wanted.key) {
                None => all.push(one),
                Some(known) => {
                    let before = std::mem::replace(known, one);
                    if let Err(fault) = records.forget_download(&before.id) {
                        tracing::warn!("{fault}");
                    }
                }
            }
        }
        DownloadTable { recorded: Mutex::new(all), ..DownloadTable::default() }
    }

    /// Starts a download, or finds the one that is under way.
    ///
    /// # Errors
    /// The trackers' refusal; exit 6 for a file that differs; whatever the disk says; also that it cannot be recorded, since
    /// a restart would lose it: then nothing is begun.
    pub(in crate::node) fn start(
        &self,
        core: &Arc<NodeCore>,
        wish: &DownloadRequest,
        events: &EventStream<'_>,
    ) -> Result<StartOutcome, ClientFault> {
        let user = core.trackers.require_user()?;
        if let Some(entry) = self.matching_run(wish)? {
            return Ok(StartOutcome::Running(entry));
        }
        let file = wish.key.name.to_string();
        let claim = self.locks.acquire_reporting(&wish.key, &core.shutdown, || {
            match self.comparisons.row(&wish.key) {
                Some(TransferRow { verified_bytes: done_bytes, total_bytes, .. }) => events
                    .send_progress(|| NodeEvent::Comparing { file: file.clone(), done_bytes, total_bytes }),
                None => Ok(()),
            }
        })?;
        // Whoever held the claim until just now has listed what it started.
        if let Some(entry) = self.matching_run(wish)? {
            return Ok(StartOutcome::Running(entry));
        }
        self.check_limit()?;
        let dormant = self.matching_record(wish, &user)?;
        let described = describe::describe_file(core, &user, &wish.key, RequestUrgency::Immediate)?;
        let manifest = Arc::clone(&described.manifest);
        let total_bytes = manifest.geometry().length();
        let compared = |done_bytes| {
            // Whether anybody listens is found out when there is something to lose by it.
            let _ =
                events.send_progress(|| NodeEvent::Comparing { file: file.clone(), done_bytes, total_bytes });
            continue_while(claim.demand() < LockDemand::Abort && !core.shutdown.is_set())
        };
        match self.comparisons.compare(core, wish, &manifest, &compared)? {
            CompareOutcome::Vacant => {}
            CompareOutcome::Identical(path) => {
                if let Some(dormant) = dormant {
                    self.complete_existing(core, &dormant, &path, &manifest)?;
                }
                let size_bytes = path.metadata().map_or(total_bytes, |found| found.len());
                return Ok(StartOutcome::AlreadyComplete { path, size_bytes });
            }
            CompareOutcome::Aborted => return Err(aborted_fault(core, &wish.key)),
        }
        let wanted = DownloadRecord {
            key: wish.key.clone(),
            user,
            destination: wish.destination.clone(),
            overwrite: wish.overwrite,
            content: manifest.proof().id(),
            total_bytes,
            paused: false,
            failed: None,
            replaced: None,
        };
        let former = dormant
            .map(ReplacedDownload::from_recorded)
            .or_else(|| self.failed_run(&wish.key).map(ReplacedDownload::from_failed_run));
        self.replace_and_launch(core, former, wanted, described).map(StartOutcome::Running)
    }

    /// Puts a download on record and starts it. What was on record before it stands again if that fails.
    fn replace_and_launch(
        &self,
        core: &Arc<NodeCore>,
        former: Option<ReplacedDownload>,
        wanted: DownloadRecord,
        described: FileDescription,
    ) -> Result<Arc<DownloadRun>, ClientFault> {
        let Some(former) = former else {
            let id = self.new_record()?;
            core.records.write_download(&id, &wanted)?;
            return self.launch(core, &id, wanted, described).inspect_err(|_| {
                if let Err(fault) = core.records.forget_download(&id) {
                    core.notices.post(&fault.message);
                }
            });
        };
        let wanted = former.successor_record(wanted);
        let written = core.records.write_download(&former.id, &wanted);
        match written.and_then(|()| self.launch(core, &former.id, wanted, described)) {
            Ok(entry) => Ok(entry),
            Err(fault) => {
                former.restore(core);
                Err(fault)
            }
        }
    }

    /// The download of a file that failed in this process: whatever is begun under its key takes over its record, or a
    /// restart would find two. A complete one has none, or soon; a cancelled one has none.
    fn failed_run(&self, key: &GroupFile) -> Option<Arc<DownloadRun>> {
        self.find_run(key).filter(|entry| matches!(entry.download.progress().phase, DownloadPhase::Failed(_)))
    }

    /// A record more, if there is room for it.
    fn new_record(&self) -> Result<RecordId, ClientFault> {
        let entries = lock(&self.runs).clone();
        let kept = entries.iter().filter(|entry| {
            !matches!(entry.download.progress().phase, DownloadPhase::Durable | DownloadPhase::Cancelled)
        });
        if kept.count() + lock(&self.recorded).len() < limits::DOWNLOAD_RECORDS_MAX {
            return RecordId::new();
        }
        let message =
            format!("{} downloads are on record, and more are not kept", limits::DOWNLOAD_RECORDS_MAX);
        Err(ClientFault::new(ExitCause::Other, message)
            .fix("`show_downloads`, then `cancel` what is not wanted any more"))
    }

    /// Starts what is on record.
    fn launch(
        &self,
        core: &Arc<NodeCore>,
        id: &RecordId,
        wanted: DownloadRecord,
        described: FileDescription,
    ) -> Result<Arc<DownloadRun>, ClientFault> {
        let FileDescription { manifest, peers, ticket } = described;
        let order = DownloadOrder {
            key: to_engine_key(&wanted.key),
            manifest: Arc::clone(&manifest),
            destination: wanted.destination.clone(),
            overwrite: wanted.overwrite,
            ticket,
        };
        // A download that nobody keeps supplied must not go on, so what may fail comes before it.
        let keeper = announcer::spawn_announcer(Arc::clone(core))?;
        let download = core.peer.engine()?.download(order)?;
        download.add_peers(&peers);
        let limit_down = core.peer.limit_down();
        let entry = Arc::new(DownloadRun::new(NewDownload {
            id: id.clone(),
            wanted,
            manifest,
            download,
            limit_down,
        }));
        if let Err(fault) = entry.clear_replaced(core) {
            let key = &entry.key;
            core.notices.post(&format!("a restart of this node would find {key} as it was before: {fault}"));
        }
        let mut entries = lock(&self.runs);
        entries.retain(|known| known.key != entry.key);
        entries.push(Arc::clone(&entry));
        drop(entries);
        self.remove_recorded(id);
        // A login holds back what it finds, and did not find this.
        entry.set_active_user(core.trackers.user().as_deref());
        keeper.attach(Arc::clone(&entry));
        Ok(entry)
    }

    /// What `user` has on record here and does not run, as far as it could go on.
    pub(in crate::node) fn resumable(&self, user: &str) -> Vec<DownloadRecord> {
        let dormant = lock(&self.recorded);
        dormant.iter().filter(|one| one.can_resume(user)).map(|one| one.wanted.clone()).collect()
    }

    /// Lets one of them go on, as it stands by now; what is at its destination already is compared first.
    pub(in crate::node) fn resume(&self, core: &Arc<NodeCore>, user: &str, key: &GroupFile) -> PendingWork {
        let Some(claim) = self.locks.try_acquire(key) else { return PendingWork::Retry };
        let Some(mut dormant) = self.find_recorded(key).filter(|now| now.can_resume(user)) else {
            return PendingWork::Nothing;
        };
        let room = self.check_limit().map_err(ResumeError::Transient);
        let left = match room.and_then(|()| self.try_resume(core, &dormant, &claim)) {
            Ok(()) => return PendingWork::Nothing,
            Err(ResumeError::Preempted) => return PendingWork::Retry,
            Err(ResumeError::Transient(fault)) => {
                let left = pending_after(&fault).unwrap_or(PendingWork::Retry);
                dormant.waiting_for = Some(fault);
                left
            }
            Err(ResumeError::Final(fault)) => {
                core.notices.post(&format!("{key} does not go on: {fault}"));
                dormant.wanted.failed = Some(fault);
                if let Err(fault) = core.records.write_download(&dormant.id, &dormant.wanted) {
                    core.notices.post(&fault.message);
                }
                PendingWork::Nothing
            }
        };
        self.update_recorded(dormant);
        left
    }

    fn try_resume(
        &self,
        core: &Arc<NodeCore>,
        dormant: &RecordedDownload,
        claim: &KeyLock<'_>,
    ) -> Result<(), ResumeError> {
        let wanted = &dormant.wanted;
        let described = describe::describe_file(core, &wanted.user, &wanted.key, RequestUrgency::Background)
            .map_err(|fault| {
                if pending_after(&fault).is_some() {
                    ResumeError::Transient(fault)
                } else {
                    ResumeError::Final(fault)
                }
            })?;
        let manifest = Arc::clone(&described.manifest);
        if manifest.proof().id() != wanted.content {
            let message = format!("{} is another file now than when its download was begun", wanted.key);
            let file = quote_key(&wanted.key);
            let fix = format!("`cancel {file}`, then `download_file {file} DEST` fetches what it is now");
            return Err(ResumeError::Final(ClientFault::new(ExitCause::Other, message).fix(fix)));
        }
        let wish = DownloadRequest {
            key: wanted.key.clone(),
            destination: wanted.destination.clone(),
            overwrite: wanted.overwrite,
        };
        let disk = |fault: ClientFault| match fault.exit {
            ExitCause::Exists | ExitCause::Usage => ResumeError::Final(fault),
            _ => ResumeError::Transient(fault),
        };
        let is_here = || core.trackers.user().as_ref() == Some(&wanted.user) && !core.shutdown.is_set();
        let compared = |_| continue_while(claim.demand() == LockDemand::Nothing && is_here());
        match self.comparisons.compare(core, &wish, &manifest, &compared).map_err(disk)? {
            CompareOutcome::Vacant => {
                self.launch(core, &dormant.id, wanted.clone(), described).map(drop).map_err(disk)
            }
            CompareOutcome::Identical(path) => {
                self.complete_existing(core, dormant, &path, &manifest).map_err(ResumeError::Transient)
            }
            CompareOutcome::Aborted => Err(ResumeError::Preempted),
        }
    }

    /// A download on record turns out to be complete: a crash came between its last step and the record of that.
    fn complete_existing(
        &self,
        core: &NodeCore,
        dormant: &RecordedDownload,
        path: &Path,
        manifest: &Manifest,
    ) -> Result<(), ClientFault> {
        let fingerprint = Fingerprint::at(path)
            .map_err(|error| ClientFault::io("look at", path, &error).fix("check the path"))?;
        let wanted = &dormant.wanted;
        let _share = core.share_locks.acquire(&wanted.key, &core.shutdown)?;
        shares::share_download(
            core,
            &wanted.key,
            &wanted.user,
            path,
            fingerprint,
            manifest,
            ShareState::NotServed,
        )?;
        core.records.forget_download(&dormant.id)?;
        self.remove_recorded(&dormant.id);
        core.notices.post(&format!("{} is complete: {}", wanted.key, path.display()));
        core.recovery_wakeup.set();
        Ok(())
    }

    /// The download on record of the file that is wished for.
    fn matching_record(
        &self,
        wish: &DownloadRequest,
        user: &str,
    ) -> Result<Option<RecordedDownload>, ClientFault> {
        let Some(dormant) = self.find_recorded(&wish.key) else { return Ok(None) };
        let wanted = &dormant.wanted;
        if wanted.user != user {
            let message = format!("{} is being fetched by {} on this node", wish.key, wanted.user);
            let fix =
                format!("use a node of your own (`--state DIR`), or log in as {} to cancel it", wanted.user);
            return Err(ClientFault::new(ExitCause::Exists, message).fix(fix));
        }
        if wanted.failed.is_some() || is_same_destination(&wish.destination, &wanted.destination, &wish.key) {
            return Ok(Some(dormant));
        }
        Err(other_destination_fault(&wish.key, &wanted.destination))
    }

    /// The download of this file that goes on, if it goes to the same place.
    fn matching_run(&self, wish: &DownloadRequest) -> Result<Option<Arc<DownloadRun>>, ClientFault> {
        let Some(entry) = self.find_run(&wish.key).filter(|entry| !entry.has_ended()) else {
            return Ok(None);
        };
        let path = entry.download.progress().path;
        if wish.destination == entry.destination() || is_same_destination(&wish.destination, &path, &wish.key)
        {
            return Ok(Some(entry));
        }
        Err(other_destination_fault(&entry.key, &path))
    }

    /// The claim of a file's download, for whoever has its user's word: what is being compared for it is given up.
    ///
    /// # Errors
    /// The node ends.
    pub(in crate::node) fn preempt(
        &self,
        core: &NodeCore,
        key: &GroupFile,
    ) -> Result<KeyLock<'_>, ClientFault> {
        self.locks.preempt(key, &core.shutdown)
    }

    /// What is being compared for a file, if something is.
    pub(in crate::node) fn comparison_row(&self, key: &GroupFile) -> Option<TransferRow> {
        self.comparisons.row(key)
    }

    /// Refuses one more than may run, those that are being begun counted too; the caller's is one of these.
    fn check_limit(&self) -> Result<(), ClientFault> {
        let running = lock(&self.runs).iter().filter(|entry| !entry.has_ended()).count();
        if running + self.locks.count() <= limits::DOWNLOADS_MAX {
            return Ok(());
        }
        let message = format!("{} downloads are under way, and more are not begun", limits::DOWNLOADS_MAX);
        Err(ClientFault::new(ExitCause::Other, message).fix("wait for one of them, or `cancel` one"))
    }

    /// The download of a file, if it runs or has run in this process.
    pub(in crate::node) fn find_run(&self, key: &GroupFile) -> Option<Arc<DownloadRun>> {
        lock(&self.runs).iter().find(|entry| entry.key == *key).cloned()
    }

    /// The download of a file that is on record alone.
    pub(in crate::node) fn find_recorded(&self, key: &GroupFile) -> Option<RecordedDownload> {
        lock(&self.recorded).iter().find(|dormant| dormant.wanted.key == *key).cloned()
    }

    /// Notes what became of a dormant download, if it is still one.
    pub(in crate::node) fn update_recorded(&self, dormant: RecordedDownload) {
        if let Some(known) = lock(&self.recorded).iter_mut().find(|known| known.id == dormant.id) {
            *known = dormant;
        }
    }

    /// Takes a download off the list of dormant ones.
    pub(in crate::node) fn remove_recorded(&self, id: &RecordId) {
        lock(&self.recorded).retain(|dormant| dormant.id != *id);
    }

    /// All of them, as they stand while `user` is logged in: those on record first, then the others, oldest first, and at last
    /// what is compared before it is either.
    pub(in crate::node) fn rows(&self, user: Option<&str>) -> Vec<TransferRow> {
        let mut rows: Vec<TransferRow> =
            lock(&self.recorded).iter().map(|dormant| dormant.row(user)).collect();
        let entries = lock(&self.runs).clone();
        rows.extend(entries.iter().map(|entry| entry.row()));
        for compared in self.comparisons.rows() {
            match rows.iter_mut().find(|row| row.group == compared.group && row.file == compared.file) {
                Some(row) => *row = compared,
                None => rows.push(compared),
            }
        }
        rows
    }

    /// The files that a user fetches or has fetched here.
    pub(in crate::node) fn keys_of_user(&self, user: &str) -> Vec<GroupFile> {
        lock(&self.runs).iter().filter(|entry| entry.user == user).map(|entry| entry.key.clone()).collect()
    }

    /// Takes a download off the list.
    pub(in crate::node) fn remove_run(&self, entry: &Arc<DownloadRun>) {
        lock(&self.runs).retain(|known| !Arc::ptr_eq(known, entry));
    }

    /// Lets the downloads of `user` go on that the node had paused, and pauses everybody else's; with `None`, all.
    pub(in crate::node) fn set_active_user(&self, user: Option<&str>) {
        lock(&self.runs).clone().iter().for_each(|entry| entry.set_active_user(user));
    }
}

/// Whether a destination that was typed leads to a file at `path`, which may be a directory that was typed as well.
fn is_same_destination(typed: &Path, path: &Path, key: &GroupFile) -> bool {
    let name = key.name.as_str();
    typed == path || typed.join(name) == path || path.join(name) == typed
}

fn continue_while(wanted: bool) -> ControlFlow<()> {
    if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use engine::proto::units::Digest;

    use super::*;
    use crate::node::disk::records::tests::sample_record;

    #[test]
    fn of_two_records_under_one_key_the_later_counts_and_the_other_goes() {
        let dir = tempfile::tempdir().unwrap();
        let records = RecordStore::in_state_dir(dir.path());
        let wanted = DownloadRecord {
            key: sample_record("g", "u").key,
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
        records.write_download(&first, &wanted).unwrap();
        for entry in fs::read_dir(dir.path().join("downloads")).unwrap() {
            File::open(entry.unwrap().path()).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        records.write_download(&second, &DownloadRecord { failed: None, ..wanted.clone() }).unwrap();
        let downloads = DownloadTable::load(&records);
        let dormant = downloads.find_recorded(&wanted.key).unwrap();
        assert_eq!((dormant.id, dormant.wanted.failed), (second, None));
        assert_eq!(records.read_downloads().len(), 1);
    }
}
