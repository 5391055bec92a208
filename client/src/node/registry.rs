//! Which files this node shares for whom, and how each stands: the records of shares, and what became of them since the
//! node started.
//!
//! Invariants: one entry a user and file; an entry leaves only when its user stops the share or its file is no longer what
//! was shared; a user's going away leaves it here.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tracker::api::FileKey;

use super::records::{RecordId, Shared};
use crate::lock::lock;

/// How a share stands in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not served: nobody has looked at it yet, or its user is not here.
    Down,
    /// Not served, since its file cannot be read now, for this reason. `told`: the trackers know.
    Away {
        /// Why.
        why: String,
        /// Whether the trackers know.
        told: bool,
    },
    /// Served; the trackers have not been told in this process.
    Served,
    /// Served, and the trackers know.
    Told,
}

/// One share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    pub(super) shared: Shared,
    /// How it stands.
    pub(super) standing: Standing,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    known: Mutex<BTreeMap<(String, FileKey), Known>>,
}

impl Registry {
    /// Adds a share, or replaces what was known of this user under its key, which is given back.
    pub(super) fn add(&self, known: Known) -> Option<Known> {
        lock(&self.known).insert((known.shared.user.clone(), known.shared.key.clone()), known)
    }

    /// What a user shares under a key.
    pub(super) fn get(&self, user: &str, key: &FileKey) -> Option<Known> {
        lock(&self.known).get(&(user.to_owned(), key.clone())).cloned()
    }

    /// Changes an entry, if it is still there, and gives it as it is then.
    pub(super) fn change(&self, id: &RecordId, change: impl FnOnce(&mut Known)) -> Option<Known> {
        let mut all = lock(&self.known);
        let known = all.values_mut().find(|known| known.id == *id)?;
        change(known);
        Some(known.clone())
    }

    /// Forgets an entry; whether it was there.
    pub(super) fn forget(&self, id: &RecordId) -> bool {
        let mut all = lock(&self.known);
        let before = all.len();
        all.retain(|_, known| known.id != *id);
        all.len() < before
    }

    /// The files of one user.
    pub(super) fn of(&self, user: &str) -> Vec<Known> {
        lock(&self.known).values().filter(|known| known.shared.user == user).cloned().collect()
    }

    /// Notes that nothing of anybody but `user` is served.
    pub(super) fn take_down_all_but(&self, user: &str) {
        for known in lock(&self.known).values_mut().filter(|known| known.shared.user != user) {
            known.standing = Standing::Down;
        }
    }

    /// How many there are, of all users.
    pub(super) fn count(&self) -> usize {
        lock(&self.known).len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::shared;
    use super::*;

    fn known(group: &str, user: &str) -> Known {
        Known { id: RecordId::new().unwrap(), shared: shared(group, user), standing: Standing::Told }
    }

    #[test]
    fn files_stay_known_by_their_user_until_forgotten() {
        let registry = Registry::default();
        let (alices, bobs) = (known("g", "alice"), known("g", "bob"));
        assert_eq!(registry.add(alices.clone()), None);
        assert_eq!(registry.add(bobs.clone()), None, "the same key of another user is another share");
        assert_eq!(registry.of("alice"), std::slice::from_ref(&alices));
        registry.take_down_all_but("bob");
        assert_eq!(registry.get("alice", &alices.shared.key).unwrap().standing, Standing::Down);
        assert_eq!(registry.get("bob", &bobs.shared.key), Some(bobs));
        assert!(registry.forget(&alices.id) && !registry.forget(&alices.id));
        assert_eq!((registry.of("alice"), registry.count()), (vec![], 1));
    }

    #[test]
    fn a_later_share_under_the_same_key_gives_back_the_earlier() {
        let registry = Registry::default();
        let (first, second) = (known("g", "u"), known("g", "u"));
        registry.add(first.clone());
        assert_eq!(registry.add(second.clone()), Some(first.clone()));
        assert_eq!(registry.change(&first.id, |_| {}), None);
        let changed = registry.change(&second.id, |known| known.standing = Standing::Down);
        assert_eq!(changed.map(|known| known.standing), Some(Standing::Down));
    }
}
