//! Locks by file: one for this node's download of a file, one for its share of it.
//!
//! A thread that changes either holds its lock: it locks, reads the state, acts, writes the record, and
//! unlocks. State that was read before the lock was taken may be out of date.
//!
//! Always true: a lock has at most one holder. A thread that needs both locks of a file takes the download's
//! first. The types hold that order: a thread locks through its [`LockScope`], which each lock borrows, so
//! that a share's lock gives access to no further lock and a download's only to the share's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use tracker::api::GroupFile;

use super::shutdown::Latch;
use super::sync::{Arc, Condvar, Mutex, PoisonError, lock};
use crate::exit::ClientFault;
use crate::limits;

/// What waiting threads ask of the holder of a download's lock, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LockDemand {
    /// No thread waits.
    Nothing,
    /// Unlock, if the work is not a user's.
    Release,
    /// Unlock in any case: the download's user has given a command about it.
    Abort,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LockKey {
    Download(GroupFile),
    Share(GroupFile),
}

/// The locks that are held.
#[derive(Debug)]
pub(super) struct KeyLocks {
    held: Mutex<BTreeMap<LockKey, LockDemand>>,
    released: Condvar,
    shutdown: Arc<Latch>,
}

impl KeyLocks {
    /// No lock is held. Waiting ends when `shutdown` is set.
    pub(super) fn new(shutdown: Arc<Latch>) -> KeyLocks {
        KeyLocks { held: Mutex::default(), released: Condvar::new(), shutdown }
    }

    /// The start of one piece of work that takes locks. A thread has one scope at a time.
    pub(super) fn scope(&self) -> LockScope<'_> {
        LockScope { locks: self }
    }

    /// How many downloads are locked.
    pub(super) fn locked_downloads(&self) -> usize {
        lock(&self.held).keys().filter(|key| matches!(key, LockKey::Download(_))).count()
    }

    /// Waits for the lock and takes it. `waiting` is called between two looks, and its error ends the wait.
    fn acquire(
        &self,
        key: LockKey,
        demand: LockDemand,
        mut waiting: impl FnMut() -> Result<(), ClientFault>,
    ) -> Result<HeldLock<'_>, ClientFault> {
        let mut held = lock(&self.held);
        while let Some(known) = held.get_mut(&key) {
            // Repeated at each look, since the lock may have another holder by now.
            *known = demand.max(*known);
            if self.shutdown.is_set() {
                return Err(ClientFault::ending());
            }
            let waited = self.released.wait_timeout(held, Duration::from_millis(limits::PROGRESS_EVERY_MS));
            drop(waited.unwrap_or_else(PoisonError::into_inner).0);
            waiting()?;
            held = lock(&self.held);
        }
        held.insert(key.clone(), LockDemand::Nothing);
        Ok(HeldLock { locks: self, key })
    }

    fn try_acquire(&self, key: LockKey) -> Option<HeldLock<'_>> {
        match lock(&self.held).entry(key.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(LockDemand::Nothing);
                Some(HeldLock { locks: self, key })
            }
        }
    }
}

/// What one thread may lock.
#[derive(Debug)]
pub(super) struct LockScope<'a> {
    locks: &'a KeyLocks,
}

impl LockScope<'_> {
    /// Locks a download for a user's command. `waiting` is called between two looks, and its error ends the
    /// wait.
    ///
    /// # Errors
    /// The node is shutting down, or the error of `waiting`.
    pub(super) fn lock_download(
        &mut self,
        key: &GroupFile,
        waiting: impl FnMut() -> Result<(), ClientFault>,
    ) -> Result<DownloadLock<'_>, ClientFault> {
        let held = self.locks.acquire(LockKey::Download(key.clone()), LockDemand::Release, waiting)?;
        Ok(DownloadLock { held, key: key.clone() })
    }

    /// Locks a download, and has its holder abort what takes long.
    ///
    /// # Errors
    /// The node is shutting down.
    pub(super) fn preempt_download(&mut self, key: &GroupFile) -> Result<DownloadLock<'_>, ClientFault> {
        let held = self.locks.acquire(LockKey::Download(key.clone()), LockDemand::Abort, || Ok(()))?;
        Ok(DownloadLock { held, key: key.clone() })
    }

    /// Locks a download that no other thread has locked.
    pub(super) fn try_lock_download(&mut self, key: &GroupFile) -> Option<DownloadLock<'_>> {
        let held = self.locks.try_acquire(LockKey::Download(key.clone()))?;
        Some(DownloadLock { held, key: key.clone() })
    }

    /// Locks a share.
    ///
    /// # Errors
    /// The node is shutting down.
    pub(super) fn lock_share(&mut self, key: &GroupFile) -> Result<ShareLock<'_>, ClientFault> {
        let held = self.locks.acquire(LockKey::Share(key.clone()), LockDemand::Release, || Ok(()))?;
        Ok(ShareLock { _held: held })
    }

    /// Locks a share that no other thread has locked.
    pub(super) fn try_lock_share(&mut self, key: &GroupFile) -> Option<ShareLock<'_>> {
        self.locks.try_acquire(LockKey::Share(key.clone())).map(|held| ShareLock { _held: held })
    }
}

/// The right to change the download of one file.
#[derive(Debug)]
pub(super) struct DownloadLock<'a> {
    held: HeldLock<'a>,
    key: GroupFile,
}

impl DownloadLock<'_> {
    /// The file.
    pub(super) fn key(&self) -> &GroupFile {
        &self.key
    }

    /// What waiting threads ask of the holder.
    pub(super) fn demand(&self) -> LockDemand {
        let held = lock(&self.held.locks.held);
        held.get(&self.held.key).copied().unwrap_or(LockDemand::Nothing)
    }

    /// Locks the share of the same file.
    ///
    /// # Errors
    /// The node is shutting down.
    pub(super) fn lock_share(&mut self) -> Result<ShareLock<'_>, ClientFault> {
        let key = LockKey::Share(self.key.clone());
        let held = self.held.locks.acquire(key, LockDemand::Release, || Ok(()))?;
        Ok(ShareLock { _held: held })
    }
}

/// The right to change the share of one file.
#[derive(Debug)]
pub(super) struct ShareLock<'a> {
    _held: HeldLock<'a>,
}

#[derive(Debug)]
struct HeldLock<'a> {
    locks: &'a KeyLocks,
    key: LockKey,
}

impl Drop for HeldLock<'_> {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.key);
        self.locks.released.notify_all();
    }
}
