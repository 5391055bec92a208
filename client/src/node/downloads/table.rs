//! The states of a download, and the table of all downloads of this node.
//!
//! ```text
//!   (none) ──begin_comparing──► Comparing ◄──begin_comparing── Recorded, or Running that has ended
//!      │                            │ end_comparing: back to where it came from
//!      │ start                      ▼
//!      └─────────► Running ◄──start── Replacing ◄──replace── Recorded, or Running that has failed
//!                     ▲                  │ restore: back
//!                     └──start── Recorded ◄──put_failed_on_record── Running that has failed
//! ```
//!
//! Always true: a file has at most one download. A thread that changes a download holds its lock
//! ([`DownloadLock`]). There are two exceptions: the engine ends a run at any time, and a cancelled run is
//! removed without the lock.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::lock::lock;
use engine::stats::DownloadPhase;
use tracker::api::GroupFile;

use super::compare::CompareProgress;
use super::recorded::{NodeSituation, RecordedDownload};
use super::running::DownloadRun;
use crate::ipc::rows::TransferRow;
use crate::limits;
use crate::node::disk::records::{DownloadRecord, RecordId};
use crate::node::locks::DownloadLock;
use crate::node::rows;

/// The state of a download in this process.
#[derive(Clone)]
pub(super) enum DownloadState {
    /// On record but not running: it waits for a tracker, a disk or its user, or has failed.
    Recorded(RecordedDownload),
    /// The file at the destination is being compared with the wanted one.
    Comparing {
        /// Progress of the comparison.
        progress: Arc<CompareProgress>,
        /// The state before the comparison; `None` for a download that is not on record yet.
        before: Option<Box<DownloadState>>,
    },
    /// A new download of the same file (the successor) is about to replace this one. Until the successor runs,
    /// its record contains the record of this one.
    Replacing {
        /// The record of the download that is being replaced.
        record: DownloadRecord,
        /// The state before: `Recorded`, or `Running` with a run that has failed.
        before: Box<DownloadState>,
    },
    /// Handed to the engine by this process. A run that has ended stays in this state until it is cancelled or
    /// replaced.
    Running(Arc<DownloadRun>),
}

impl DownloadState {
    /// The run, if it has one.
    fn run(&self) -> Option<&Arc<DownloadRun>> {
        match self {
            DownloadState::Recorded(_) => None,
            DownloadState::Comparing { before, .. } => before.as_ref()?.run(),
            DownloadState::Replacing { before, .. } => before.run(),
            DownloadState::Running(run) => Some(run),
        }
    }

    /// The recorded download, if it is not running.
    fn recorded(&self) -> Option<&RecordedDownload> {
        match self {
            DownloadState::Recorded(recorded) => Some(recorded),
            DownloadState::Comparing { before, .. } => before.as_ref()?.recorded(),
            DownloadState::Replacing { before, .. } => before.recorded(),
            DownloadState::Running(_) => None,
        }
    }

    fn recorded_mut(&mut self) -> Option<&mut RecordedDownload> {
        match self {
            DownloadState::Recorded(recorded) => Some(recorded),
            DownloadState::Comparing { before, .. } => before.as_mut()?.recorded_mut(),
            DownloadState::Replacing { .. } | DownloadState::Running(_) => None,
        }
    }

    fn row(&self, situation: NodeSituation<'_>) -> TransferRow {
        match self {
            DownloadState::Comparing { progress, .. } => progress.row(),
            DownloadState::Recorded(recorded) => recorded.row(situation),
            DownloadState::Replacing { before, .. } => before.row(situation),
            DownloadState::Running(run) => rows::wait_for_tracker(run.row(), situation.tracker_trouble),
        }
    }

    /// The destination that no other download may have: a file or a directory. `None` once it has ended.
    fn claimed_destination(&self) -> Option<PathBuf> {
        match self {
            DownloadState::Comparing { progress, .. } => Some(progress.row().path),
            DownloadState::Recorded(recorded) => {
                recorded.record.failed.is_none().then(|| recorded.record.destination.clone())
            }
            DownloadState::Replacing { before, .. } => before.claimed_destination(),
            DownloadState::Running(run) => (!run.has_ended()).then(|| run.download.progress().path),
        }
    }

    /// Whether the download has a record, which counts against `DOWNLOAD_RECORDS_MAX`. Complete and cancelled
    /// downloads have none.
    fn is_on_record(&self) -> bool {
        self.recorded().is_some()
            || self.run().is_some_and(|run| {
                !matches!(run.download.progress().phase, DownloadPhase::Durable | DownloadPhase::Cancelled)
            })
    }
}

