//! A share of this node: its file and its state; and the table of all shares.
//!
//! Always true: a user has at most one share of a file. A share leaves the table only when its user stops it,
//! when another share of the same user and file replaces it, when its file has changed, when its record is
//! unusable, or when its user left the group or removed the file. It remains when its user logs out, and when a
//! tracker does not know it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::lock::lock;
use engine::proto::manifest::Manifest;
use engine::stats::ManifestLoader;
use engine::storage::fingerprint::Fingerprint;
use tracker::api::GroupFile;

use super::state::ShareState;
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
        let ShareOrigin { user, path, fingerprint, is_upload } = origin;
        let (content, checksum) = (manifest.proof().id(), ManifestChecksum::of(manifest));
        let file = SharedFile { key: key.clone(), user, path, fingerprint, content, checksum, is_upload };
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
    /// The user uploads it; else it was downloaded.
    pub(in crate::node) is_upload: bool,
}

/// Announces all shares of a user again, because the trackers know fewer of them than this node has announced: a file was
/// removed or replaced, or its user is no member any more.
pub(in crate::node) fn announce_again(shares: &Shares, user: &str) {
    for share in shares.table.shares_of_user(user) {
        shares.table.update(&share.id, ShareState::mark_unannounced);
    }
    shares.core.recovery_wakeup.set();
}

/// Marks the share of a downloaded file as announced: its download has already told the tracker.
pub(in crate::node) fn mark_announced(shares: &Shares, user: &str, key: &GroupFile) {
    if let Some(share) = shares.table.get(user, key) {
        shares.table.update(&share.id, ShareState::mark_announced);
    }
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
}
