//! Who works on a file just now: whoever changes what this node has of one (serves it, records it, tells the trackers of
//! it) holds the claim of its key, looks at how it stands, acts, writes the record, and lets go.
//!
//! Invariants: one holder a key; what was read before the claim was taken counts for nothing. Whoever needs the claim of a
//! download and that of a share takes the download's first, so that nobody waits in a circle.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracker::api::FileKey;

use super::ending::Ending;
use crate::exit::{Exit, Fault};
use crate::limits;
use crate::lock::lock;

/// The keys that are claimed: at most one for each thread.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: Mutex<BTreeSet<FileKey>>,
    changed: Condvar,
}

impl Claims {
    /// Takes the claim of a key, until what is given back is dropped; waits for whoever has it.
    ///
    /// # Errors
    /// The node ends.
    pub(super) fn take(&self, key: &FileKey, ending: &Ending) -> Result<Claim<'_>, Fault> {
        let mut taken = lock(&self.taken);
        while taken.contains(key) {
            if ending.is_over() {
                return Err(Fault::new(Exit::Interrupted, "the node is ending").fix("give the command again"));
            }
            let waited = self.changed.wait_timeout(taken, Duration::from_millis(limits::HEARTBEAT_MS));
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.insert(key.clone());
        Ok(Claim { claims: self, key: key.clone() })
    }

    /// Takes the claim of a key if nobody has it.
    pub(super) fn try_take(&self, key: &FileKey) -> Option<Claim<'_>> {
        lock(&self.taken).insert(key.clone()).then(|| Claim { claims: self, key: key.clone() })
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
