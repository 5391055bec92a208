//! Stalls of this node itself: times in which it did not read what peers sent.
//!
//! Silence during such a stall is no fault of the peers, for at most [`LOCAL_STALL_MAX_MS`]: a node that stands still for
//! longer, since a disk hangs, lets its other threads request the pieces elsewhere.

use super::super::time::Moment;

/// A connection that is silent for this long with requests pending loses them to others.
pub(super) const STALL_MS: u64 = 3_000;

/// When this node was not polled for this long, or a thread was busy with one thing for this long, it has stalled.
pub const LOCAL_STALL_MS: u64 = 1_000;

/// After a local stall of this length silence counts against the peers all the same.
pub(super) const LOCAL_STALL_MAX_MS: u64 = 10_000;

/// For this long after a local stall no piece is requested a second time.
const RECOVERY_MS: u64 = 1_000;

// A local stall is noticed before a peer counts as silent, and excuses peers for longer than that.
const _: () = assert!(LOCAL_STALL_MS < STALL_MS && STALL_MS < LOCAL_STALL_MAX_MS);

/// When this node was last polled, and when it last stalled.
#[derive(Debug)]
pub(super) struct LocalStallTracker {
    last_poll: Moment,
    stall: Option<LocalStall>,
}

/// Stalls that followed each other closely.
#[derive(Clone, Copy, Debug)]
struct LocalStall {
    first: Moment,
    last: Moment,
}

impl LocalStallTracker {
    pub(super) fn new(now: Moment) -> LocalStallTracker {
        LocalStallTracker { last_poll: now, stall: None }
    }

    pub(super) fn last_poll(&self) -> Moment {
        self.last_poll
    }

    /// Notes a poll. `is_stalled` says that a thread of this node has stalled; a poll that comes late shows the same.
    /// Returns whether the silence of peers is excused this time.
    pub(super) fn note_poll(&mut self, now: Moment, is_stalled: bool) -> bool {
        let is_stalled = is_stalled || now.ms_since(self.last_poll) > LOCAL_STALL_MS;
        self.last_poll = now;
        if !is_stalled {
            return false;
        }
        let earlier = self.stall.filter(|stall| now.ms_since(stall.last) <= STALL_MS);
        let first = earlier.map_or(now, |stall| stall.first);
        self.stall = Some(LocalStall { first, last: now });
        now.ms_since(first) < LOCAL_STALL_MAX_MS
    }

    /// Whether what looks slow or silent may be the effect of a local stall.
    pub(super) fn has_stalled_recently(&self, now: Moment) -> bool {
        self.stall.is_some_and(|stall| {
            now.ms_since(stall.last) < RECOVERY_MS && now.ms_since(stall.first) < LOCAL_STALL_MAX_MS
        })
    }
}
