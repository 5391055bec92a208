//! Who works on a file just now: whoever changes what this node has of one (serves it, records it, tells the trackers of
//! it) holds the claim of its key, looks at how it stands, acts, writes the record, and lets go.
//!
//! Invariants: one holder a key; what was read before the claim was taken counts for nothing. Whoever needs the claim of a
//! download and that of a share takes the download's first, so that nobody waits in a circle. A holder can see that others
//! wait, and what for: one that works for long looks, and lets go of what counts for less.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use engine::lock::lock;
use tracker::api::GroupFile;

use crate::exit::ClientFault;
use crate::limits;
use crate::node::shutdown::ShutdownLatch;

/// What others ask of whoever has a claim, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LockDemand {
    /// Nothing: nobody waits.
    #[default]
    Nothing,
    /// To let go if nobody asked for what is being done.
    Release,
    /// To let go whoever asked for it: its user says otherwise now.
    Abort,
}

/// The keys that are claimed, and what is asked of who has them: at most one for each thread.
#[derive(Debug, Default)]
pub(super) struct KeyLocks {
    held: Mutex<BTreeMap<GroupFile, LockDemand>>,
    released: Condvar,
}

impl KeyLocks {
    /// Takes the claim of a key, until what is given back is dropped; waits for whoever has it.
    ///
    /// # Errors
    /// The node ends.
    pub(super) fn acquire(
        &self,
        key: &GroupFile,
        ending: &ShutdownLatch,
    ) -> Result<KeyLock<'_>, ClientFault> {
        self.acquire_with_demand(key, ending, LockDemand::Release, || Ok(()))
    }

    /// As [`KeyLocks::acquire`]; `meanwhile` is called now and then as long as it waits, and may end that.
    ///
    /// # Errors
    /// As [`KeyLocks::acquire`], or that of `meanwhile`.
    pub(super) fn acquire_reporting(
        &self,
        key: &GroupFile,
        ending: &ShutdownLatch,
        meanwhile: impl FnMut() -> Result<(), ClientFault>,
    ) -> Result<KeyLock<'_>, ClientFault> {
        self.acquire_with_demand(key, ending, LockDemand::Release, meanwhile)
    }

    /// As [`KeyLocks::acquire`], for a user's word against what is being done under the claim.
    ///
    /// # Errors
    /// As [`KeyLocks::acquire`].
    pub(super) fn preempt(
        &self,
        key: &GroupFile,
        ending: &ShutdownLatch,
    ) -> Result<KeyLock<'_>, ClientFault> {
        self.acquire_with_demand(key, ending, LockDemand::Abort, || Ok(()))
    }

    fn acquire_with_demand(
        &self,
        key: &GroupFile,
        ending: &ShutdownLatch,
        asked: LockDemand,
        mut meanwhile: impl FnMut() -> Result<(), ClientFault>,
    ) -> Result<KeyLock<'_>, ClientFault> {
        let mut taken = lock(&self.held);
        while let Some(known) = taken.get_mut(key) {
            // Anew each time: who has it may be another by now.
            *known = asked.max(*known);
            if ending.is_set() {
                return Err(ClientFault::ending());
            }
            let waited = self.released.wait_timeout(taken, Duration::from_millis(limits::PROGRESS_EVERY_MS));
            drop(waited.unwrap_or_else(PoisonError::into_inner).0);
            meanwhile()?;
            taken = lock(&self.held);
        }
        taken.insert(key.clone(), LockDemand::Nothing);
        Ok(KeyLock { locks: self, key: key.clone() })
    }

    /// Takes the claim of a key if nobody has it.
    pub(super) fn try_acquire(&self, key: &GroupFile) -> Option<KeyLock<'_>> {
        match lock(&self.held).entry(key.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(LockDemand::Nothing);
                Some(KeyLock { locks: self, key: key.clone() })
            }
        }
    }

    /// How many keys are claimed.
    pub(super) fn count(&self) -> usize {
        lock(&self.held).len()
    }
}

/// The right to change what this node has of one file.
#[derive(Debug)]
pub(super) struct KeyLock<'a> {
    locks: &'a KeyLocks,
    key: GroupFile,
}

impl KeyLock<'_> {
    /// What others ask of who has it.
    pub(super) fn demand(&self) -> LockDemand {
        lock(&self.locks.held).get(&self.key).copied().unwrap_or_default()
    }
}

impl Drop for KeyLock<'_> {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.key);
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitCause;
    use crate::node::disk::records::tests::sample_record;

    #[test]
    fn a_holder_sees_what_others_wait_for() {
        let claims = KeyLocks::default();
        let ending = ShutdownLatch::default();
        let key = sample_record("g", "u").key;
        let holder = claims.acquire(&key, &ending).unwrap();
        assert_eq!(holder.demand(), LockDemand::Nothing);
        let until = |holder: &KeyLock<'_>, asked| {
            let seen = (0..60_000).any(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                holder.demand() == asked
            });
            assert!(seen, "{asked:?}");
        };
        std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                let stop = || Err(ClientFault::new(ExitCause::Other, "enough"));
                claims.acquire_reporting(&key, &ending, stop).map(drop).unwrap_err().exit
            });
            assert_eq!(told.join().unwrap(), ExitCause::Other);
            until(&holder, LockDemand::Release);
            let word = scope.spawn(|| claims.preempt(&key, &ending).map(|claim| claim.demand()));
            until(&holder, LockDemand::Abort);
            drop(holder);
            assert_eq!(
                word.join().unwrap().unwrap(),
                LockDemand::Nothing,
                "what was asked was asked of another"
            );
        });
    }

    #[test]
    fn one_holder_a_key_and_whoever_waits_gets_it_next() {
        let claims = KeyLocks::default();
        let ending = ShutdownLatch::default();
        let (key, other) = (sample_record("g", "u").key, sample_record("h", "u").key);
        let first = claims.acquire(&key, &ending).unwrap();
        assert!(claims.try_acquire(&key).is_none() && claims.try_acquire(&other).is_some());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| claims.acquire(&key, &ending).map(drop));
            drop(first);
            second.join().unwrap().unwrap();
        });
        let _third = claims.try_acquire(&key).unwrap();
        ending.set();
        assert_eq!(claims.acquire(&key, &ending).unwrap_err().exit, ExitCause::Interrupted);
        assert_eq!(claims.count(), 1);
    }
}
