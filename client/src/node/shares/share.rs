//! A share of this node: its file, its state, and the table of all shares.
//!
//! ```text
//!   Unlisted ──listed──► NotServed ──served──► Served ──announced──► Announced
//!      │                   │  ▲                  │                       │
//!   refused        unreadable └────not served────┴───────────────────────┘
//!      ▼                   ▼
//!   Refused            Unreadable ──served──► Served, or ──not served──► NotServed
//!
//!   Served ──refused──► Refused;   Announced ──ended by the tracker──► Served
//!   each state ──stopped──► Stopped, which leaves the table once the tracker knows
//!   each state ──file changed──► Stopped, which becomes Refused once the tracker knows
//! ```
//!
//! Always true: a user has at most one share of a file. A share leaves the table only when its user stops it,
//! when another share of the same user and file replaces it, when its file has changed, when its record is
//! unusable, or when its user left the group or removed the file. It remains when its user logs out. A thread
//! changes the state of a share only while it holds its lock; the exceptions are `mark_not_served`, which a
//! login may do at any time, and `mark_unannounced`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::lock::lock;
use engine::proto::manifest::Manifest;
use engine::stats::ManifestLoader;
use engine::storage::fingerprint::Fingerprint;
use tracker::api::GroupFile;

use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::node::core::NodeCore;
use crate::node::disk::records::{
    ManifestChecksum, RecordId, RecordStore, ShareRecord, ShareStage, SharedFile,
};

/// The shares of all users of this node, served or not.
pub(in crate::node) struct Shares {
    /// The state that all parts of the node use.
    pub(in crate::node) core: Arc<NodeCore>,
    /// The shares.
    pub(in crate::node) table: LocalShareTable,
}

impl Shares {
    /// Reads the shares on record. None of them is served yet.
    pub(in crate::node) fn load(core: Arc<NodeCore>) -> Shares {
        Shares { table: load_table(&core.records), core }
    }

    /// Writes the record of a new share. The share is not in the table yet.
    ///
    /// # Errors
    /// The record cannot be written, or this node shares too many files. Then nothing is recorded.
    pub(super) fn write_record(
        &self,
        key: &GroupFile,
        origin: ShareOrigin,
        manifest: &Manifest,
        state: ShareState,
    ) -> Result<LocalShare, ClientFault> {
        self.check_limit(&origin.user, key)?;
        let ShareOrigin { user, path, fingerprint } = origin;
        let (content, checksum) = (manifest.proof().id(), ManifestChecksum::of(manifest));
        let file = SharedFile { key: key.clone(), user, path, fingerprint, content, checksum };
        let id = self.core.records.keep_share(&share_record(&file, &state), manifest)?;
        Ok(LocalShare { id, file, state })
    }

    /// Reads the manifest of a share from its record, for the engine.
    pub(super) fn manifest_loader(&self, share: &LocalShare) -> ManifestLoader {
        let (core, share) = (Arc::downgrade(&self.core), share.clone());
        Arc::new(move || {
            // The node may have ended.
            let manifest = core.upgrade()?.records.manifest(&share.id, &share.file);
            manifest.inspect_err(|fault| tracing::warn!("{}: {fault:?}", share.file.key)).ok().map(Arc::new)
        })
    }

    /// Puts a share into the table, and removes the record of the share that it replaces.
    pub(super) fn register(&self, share: LocalShare) {
        if let Some(replaced) = self.table.insert(share)
            && let Err(fault) = self.core.records.remove_share(&replaced.id)
        {
            self.core.notices.post(&fault.message);
        }
    }

    /// Refuses a share if the node has `SHARES_MAX` already: a restart reads no more records. A share that
    /// replaces another is never refused.
    pub(super) fn check_limit(&self, user: &str, key: &GroupFile) -> Result<(), ClientFault> {
        if self.table.count() < limits::SHARES_MAX || self.table.get(user, key).is_some() {
            return Ok(());
        }
        let message = format!("this node shares {} files already, and no more are taken", limits::SHARES_MAX);
        Err(ClientFault::new(ExitCause::Other, message).fix("stop one of them: `stop_share GROUP FILE`"))
    }

