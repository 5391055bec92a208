//! Which files this node shares for whom, and where they lie: what it takes to share them again when their user is back.
//!
//! Invariant: an entry leaves only when its user stops the share or its file is no longer what was shared; a user's
//! going away leaves it here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use engine::proto::units::Digest;
use tracker::api::FileKey;

use crate::lock::lock;

/// One shared file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// Under which key.
    pub(super) key: FileKey,
    /// By whom.
    pub(super) user: String,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// What names its content.
    pub(super) content: Digest,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    known: Mutex<BTreeMap<FileKey, Shared>>,
}

impl Registry {
    /// Adds a file, or replaces what was known under its key.
    pub(super) fn add(&self, shared: Shared) {
        lock(&self.known).insert(shared.key.clone(), shared);
    }

    /// Forgets the files that `which` chooses.
    pub(super) fn forget(&self, which: impl Fn(&FileKey) -> bool) {
        lock(&self.known).retain(|key, _| !which(key));
    }

    /// The files of one user.
    pub(super) fn of(&self, user: &str) -> Vec<Shared> {
        lock(&self.known).values().filter(|shared| shared.user == user).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::FileName;
    use tracker::api::GroupId;

    use super::*;

    fn shared(group: &str, user: &str) -> Shared {
        let key = FileKey { group: GroupId::new(group).unwrap(), name: FileName::new("f").unwrap() };
        Shared { key, user: user.into(), path: "/f".into(), content: Digest([1; 20]) }
    }

    #[test]
    fn files_stay_known_by_their_user_until_forgotten() {
        let registry = Registry::default();
        registry.add(shared("g", "alice"));
        registry.add(shared("h", "bob"));
        assert_eq!(registry.of("alice"), [shared("g", "alice")]);
        registry.forget(|key| key.group.as_str() == "g");
        assert_eq!(registry.of("alice"), []);
        assert_eq!(registry.of("bob").len(), 1);
    }
}
