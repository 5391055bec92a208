//! The node's pulse: tells the trackers every few seconds that it is there, and where, and looks whether what it shares
//! is still what it was.
//!
//! Invariant: only a node that listens has a pulse, so that nobody is sent to one that does not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracker::api::answers::PingAnswer;
use tracker::api::request::Command;

use super::core::Core;
use super::shares;
use super::trackers::Urgency;
use crate::exit::{Exit, Fault};
use crate::limits;

/// Starts the pulse; it ends with the node.
///
/// # Errors
/// A fault when the system gives no thread.
pub(super) fn start(core: Arc<Core>) -> Result<(), Fault> {
    std::thread::Builder::new()
        .name("pulse".into())
        .spawn(move || {
            let mut was_lost = false;
            let mut withdrawn = BTreeSet::new();
            loop {
                shares::withdraw_changed(&core, &mut withdrawn);
                was_lost = beat(&core, was_lost);
                let pause = if was_lost { limits::RECONNECT_FIRST_MS } else { limits::PING_EVERY_MS };
                if core.ending.wait_for(Duration::from_millis(pause)) {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(|error| Fault::no_thread(&error))
}

/// One beat; whether the trackers are lost now. Losing and finding them is told once each.
fn beat(core: &Core, was_lost: bool) -> bool {
    if core.peer.running().is_none() || core.trackers.user().is_none() {
        return false;
    }
    match core.trackers.ask::<PingAnswer>(Command::Ping, Urgency::Background) {
        Ok((answer, _)) => {
            core.trackers.learn_time(answer.server_time);
            if was_lost {
                core.notices.tell("the trackers are back");
            }
            false
        }
        Err(fault) if fault.exit == Exit::NoTracker => {
            if !was_lost {
                core.notices.tell(&format!("{fault}; trying again"));
            }
            true
        }
        Err(fault) => {
            core.notices.tell(&format!("the trackers do not know that this node is there: {fault}"));
            false
        }
    }
}