    /// Removes a share from the table and from the disk.
    pub(super) fn remove(&self, share: &LocalShare) {
        self.table.remove(&share.id);
        if let Err(fault) = self.core.records.remove_share(&share.id) {
            self.core.notices.post(&fault.message);
        }
    }
}

/// A file on this machine that is to be shared.
pub(in crate::node) struct ShareOrigin {
    /// The user who shares it.
    pub(in crate::node) user: String,
    /// The path of the file.
    pub(in crate::node) path: PathBuf,
    /// The fingerprint of the file when it was hashed.
    pub(in crate::node) fingerprint: Fingerprint,
}

/// Reads all shares on record. After a crash between writing one record and removing another, two records have
/// the same key; then the listed one that was written last is kept.
fn load_table(records: &RecordStore) -> LocalShareTable {
    let table = LocalShareTable::default();
    let mut recorded = records.read_shares();
    recorded.sort_by_key(|(_, record)| !matches!(record.stage, ShareStage::Unlisted | ShareStage::Refused));
    for (id, record) in recorded {
        let replaced = table.insert(LocalShare::from_record(id, record));
        if let Some(Err(fault)) = replaced.map(|replaced| records.remove_share(&replaced.id)) {
            tracing::warn!("{fault}");
        }
    }
    table
}

/// The state of a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum ShareState {
    /// Hashed and on record; the tracker has not listed it yet.
    Unlisted,
    /// The tracker refused it permanently and is not asked again, or its file has changed (exit code 14). Its user
    /// has to decide what to do.
    Refused(Option<ClientFault>),
    /// Listed. Not served, because its file has not been opened yet or its user is not logged in.
    NotServed,
    /// Listed. Not served, because its file cannot be read now.
    Unreadable {
        /// Why the file cannot be read.
        reason: String,
        /// Whether the tracker knows that the file is not served.
        is_reported: bool,
    },
    /// Listed and served. This process has not told the tracker yet.
    Served,
    /// Listed and served, and the tracker knows.
    Announced,
    /// Ended by its user, or because its file has changed. The tracker has not been told yet.
    Stopped {
        /// The state before the stop.
        before: Box<ShareState>,
    },
}

impl ShareState {
    fn from_record(stage: ShareStage, refusal: Option<ClientFault>) -> ShareState {
        let refused = |refusal: Option<ClientFault>| refusal.map(|fault| ShareState::Refused(Some(fault)));
        match stage {
            ShareStage::Unlisted => ShareState::Unlisted,
            ShareStage::Refused => ShareState::Refused(refusal),
            ShareStage::Listed => ShareState::NotServed,
            ShareStage::Stopped => {
                ShareState::Stopped { before: Box::new(refused(refusal).unwrap_or(ShareState::NotServed)) }
            }
        }
    }

    /// The part of the state that outlives the process.
    pub(super) fn stage(&self) -> ShareStage {
        match self {
            ShareState::Unlisted => ShareStage::Unlisted,
            ShareState::Refused(_) => ShareStage::Refused,
            ShareState::Stopped { .. } => ShareStage::Stopped,
            ShareState::NotServed
            | ShareState::Unreadable { .. }
            | ShareState::Served
            | ShareState::Announced => ShareStage::Listed,
        }
    }

    /// How the file has changed since it was shared, with what to do about it.
    pub(super) fn source_change(&self) -> Option<&ClientFault> {
        self.refusal().filter(|fault| fault.exit == ExitCause::SourceChanged)
    }

    /// Why the tracker refused the share; `None` if it did not, or if the reason is unknown.
    fn refusal(&self) -> Option<&ClientFault> {
        match self {
            ShareState::Refused(fault) => fault.as_ref(),
            ShareState::Stopped { before } => before.refusal(),
            _ => None,
        }
    }