struct TableSlot {
    key: GroupFile,
    state: DownloadState,
}

/// Removes the oldest runs that are complete, until `COMPLETE_DOWNLOADS_MAX` are left. They are shares by now.
fn drop_oldest_ended(slots: &mut Vec<TableSlot>) {
    let is_complete = |slot: &TableSlot| {
        matches!(&slot.state, DownloadState::Running(run)
            if matches!(run.download.progress().phase, DownloadPhase::Durable))
    };
    let complete = slots.iter().filter(|slot| is_complete(slot)).count();
    let mut excess = complete.saturating_sub(limits::COMPLETE_DOWNLOADS_MAX);
    slots.retain(|slot| {
        let is_dropped = excess > 0 && is_complete(slot);
        excess -= usize::from(is_dropped);
        !is_dropped
    });
}

/// The downloads of one node, in the order in which they were read from disk or begun.
#[derive(Default)]
pub(super) struct DownloadTable {
    slots: Mutex<Vec<TableSlot>>,
}

impl DownloadTable {
    /// A table of downloads that are not running.
    pub(super) fn from_recorded(downloads: Vec<RecordedDownload>) -> DownloadTable {
        let slot = |recorded: RecordedDownload| TableSlot {
            key: recorded.record.key.clone(),
            state: DownloadState::Recorded(recorded),
        };
        DownloadTable { slots: Mutex::new(downloads.into_iter().map(slot).collect()) }
    }

    /// Changes the state to `Comparing`. Adds the file if it has no download yet.
    pub(super) fn begin_comparing(&self, download_lock: &DownloadLock<'_>, progress: Arc<CompareProgress>) {
        let key = download_lock.key();
        let mut slots = lock(&self.slots);
        let at = slots.iter().position(|slot| slot.key == *key);
        let Some(at) = at else {
            let state = DownloadState::Comparing { progress, before: None };
            slots.push(TableSlot { key: key.clone(), state });
            return;
        };
        let slot = slots.remove(at);
        assert!(
            !matches!(slot.state, DownloadState::Comparing { .. } | DownloadState::Replacing { .. }),
            "{key}: one thread compares at a time, and before anything is replaced"
        );
        let state = DownloadState::Comparing { progress, before: Some(Box::new(slot.state)) };
        slots.insert(at, TableSlot { state, ..slot });
    }

    /// Restores the state before `Comparing`. Does nothing in another state.
    pub(super) fn end_comparing(&self, download_lock: &DownloadLock<'_>) {
        let mut slots = lock(&self.slots);
        let Some(at) = slots.iter().position(|slot| slot.key == *download_lock.key()) else { return };
        match slots.remove(at) {
            TableSlot { state: DownloadState::Comparing { before: None, .. }, .. } => {}
            TableSlot { state: DownloadState::Comparing { before: Some(before), .. }, key } => {
                slots.insert(at, TableSlot { key, state: *before });
            }
            other => slots.insert(at, other),
        }
    }

    /// Changes the state to `Replacing` and returns the record, for a successor of the same file. `None` if
    /// there is no download with a record, or if its run has not failed.
    pub(super) fn begin_replacing(
        &self,
        download_lock: &DownloadLock<'_>,
    ) -> Option<(RecordId, DownloadRecord)> {
        let mut slots = lock(&self.slots);
        let slot = slots.iter_mut().find(|slot| slot.key == *download_lock.key())?;
        let (id, record) = match &slot.state {
            DownloadState::Recorded(recorded) => (recorded.id.clone(), recorded.record.clone()),
            DownloadState::Running(run) => (run.id.clone(), run.take_failed_record()?),
            DownloadState::Comparing { .. } | DownloadState::Replacing { .. } => {
                unreachable!("the thread that holds the lock does one thing at a time")
            }
        };
        let before = Box::new(slot.state.clone());
        slot.state = DownloadState::Replacing { record: record.clone(), before };
        Some((id, record))
    }

    /// Restores the state before `Replacing`, after the successor failed to start.
    pub(super) fn end_replacing(&self, download_lock: &DownloadLock<'_>) {
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.iter_mut().find(|slot| slot.key == *download_lock.key()) else { return };
        if let DownloadState::Replacing { record, before } = &slot.state {
            if let DownloadState::Running(run) = &**before {
                run.restore_record(record.clone());
            }
            slot.state = DownloadState::clone(before);
        }
    }

