//! The figures of one download that change with time: rate, time waited for peers, and when it reached each step.

use std::time::Duration;

use super::cost::PhaseTimes;
use crate::proto::rate::RateMeter;
use crate::proto::time::Moment;
use crate::stats::{CheckProgress, DownloadPhase};

/// Figures of one download since its start.
#[derive(Debug)]
pub(super) struct ProgressMeter {
    started: Moment,
    rate: RateMeter,
    /// Verified bytes when the phase was last set.
    seen_verified_bytes: u64,
    last_poll: Moment,
    /// Until all pieces were verified.
    pub(super) phase_times: PhaseTimes,
    pub(super) sequential_passes: u32,
    pub(super) resumed_bytes: u64,
    pub(super) checked_bytes: u64,
    /// The check of bytes on the disk, while it runs.
    pub(super) check: Option<CheckProgress>,
    pub(super) proven_after: Option<Duration>,
    pub(super) durable_after: Option<Duration>,
}

impl ProgressMeter {
    /// Starts at `now`, with `resumed_bytes` of an earlier attempt verified already.
    pub(super) fn new(now: Moment, resumed_bytes: u64) -> ProgressMeter {
        ProgressMeter {
            started: now,
            rate: RateMeter::new(now),
            seen_verified_bytes: resumed_bytes,
            last_poll: now,
            phase_times: PhaseTimes::default(),
            sequential_passes: 0,
            resumed_bytes,
            checked_bytes: 0,
            check: None,
            proven_after: None,
            durable_after: None,
        }
    }

    /// Time since the download's start.
    pub(super) fn age(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// From the download's start to a later moment.
    pub(super) fn since_start(&self, moment: Moment) -> Duration {
        moment.since(self.started)
    }

    /// Verified bytes a second over the last seconds.
    pub(super) fn bytes_per_s(&mut self, now: Moment) -> u64 {
        self.rate.rate(now).unwrap_or(0)
    }

    /// A check of `total_bytes` on the disk begins: from now on the rate is that of hashing.
    pub(super) fn begin_check(&mut self, now: Moment, total_bytes: u64) {
        self.check = Some(CheckProgress { done_bytes: 0, total_bytes });
        self.rate = RateMeter::new(now);
    }

    /// Counts bytes that the check has hashed.
    pub(super) fn add_checked(&mut self, now: Moment, bytes: u64) {
        if let Some(check) = &mut self.check {
            check.done_bytes += bytes;
            self.rate.add(now, bytes);
        }
    }

    /// The check has ended. The rate starts afresh: what was found on the disk says nothing about the network.
    pub(super) fn end_check(&mut self, now: Moment) {
        self.check = None;
        self.rate = RateMeter::new(now);
    }

    /// Counts what was verified since the phase was last set, and the time since the last poll, in which this was the phase.
    pub(super) fn poll(&mut self, now: Moment, verified_bytes: u64, phase: &DownloadPhase) {
        if self.check.is_none() {
            self.rate.add(now, verified_bytes.saturating_sub(self.seen_verified_bytes));
        }
        let times = &mut self.phase_times;
        let spent_us = match phase {
            DownloadPhase::Transferring => Some(&mut times.transferring_us),
            DownloadPhase::Waiting(wait) if wait.is_for_peers() => Some(&mut times.waiting_for_peers_us),
            DownloadPhase::Waiting(_) => Some(&mut times.waiting_for_disk_us),
            _ => None,
        };
        if let Some(spent_us) = spent_us {
            *spent_us += now.micros_since(self.last_poll);
        }
        self.last_poll = now;
    }

    /// Whether bytes were verified since the last call.
    pub(super) fn take_has_new_bytes(&mut self, verified_bytes: u64) -> bool {
        let before = std::mem::replace(&mut self.seen_verified_bytes, verified_bytes);
        before != verified_bytes
    }

    /// Notes when a step was reached.
    pub(super) fn enter_phase(&mut self, now: Moment, phase: &DownloadPhase) {
        let after = Some(self.age(now));
        match phase {
            DownloadPhase::Checking => self.sequential_passes += 1,
            DownloadPhase::Syncing => self.proven_after = self.proven_after.or(after),
            DownloadPhase::Durable => self.durable_after = after,
            _ => {}
        }
    }
}
