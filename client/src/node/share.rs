//! Which files this node shares for whom, and how each stands: the records of shares, and what became of them since the
//! node started.
//!
//! Invariants: one entry a user and file; an entry leaves only when its user stops the share or its file is no longer what
//! was shared; a user's going away leaves it here.

use std::collections::BTreeMap;
use std::sync::Mutex;

use engine::lock::lock;
use tracker::api::GroupFile;

use crate::node::disk::records::{RecordId, ShareRecord};

/// How a share stands in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ShareState {
    /// Not served: nobody has looked at it yet, or its user is not here.
    NotServed,
    /// Not served, since its file cannot be read now, for this reason. `told`: the trackers know.
    Unreadable {
        /// Why.
        why: String,
        /// Whether the trackers know.
        is_reported: bool,
    },
    /// Served; the trackers have not been told in this process.
    Served,
    /// Served, and the trackers know.
    Announced,
}

/// One share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalShare {
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    pub(super) record: ShareRecord,
    /// How it stands.
    pub(super) state: ShareState,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct ShareRegistry {
    shares: Mutex<BTreeMap<(String, GroupFile), LocalShare>>,
}

impl ShareRegistry {
    /// Adds a share, or replaces what was known of this user under its key, which is given back.
    pub(super) fn insert(&self, known: LocalShare) -> Option<LocalShare> {
        lock(&self.shares).insert((known.record.user.clone(), known.record.key.clone()), known)
    }

    /// What a user shares under a key.
    pub(super) fn get(&self, user: &str, key: &GroupFile) -> Option<LocalShare> {
        lock(&self.shares).get(&(user.to_owned(), key.clone())).cloned()
    }

    /// Changes an entry, if it is still there, and gives it as it is then.
    pub(super) fn update(&self, id: &RecordId, change: impl FnOnce(&mut LocalShare)) -> Option<LocalShare> {
        let mut all = lock(&self.shares);
        let known = all.values_mut().find(|known| known.id == *id)?;
        change(known);
        Some(known.clone())
    }

    /// Notes that the trackers know of a share, if it is served.
    pub(super) fn mark_announced(&self, id: &RecordId) {
        self.update(id, |known| {
            if known.state == ShareState::Served {
                known.state = ShareState::Announced;
            }
        });
    }

    /// Forgets an entry; whether it was there.
    pub(super) fn remove(&self, id: &RecordId) -> bool {
        let mut all = lock(&self.shares);
        let before = all.len();
        all.retain(|_, known| known.id != *id);
        all.len() < before
    }

    /// The files of one user.
    pub(super) fn of_user(&self, user: &str) -> Vec<LocalShare> {
        lock(&self.shares).values().filter(|known| known.record.user == user).cloned().collect()
    }

    /// Notes that nothing of anybody but `user` is served.
    pub(super) fn mark_others_not_served(&self, user: &str) {
        for known in lock(&self.shares).values_mut().filter(|known| known.record.user != user) {
            known.state = ShareState::NotServed;
        }
    }

    /// How many there are, of all users.
    pub(super) fn count(&self) -> usize {
        lock(&self.shares).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::disk::records::tests::sample_record;

    fn known(group: &str, user: &str) -> LocalShare {
        LocalShare {
            id: RecordId::new().unwrap(),
            record: sample_record(group, user),
            state: ShareState::Announced,
        }
    }

    #[test]
    fn files_stay_known_by_their_user_until_forgotten() {
        let registry = ShareRegistry::default();
        let (alices, bobs) = (known("g", "alice"), known("g", "bob"));
        assert_eq!(registry.insert(alices.clone()), None);
        assert_eq!(registry.insert(bobs.clone()), None, "the same key of another user is another share");
        assert_eq!(registry.of_user("alice"), std::slice::from_ref(&alices));
        registry.mark_others_not_served("bob");
        assert_eq!(registry.get("alice", &alices.record.key).unwrap().state, ShareState::NotServed);
        assert_eq!(registry.get("bob", &bobs.record.key), Some(bobs));
        assert!(registry.remove(&alices.id) && !registry.remove(&alices.id));
        assert_eq!((registry.of_user("alice"), registry.count()), (vec![], 1));
    }

    #[test]
    fn a_later_share_under_the_same_key_gives_back_the_earlier() {
        let registry = ShareRegistry::default();
        let (first, second) = (known("g", "u"), known("g", "u"));
        registry.insert(first.clone());
        assert_eq!(registry.insert(second.clone()), Some(first.clone()));
        assert_eq!(registry.update(&first.id, |_| {}), None);
        let changed = registry.update(&second.id, |known| known.state = ShareState::NotServed);
        assert_eq!(changed.map(|known| known.state), Some(ShareState::NotServed));
    }
}