    /// Adds a run that was handed to the engine, at the end of the table. Removes the download that it replaces
    /// or resumes.
    pub(super) fn insert_run(&self, download_lock: &DownloadLock<'_>, run: Arc<DownloadRun>) {
        assert_eq!(*download_lock.key(), run.key, "a run starts under the lock of its file");
        let mut slots = lock(&self.slots);
        if let Some(at) = slots.iter().position(|slot| slot.key == run.key) {
            let before = slots.remove(at).state;
            assert!(
                before.run().is_none_or(|run| run.has_ended()),
                "{}: the run before it has ended",
                run.key
            );
        }
        slots.push(TableSlot { key: run.key.clone(), state: DownloadState::Running(run) });
        drop_oldest_ended(&mut slots);
    }

    /// Changes the state of a run that has failed to `Recorded`, for a command that resumes or cancels it. Does
    /// nothing in another state.
    pub(super) fn put_failed_on_record(&self, download_lock: &DownloadLock<'_>) {
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.iter_mut().find(|slot| slot.key == *download_lock.key()) else { return };
        if let DownloadState::Running(run) = &slot.state
            && let Some(record) = run.take_failed_record()
        {
            slot.state = DownloadState::Recorded(RecordedDownload { id: run.id.clone(), record, wait: None });
        }
    }

    /// Changes a download that is on record but not running.
    pub(super) fn update_recorded(&self, download_lock: &DownloadLock<'_>, changed: RecordedDownload) {
        assert_eq!(*download_lock.key(), changed.record.key, "a download changes under the lock of its file");
        let mut slots = lock(&self.slots);
        let known = slots.iter_mut().filter(|slot| slot.key == *download_lock.key());
        if let Some(known) = known.filter_map(|slot| slot.state.recorded_mut()).next() {
            *known = changed;
        }
    }

    /// Removes a download that is on record but not running.
    pub(super) fn remove_recorded(&self, download_lock: &DownloadLock<'_>) {
        lock(&self.slots).retain(|slot| {
            slot.key != *download_lock.key() || !matches!(slot.state, DownloadState::Recorded(_))
        });
    }

    /// Removes a run, also if its destination is being compared for a new download.
    pub(super) fn remove_run(&self, run: &Arc<DownloadRun>) {
        let is_this_run =
            |state: &DownloadState| matches!(state, DownloadState::Running(known) if Arc::ptr_eq(known, run));
        let mut slots = lock(&self.slots);
        slots.retain(|slot| !is_this_run(&slot.state));
        for slot in slots.iter_mut() {
            if let DownloadState::Comparing { before, .. } = &mut slot.state
                && before.as_ref().is_some_and(|before| is_this_run(before))
            {
                *before = None;
            }
        }
    }

    /// The run of a file, even if it has ended.
    pub(super) fn find_run(&self, key: &GroupFile) -> Option<Arc<DownloadRun>> {
        lock(&self.slots).iter().find(|slot| slot.key == *key)?.state.run().cloned()
    }

    /// The download of a file that is on record but not running.
    pub(super) fn find_recorded(&self, key: &GroupFile) -> Option<RecordedDownload> {
        lock(&self.slots).iter().find(|slot| slot.key == *key)?.state.recorded().cloned()
    }

    /// The row of a file whose destination is being compared.
    pub(super) fn comparison_row(&self, key: &GroupFile) -> Option<TransferRow> {
        match &lock(&self.slots).iter().find(|slot| slot.key == *key)?.state {
            DownloadState::Comparing { progress, .. } => Some(progress.row()),
            _ => None,
        }
    }

    /// The destinations of all other downloads than that of `key`, except ended ones.
    pub(super) fn other_destinations(&self, key: &GroupFile) -> Vec<(GroupFile, PathBuf)> {
        let slots: Vec<_> =
            lock(&self.slots).iter().map(|slot| (slot.key.clone(), slot.state.clone())).collect();
        let others = slots.into_iter().filter(|(other, _)| other != key);
        others.filter_map(|(other, state)| Some((other, state.claimed_destination()?))).collect()
    }

    /// All runs, including those that have ended.
    pub(super) fn runs(&self) -> Vec<Arc<DownloadRun>> {
        lock(&self.slots).iter().filter_map(|slot| slot.state.run().cloned()).collect()
    }

    /// All downloads that are on record but not running.
    pub(super) fn all_recorded(&self) -> Vec<RecordedDownload> {
        lock(&self.slots).iter().filter_map(|slot| slot.state.recorded().cloned()).collect()
    }

    /// The number of downloads that have a record.
    pub(super) fn count_on_record(&self) -> usize {
        self.states().iter().filter(|state| state.is_on_record()).count()
    }