    /// Whether the tracker lists the file and its user has not stopped it.
    pub(super) fn is_listed(&self) -> bool {
        self.stage() == ShareStage::Listed
    }

    /// Transition: the tracker has listed the file.
    pub(super) fn mark_listed(&mut self) {
        assert_eq!(*self, ShareState::Unlisted, "a file is listed once");
        *self = ShareState::NotServed;
    }

    /// Transition: the tracker has refused the file permanently, or has ended its share.
    pub(super) fn mark_refused(&mut self, why: ClientFault) {
        assert!(self.is_listed() || *self == ShareState::Unlisted, "{self:?}: the tracker was not asked");
        *self = ShareState::Refused(Some(why));
    }

    /// Transition: the engine serves the file.
    pub(super) fn mark_served(&mut self) {
        assert!(self.is_listed(), "{self:?}: only a listed file is served");
        *self = ShareState::Served;
    }

    /// Transition: the file cannot be read now.
    pub(super) fn mark_unreadable(&mut self, reason: String) {
        assert!(self.is_listed(), "{self:?}: only a listed file is opened");
        let is_reported = matches!(self, ShareState::Unreadable { is_reported: true, .. });
        *self = ShareState::Unreadable { reason, is_reported };
    }

    /// Transition: the tracker knows that the file is not served for now. Has no effect on a share that was
    /// taken down meanwhile.
    pub(super) fn mark_reported(&mut self) {
        if let ShareState::Unreadable { is_reported, .. } = self {
            *is_reported = true;
        }
    }

    /// Transition: the tracker knows that the file is served. Has no effect on a share that was taken down
    /// meanwhile.
    pub(super) fn mark_announced(&mut self) {
        if *self == ShareState::Served {
            *self = ShareState::Announced;
        }
    }

    /// Transition: the tracker may not know the share any more. Has no effect on a share that is not announced.
    pub(super) fn mark_unannounced(&mut self) {
        if *self == ShareState::Announced {
            *self = ShareState::Served;
        }
    }

    /// Transition: the user has logged out. The file is not served until the user logs in again.
    pub(super) fn mark_not_served(&mut self) {
        match self {
            ShareState::Unlisted | ShareState::Refused(_) => {}
            ShareState::Stopped { before } => before.mark_not_served(),
            listed => *listed = ShareState::NotServed,
        }
    }

    /// Transition: the file has changed since it was shared. The tracker still has to be told.
    pub(super) fn mark_changed(&mut self, change: ClientFault) {
        assert_eq!(
            change.exit,
            ExitCause::SourceChanged,
            "{change}: this code tells a change from a refusal"
        );
        *self = ShareState::Stopped { before: Box::new(ShareState::Refused(Some(change))) };
    }

    /// Transition: the tracker knows that the share of a changed file has ended. Has no effect on other shares.
    pub(super) fn mark_change_reported(&mut self) {
        if let Some(change) = self.source_change().cloned() {
            *self = ShareState::Refused(Some(change));
        }
    }

    /// Transition: its user has ended the share. The tracker still has to be told.
    pub(super) fn mark_stopped(&mut self) {
        if self.source_change().is_some() {
            *self = ShareState::Stopped { before: Box::new(ShareState::NotServed) };
        } else if !matches!(self, ShareState::Stopped { .. }) {
            let before = Box::new(std::mem::replace(self, ShareState::Unlisted));
            *self = ShareState::Stopped { before };
        }
    }
}

/// One share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct LocalShare {
    /// The name of the record.
    pub(super) id: RecordId,
    /// The shared file.
    pub(in crate::node) file: SharedFile,
    /// The current state.
    pub(in crate::node) state: ShareState,
}

