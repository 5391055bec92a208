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
use super::trackers::RequestUrgency;
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
            let mut was_lost = false;
            let mut withdrawn = BTreeSet::new();
            let mut checked = None;
            loop {
                withdraw_changed_files(&shares, &mut withdrawn);
                record_new_fingerprints(&shares);
                was_lost = send_heartbeat(&shares, was_lost, &mut checked);
                let pause_ms = if was_lost { limits::RECONNECT_FIRST_MS } else { limits::PING_EVERY_MS };
                if shares.core.shutdown.wait_timeout(Duration::from_millis(pause_ms)) {
                    if !was_lost {
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

/// The numbers of a node's shares, at the trackers and announced by the node, that were found to differ last.
type ShareCounts = Option<(u64, u64)>;

/// Sends one heartbeat; whether the trackers are lost now. Their loss and their return are each posted once.
fn send_heartbeat(shares: &Shares, was_lost: bool, checked: &mut ShareCounts) -> bool {
    let core = &shares.core;
    let Some(user) = core.trackers.user().filter(|_| core.peer.started_engine().is_some()) else {
        return false;
    };
    // Counted before the request: what is announced later, the answer may not count.
    let announced = shares.table.count_announced(&user);
    match core.trackers.request::<PingAnswer>(Command::Ping, RequestUrgency::Background) {
        Ok((answer, _)) => {
            core.trackers.learn_time(answer.server_time);
            let counts = answer.shares.map(|known| (known, announced)).filter(|(known, own)| known < own);
            if counts.is_some() && counts != *checked {
                announce_again(shares, &user);
            }
            *checked = counts;
            if was_lost {
                core.notices.post("the trackers are back");
            }
            false
        }
        Err(fault) if fault.exit == ExitCause::NoTracker => {
            if !was_lost {
                core.notices.post(&format!("{fault}; trying again"));
            }
            true
        }
        Err(fault) => {
            core.notices.post(&format!("the trackers do not know that this node is there: {fault}"));
            false
        }
    }
}
