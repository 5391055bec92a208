//! The node's pulse: tells the trackers every few seconds that it is there, and where, and looks whether what it shares
//! is still what it was.
//!
//! Invariant: only a node that listens has a pulse, so that nobody is sent to one that does not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracker::api::answers::PingAnswer;
use tracker::api::request::Command;

use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::node::core::NodeCore;
use crate::node::shares;
use crate::node::trackers::RequestUrgency;

/// Starts the pulse; it ends with the node.
///
/// # Errors
/// A fault when the system gives no thread.
pub(super) fn start_heartbeat(core: Arc<NodeCore>) -> Result<(), ClientFault> {
    std::thread::Builder::new()
        .name("pulse".into())
        .spawn(move || {
            let mut was_lost = false;
            let mut withdrawn = BTreeSet::new();
            loop {
                shares::withdraw_changed_files(&core, &mut withdrawn);
                was_lost = send_heartbeat(&core, was_lost);
                let pause = if was_lost { limits::RECONNECT_FIRST_MS } else { limits::PING_EVERY_MS };
                if core.shutdown.wait_timeout(Duration::from_millis(pause)) {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(|error| ClientFault::no_thread(&error))
}

/// One beat; whether the trackers are lost now. Losing and finding them is told once each.
fn send_heartbeat(core: &NodeCore, was_lost: bool) -> bool {
    if core.peer.started_engine().is_none() || core.trackers.user().is_none() {
        return false;
    }
    match core.trackers.request::<PingAnswer>(Command::Ping, RequestUrgency::Background) {
        Ok((answer, _)) => {
            core.trackers.learn_time(answer.server_time);
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