impl LocalShare {
    fn from_record(id: RecordId, record: ShareRecord) -> LocalShare {
        let ShareRecord { file, stage, refusal } = record;
        LocalShare { id, file, state: ShareState::from_record(stage, refusal) }
    }

    /// The record to write for this share.
    pub(super) fn to_record(&self) -> ShareRecord {
        share_record(&self.file, &self.state)
    }
}

/// The record of a share with this file and state.
pub(super) fn share_record(file: &SharedFile, state: &ShareState) -> ShareRecord {
    ShareRecord { file: file.clone(), stage: state.stage(), refusal: state.refusal().cloned() }
}

/// The shares of one node, by user and file.
#[derive(Debug, Default)]
pub(in crate::node) struct LocalShareTable {
    shares: Mutex<BTreeMap<(String, GroupFile), LocalShare>>,
}

impl LocalShareTable {
    /// Adds a share. Returns the share of the same user and file that it replaces.
    pub(super) fn insert(&self, share: LocalShare) -> Option<LocalShare> {
        lock(&self.shares).insert((share.file.user.clone(), share.file.key.clone()), share)
    }

    /// A user's share of a file.
    pub(in crate::node) fn get(&self, user: &str, key: &GroupFile) -> Option<LocalShare> {
        lock(&self.shares).get(&(user.to_owned(), key.clone())).cloned()
    }

    /// Changes the state of a share. Returns the changed share; `None` if it is no longer in the table.
    pub(super) fn update(&self, id: &RecordId, change: impl FnOnce(&mut ShareState)) -> Option<LocalShare> {
        let mut shares = lock(&self.shares);
        let share = shares.values_mut().find(|share| share.id == *id)?;
        change(&mut share.state);
        Some(share.clone())
    }

    /// Sets the fingerprint that the file of a share has now, with the same content. Returns the changed share; `None` if it
    /// is no longer in the table.
    pub(super) fn set_fingerprint(&self, id: &RecordId, fingerprint: Fingerprint) -> Option<LocalShare> {
        let mut shares = lock(&self.shares);
        let share = shares.values_mut().find(|share| share.id == *id)?;
        share.file.fingerprint = fingerprint;
        Some(share.clone())
    }

    /// Removes a share. Returns whether it was in the table.
    pub(super) fn remove(&self, id: &RecordId) -> bool {
        let mut shares = lock(&self.shares);
        let before = shares.len();
        shares.retain(|_, share| share.id != *id);
        shares.len() < before
    }

    /// The shares of one user.
    pub(in crate::node) fn shares_of_user(&self, user: &str) -> Vec<LocalShare> {
        lock(&self.shares).values().filter(|share| share.file.user == user).cloned().collect()
    }

    /// Number of a user's shares that the tracker was told of.
    pub(in crate::node) fn count_announced(&self, user: &str) -> u64 {
        let is_announced =
            |share: &&LocalShare| share.file.user == user && share.state == ShareState::Announced;
        lock(&self.shares).values().filter(is_announced).count() as u64
    }

    /// Takes down the shares of all users but one.
    pub(super) fn unserve_other_users(&self, user: &str) {
        lock(&self.shares)
            .values_mut()
            .filter(|share| share.file.user != user)
            .for_each(|share| share.state.mark_not_served());
    }

    /// The number of listed shares of each user.
    pub(in crate::node) fn listed_by_user(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for share in lock(&self.shares).values().filter(|share| share.state.is_listed()) {
            *counts.entry(share.file.user.clone()).or_default() += 1;
        }
        counts
    }

