//! Keeps the fingerprints of shared files up to date.
//!
//! Always true: a fingerprint is replaced only when the engine has found the same content under the new one.

use super::share::{LocalShare, Shares};
use crate::node::core::to_tracker_key;

/// Records the new fingerprints of files that the engine has hashed again, because their attributes had changed, and found
/// to have the same content.
pub(in crate::node) fn record_new_fingerprints(shares: &Shares) {
    let core = &shares.core;
    let (Some(engine), Some(user)) = (core.peer.started_engine(), core.trackers.user()) else { return };
    for served in engine.shares() {
        let Some((key, now)) = to_tracker_key(&served.key).zip(served.fingerprint) else { continue };
        let has_new_attributes = |share: &LocalShare| {
            let then = share.file.fingerprint;
            share.state.is_listed() && then != now && then.compare_ignoring_device(&now).change().is_none()
        };
        if !shares.table.get(&user, &key).is_some_and(|share| has_new_attributes(&share)) {
            continue;
        }
        let mut scope = core.locks.scope();
        let Some(_share_lock) = scope.try_lock_share(&key) else { continue };
        let Some(share) = shares.table.get(&user, &key).filter(has_new_attributes) else { continue };
        if let Some(updated) = shares.table.set_fingerprint(&share.id, now)
            && let Err(fault) = core.records.write_share(&updated.id, &updated.to_record())
        {
            core.notices.post(&fault.message);
        }
    }
}