    /// The rows of all downloads. Order: first the recorded downloads, then the runs by start, then the downloads
    /// that are being compared and not on record yet.
    pub(super) fn rows(&self, situation: NodeSituation<'_>) -> Vec<TransferRow> {
        let mut states = self.states();
        states.sort_by_key(|state| match (state.recorded(), state.run()) {
            (Some(_), _) => 0,
            (None, Some(_)) => 1,
            (None, None) => 2,
        });
        states.iter().map(|state| state.row(situation)).collect()
    }

    /// A copy of all states. The callers query the engine, which they must not do under the table's lock.
    fn states(&self) -> Vec<DownloadState> {
        lock(&self.slots).iter().map(|slot| slot.state.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::{FileProof, Manifest};
    use engine::proto::units::Digest;

    use super::super::compare::DownloadRequest;
    use super::*;
    use crate::ipc::rows::TransferState;
    use crate::node::disk::records::tests::sample_file;
    use crate::node::locks::KeyLocks;

    fn recorded(group: &str) -> RecordedDownload {
        let record = DownloadRecord {
            key: sample_file(group, "u").key,
            user: "u".into(),
            destination: "/to".into(),
            overwrite: false,
            content: Digest([3; 20]),
            total_bytes: 5,
            paused: true,
            failed: None,
            replaced: None,
        };
        RecordedDownload { id: RecordId::new().unwrap(), record, wait: None }
    }

    fn comparison(key: &GroupFile) -> Arc<CompareProgress> {
        let request = DownloadRequest { key: key.clone(), destination: "/to".into(), overwrite: false };
        let (digests, proof) = (vec![Digest([3; 20])], FileProof::Whole(Digest([3; 20])));
        let manifest = Manifest::new(key.name.clone(), Some(5), digests, proof, None).unwrap();
        Arc::new(CompareProgress::new(&request, &manifest))
    }

    fn states(table: &DownloadTable) -> Vec<(String, TransferState)> {
        let situation = NodeSituation { user: Some("u"), resumes_recorded: true, tracker_trouble: None };
        table.rows(situation).into_iter().map(|row| (row.group, row.state)).collect()
    }

    #[test]
    fn a_comparison_ends_in_the_state_before_it() {
        let locks = KeyLocks::new(Arc::default());
        let mut scope = locks.scope();
        let (first, second) = (recorded("first"), recorded("second"));
        let table = DownloadTable::from_recorded(vec![first.clone(), second]);
        let new_key = sample_file("new", "u").key;
        let new = scope.try_lock_download(&new_key).unwrap();
        table.begin_comparing(&new, comparison(&new_key));
        let mut scope = locks.scope();
        let known = scope.try_lock_download(&first.record.key).unwrap();
        table.begin_comparing(&known, comparison(&first.record.key));
        let state = |group: &str, state| (group.to_owned(), state);
        let (comparing, paused) = (TransferState::Comparing, TransferState::Paused);
        let expected = [state("first", comparing), state("second", paused), state("new", comparing)];
        assert_eq!(states(&table), expected);
        assert_eq!(table.find_recorded(&first.record.key).map(|found| found.id), Some(first.id));
        table.end_comparing(&known);
        table.end_comparing(&new);
        assert_eq!(states(&table), [state("first", paused), state("second", paused)]);
    }

    #[test]
    fn a_replaced_download_is_restored_if_its_successor_does_not_start() {
        let locks = KeyLocks::new(Arc::default());
        let mut scope = locks.scope();
        let download = recorded("g");
        let table = DownloadTable::from_recorded(vec![download.clone()]);
        let download_lock = scope.try_lock_download(&download.record.key).unwrap();
        assert_eq!(
            table.begin_replacing(&download_lock),
            Some((download.id.clone(), download.record.clone()))
        );
        assert_eq!(table.count_on_record(), 1, "a download that is being replaced is on record");
        table.end_replacing(&download_lock);
        assert_eq!(table.begin_replacing(&download_lock).map(|(id, _)| id), Some(download.id));
        table.end_replacing(&download_lock);
        table.remove_recorded(&download_lock);
        assert_eq!(table.begin_replacing(&download_lock), None);
        assert_eq!(states(&table), []);
    }

    #[test]
    #[should_panic(expected = "one thread compares at a time")]
    fn a_destination_is_compared_once_at_a_time() {
        let locks = KeyLocks::new(Arc::default());
        let mut scope = locks.scope();
        let key = sample_file("g", "u").key;
        let download_lock = scope.try_lock_download(&key).unwrap();
        let table = DownloadTable::default();
        table.begin_comparing(&download_lock, comparison(&key));
        table.begin_comparing(&download_lock, comparison(&key));
    }
}
