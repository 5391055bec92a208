//! Whether other nodes reach this one: the tracker calls it back, and the answer is kept for `status`.
//!
//! Always true: the check has a connection of its own, so that it delays no other request to the trackers.

use std::sync::Arc;

use engine::lock::lock;
use tracker::api::answers::CheckAddressAnswer;
use tracker::api::failure::FailureCode;
use tracker::api::request::Command;

use super::core::NodeCore;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::ReachabilityRow;

/// Has the tracker call this node back.
///
/// # Errors
/// No user is logged in, no tracker can be reached, or the tracker refuses.
pub(super) fn check_reachability(core: &NodeCore) -> Result<ReachabilityRow, ClientFault> {
    let command = Command::CheckAddress { peer_key: Some(core.peer.key()) };
    let answer: CheckAddressAnswer = core.trackers.request_separately(command)?;
    let problem = answer.problem.filter(|_| !answer.reached).map(|problem| problem.to_string());
    let row = ReachabilityRow { address: answer.address, reached: answer.reached, problem };
    *lock(&core.reachability) = Some(row.clone());
    Ok(row)
}

/// Checks on a thread of its own whether others reach this node, and posts the answer as a notice.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start_reachability_check(core: &Arc<NodeCore>) -> Result<(), ClientFault> {
    let core = Arc::clone(core);
    let check = move || match check_reachability(&core) {
        Ok(row) => core.notices.post(&row.describe()),
        // Other notices tell what is missing then; a tracker of an earlier version does not know the command.
        Err(fault) if is_expected(&fault) => tracing::info!("others may not reach this node: {fault}"),
        Err(fault) => core.notices.post(&format!("whether others reach this node is not known: {fault}")),
    };
    let thread = std::thread::Builder::new().name("reachability".into()).spawn(check);
    thread.map(drop).map_err(|error| ClientFault::no_thread(&error))
}

fn is_expected(fault: &ClientFault) -> bool {
    matches!(fault.exit, ExitCause::NoTracker | ExitCause::NotLoggedIn)
        || fault.refusal_code == Some(FailureCode::UnknownCommand)
}
