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

use tracker::api::FileKey;

use super::ending::Ending;
use crate::exit::Fault;
use crate::limits;
use crate::lock::lock;

/// What others ask of whoever has a claim, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Nothing: nobody waits.
    #[default]
    Nothing,
    /// To let go if nobody asked for what is being done.
    Soon,
    /// To let go whoever asked for it: its user says otherwise now.
    CalledOff,
}

/// The keys that are claimed, and what is asked of who has them: at most one for each thread.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: Mutex<BTreeMap<FileKey, Asked>>,
    changed: Condvar,
}

impl Claims {
    /// Takes the claim of a key, until what is given back is dropped; waits for whoever has it.
    ///
    /// # Errors
    /// The node ends.
    pub(super) fn take(&self, key: &FileKey, ending: &Ending) -> Result<Claim<'_>, Fault> {
        self.take_asking(key, ending, Asked::Soon, || Ok(()))
    }

    /// As [`Claims::take`]; `meanwhile` is called now and then as long as it waits, and may end that.
    ///
    /// # Errors
    /// As [`Claims::take`], or that of `meanwhile`.
    pub(super) fn take_telling(
        &self,
        key: &FileKey,
        ending: &Ending,
        meanwhile: impl FnMut() -> Result<(), Fault>,
    ) -> Result<Claim<'_>, Fault> {
        self.take_asking(key, ending, Asked::Soon, meanwhile)
    }

    /// As [`Claims::take`], for a user's word against what is being done under the claim.
    ///
    /// # Errors
    /// As [`Claims::take`].
    pub(super) fn call_off(&self, key: &FileKey, ending: &Ending) -> Result<Claim<'_>, Fault> {
        self.take_asking(key, ending, Asked::CalledOff, || Ok(()))
    }

    fn take_asking(
        &self,
        key: &FileKey,
        ending: &Ending,
        asked: Asked,
        mut meanwhile: impl FnMut() -> Result<(), Fault>,
    ) -> Result<Claim<'_>, Fault> {
        let mut taken = lock(&self.taken);
        while let Some(known) = taken.get_mut(key) {
            // Anew each time: who has it may be another by now.
            *known = asked.max(*known);
            if ending.is_over() {
                return Err(Fault::ending());
            }
            let waited = self.changed.wait_timeout(taken, Duration::from_millis(limits::PROGRESS_EVERY_MS));
            drop(waited.unwrap_or_else(PoisonError::into_inner).0);
            meanwhile()?;
            taken = lock(&self.taken);
        }
        taken.insert(key.clone(), Asked::Nothing);
        Ok(Claim { claims: self, key: key.clone() })
    }

    /// Takes the claim of a key if nobody has it.
    pub(super) fn try_take(&self, key: &FileKey) -> Option<Claim<'_>> {
        match lock(&self.taken).entry(key.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(Asked::Nothing);
                Some(Claim { claims: self, key: key.clone() })
            }
        }
    }

    /// How many keys are claimed.
    pub(super) fn count(&self) -> usize {
        lock(&self.taken).len()
    }
}

/// The right to change what this node has of one file.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    key: FileKey,
}

impl Claim<'_> {
    /// What others ask of who has it.
    pub(super) fn asked(&self) -> Asked {
        lock(&self.claims.taken).get(&self.key).copied().unwrap_or_default()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.claims.taken).remove(&self.key);
        self.claims.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::shared;
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_holder_sees_what_others_wait_for() {
        let claims = Claims::default();
        let ending = Ending::default();
        let key = shared("g", "u").key;
        let holder = claims.take(&key, &ending).unwrap();
        assert_eq!(holder.asked(), Asked::Nothing);
        let until = |holder: &Claim<'_>, asked| {
            let seen = (0..60_000).any(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                holder.asked() == asked
            });
            assert!(seen, "{asked:?}");
        };
        std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                let stop = || Err(Fault::new(Exit::Other, "enough"));
                claims.take_telling(&key, &ending, stop).map(drop).unwrap_err().exit
            });
            assert_eq!(told.join().unwrap(), Exit::Other);
            until(&holder, Asked::Soon);
            let word = scope.spawn(|| claims.call_off(&key, &ending).map(|claim| claim.asked()));
            until(&holder, Asked::CalledOff);
            drop(holder);
            assert_eq!(word.join().unwrap().unwrap(), Asked::Nothing, "what was asked was asked of another");
        });
    }

    #[test]
    fn one_holder_a_key_and_whoever_waits_gets_it_next() {
        let claims = Claims::default();
        let ending = Ending::default();
        let (key, other) = (shared("g", "u").key, shared("h", "u").key);
        let first = claims.take(&key, &ending).unwrap();
        assert!(claims.try_take(&key).is_none() && claims.try_take(&other).is_some());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| claims.take(&key, &ending).map(drop));
            drop(first);
            second.join().unwrap().unwrap();
        });
        let _third = claims.try_take(&key).unwrap();
        ending.end();
        assert_eq!(claims.take(&key, &ending).unwrap_err().exit, Exit::Interrupted);
        assert_eq!(claims.count(), 1);
    }
}