    /// The number of shares of all users.
    pub(super) fn count(&self) -> usize {
        lock(&self.shares).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::disk::records::tests::sample_file;

    fn share(group: &str, user: &str) -> LocalShare {
        let id = RecordId::new().unwrap();
        LocalShare { id, file: sample_file(group, user), state: ShareState::Announced }
    }

    #[test]
    fn a_share_stays_until_it_is_removed() {
        let table = LocalShareTable::default();
        let (alices, bobs) = (share("g", "alice"), share("g", "bob"));
        assert_eq!(table.insert(alices.clone()), None);
        assert_eq!(table.insert(bobs.clone()), None, "two users may share one file");
        assert_eq!(table.shares_of_user("alice"), std::slice::from_ref(&alices));
        table.unserve_other_users("bob");
        assert_eq!(table.get("alice", &alices.file.key).unwrap().state, ShareState::NotServed);
        assert_eq!(table.get("bob", &bobs.file.key), Some(bobs));
        assert!(table.remove(&alices.id) && !table.remove(&alices.id));
        assert_eq!((table.shares_of_user("alice"), table.count()), (vec![], 1));
    }

    #[test]
    fn a_later_share_of_the_same_file_replaces_the_earlier() {
        let table = LocalShareTable::default();
        let (first, second) = (share("g", "u"), share("g", "u"));
        table.insert(first.clone());
        assert_eq!(table.insert(second.clone()), Some(first.clone()));
        assert_eq!(table.update(&first.id, |_| {}), None);
        let updated = table.update(&second.id, ShareState::mark_not_served);
        assert_eq!(updated.map(|share| share.state), Some(ShareState::NotServed));
    }

    #[test]
    fn what_is_recorded_of_a_state_is_read_back() {
        let refused = || ShareState::Refused(Some(ClientFault::new(ExitCause::Exists, "why")));
        let stopped = |before| ShareState::Stopped { before: Box::new(before) };
        let states = [ShareState::Unlisted, ShareState::NotServed, refused(), ShareState::Refused(None)];
        for state in states.into_iter().chain([stopped(ShareState::NotServed), stopped(refused())]) {
            let record = share_record(&sample_file("g", "u"), &state);
            assert_eq!(ShareState::from_record(record.stage, record.refusal), state);
        }
    }

    #[test]
    fn a_share_that_was_taken_down_is_neither_announced_nor_reported() {
        let mut state = ShareState::Unlisted;
        state.mark_listed();
        state.mark_served();
        state.mark_not_served();
        state.mark_announced();
        assert_eq!(state, ShareState::NotServed);
        state.mark_unreadable("why".into());
        state.mark_not_served();
        state.mark_reported();
        assert_eq!(state, ShareState::NotServed);
        state.mark_stopped();
        state.mark_stopped();
        assert_eq!(state, ShareState::Stopped { before: Box::new(ShareState::NotServed) });
    }

    #[test]
    fn a_file_that_stays_unreadable_is_reported_once() {
        let mut state = ShareState::NotServed;
        state.mark_unreadable("first".into());
        state.mark_reported();
        state.mark_unreadable("second".into());
        assert_eq!(state, ShareState::Unreadable { reason: "second".into(), is_reported: true });
    }

    #[test]
    fn a_changed_file_stays_known_until_its_user_stops_it() {
        let change = || ClientFault::new(ExitCause::SourceChanged, "another length");
        let mut state = ShareState::Announced;
        state.mark_changed(change());
        let read = |state: &ShareState| ShareState::from_record(state.stage(), state.refusal().cloned());
        assert_eq!((state.stage(), read(&state)), (ShareStage::Stopped, state.clone()));
        let mut stopped = state.clone();
        stopped.mark_stopped();
        assert_eq!(stopped.source_change(), None, "the user stopped it before the tracker was told");
        state.mark_change_reported();
        assert_eq!((&state, read(&state)), (&ShareState::Refused(Some(change())), state.clone()));
        state.mark_stopped();
        assert_eq!((state.stage(), state.source_change()), (ShareStage::Stopped, None));
    }

    #[test]
    #[should_panic(expected = "only a listed file is served")]
    fn a_stopped_share_is_not_served() {
        let mut state = ShareState::Announced;
        state.mark_stopped();
        state.mark_served();
    }
}
