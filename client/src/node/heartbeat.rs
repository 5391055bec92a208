//! The heartbeat: tells the trackers every few seconds that this node is there, and where it listens; learns
//! whether they ended shares of it; and withdraws shares whose files have changed. When the node ends, its last
//! message tells them that the node is offline.
//!
//! Always true: a node that does not listen sends no heartbeat, so that no peer is sent to it. The thread calls
//! no filesystem but that of the state directory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;
use tracker::api::answers::PingAnswer;
use tracker::api::request::Command;

use super::shares::{Shares, announce_again, record_new_fingerprints, withdraw_changed_files};
use super::shutdown::Latch;
use super::trackers::{RequestUrgency, TrackerStanding};
use crate::exit::{ClientFault, ExitCause};
use crate::limits;

/// Starts the thread of the heartbeat. It ends with the node, and sets the returned latch when the trackers know that.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start_heartbeat(shares: Arc<Shares>) -> Result<Arc<Latch>, ClientFault> {
    let ended = Arc::<Latch>::default();
    let told = Arc::clone(&ended);
    std::thread::Builder::new()
        .name("heartbeat".into())
        .spawn(move || {
            let mut withdrawn = BTreeSet::new();
            let mut beat = HeartbeatState::default();
            loop {
                withdraw_changed_files(&shares, &mut withdrawn);
                record_new_fingerprints(&shares);
                beat.send(&shares);
                let pause_ms = if beat.was_lost { limits::RECONNECT_FIRST_MS } else { limits::PING_EVERY_MS };
                if shares.core.shutdown.wait_timeout(Duration::from_millis(pause_ms)) {
                    if !beat.was_lost {
                        go_offline(&shares);
                    }
                    return told.set();
                }
            }
        })
        .map(|_| ended)
        .map_err(|error| ClientFault::no_thread(&error))
}

/// Tells the trackers that this node ends, so that they send no more peers to it.
fn go_offline(shares: &Shares) {
    let core = &shares.core;
    if core.trackers.user().is_none() || core.peer.started_engine().is_none() {
        return;
    }
    if let Err(fault) = core.trackers.request::<IgnoredAny>(Command::GoOffline, RequestUrgency::Background) {
        tracing::info!("the trackers do not know yet that this node ends: {fault}");
    }
}

/// What the last heartbeats have found.
#[derive(Default)]
struct HeartbeatState {
    /// No tracker was reached.
    was_lost: bool,
    /// The numbers of this node's shares, at the trackers and announced, that were found to differ last.
    checked: Option<(u64, u64)>,
    /// How the tracker stood to the login.
    standing: TrackerStanding,
    /// Why the tracker refused the last heartbeat. It is posted once.
    refusal: Option<String>,
}

impl HeartbeatState {
    /// Sends one heartbeat. The loss of the trackers and their return are each posted once, and so is a tracker that does not
    /// know the login, or has an older state.
    fn send(&mut self, shares: &Shares) {
        let core = &shares.core;
        let Some(user) = core.trackers.user().filter(|_| core.peer.started_engine().is_some()) else {
            *self = HeartbeatState::default();
            return;
        };
        // Counted before the request: what is announced later, the answer may not count.
        let announced = shares.table.count_announced(&user);
        let answer = core.trackers.request::<PingAnswer>(Command::Ping, RequestUrgency::Background);
        match answer {
            Ok((answer, _)) => {
                core.trackers.learn_ping(&answer);
                let counts = answer.shares.map(|known| (known, announced)).filter(|(known, own)| known < own);
                if counts.is_some() && counts != self.checked {
                    announce_again(shares, &user);
                }
                self.checked = counts;
                if std::mem::take(&mut self.was_lost) {
                    core.notices.post("the trackers are back");
                }
                self.refusal = None;
            }
            Err(fault) if fault.exit == ExitCause::NoTracker => {
                if !std::mem::replace(&mut self.was_lost, true) {
                    core.notices.post(&format!("{fault}; trying again"));
                }
            }
            Err(fault) => {
                self.was_lost = false;
                let refusal = Some(fault.to_string());
                if refusal != self.refusal && !core.trackers.standing().is_behind() {
                    core.notices.post(&format!("the trackers do not know that this node is there: {fault}"));
                }
                self.refusal = refusal;
            }
        }
        self.note_standing(shares, core.trackers.standing());
    }

    fn note_standing(&mut self, shares: &Shares, now: TrackerStanding) {
        let core = &shares.core;
        let before = std::mem::replace(&mut self.standing, now);
        if std::mem::discriminant(&before) == std::mem::discriminant(&self.standing) {
            return;
        }
        match self.standing.unknown_reason() {
            Some(reason) => core.notices.post(&format!(
                "{reason}; the login and all shares and downloads are kept here, and told again as soon as it can be"
            )),
            None => {
                core.notices.post("the tracker knows this login and its shares again");
                // What waits for its next attempt is told now.
                core.recovery_wakeup.set();
            }
        }
    }
}
