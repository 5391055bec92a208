//! `status` and `quit`: requests to a running node only.

use super::node_access;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeRequest;
use crate::plan::ClientPlan;
use crate::render::Screen;

/// Shows the node's state. Exit 0 if a node answers, 2 for node options, else 1.
pub(super) fn run_status(plan: &ClientPlan, screen: &mut Screen) -> Result<(), ClientFault> {
    request_running_node(plan, screen, &NodeRequest::Status).map_err(|fault| match fault.exit {
        ExitCause::Usage => fault,
        _ => ClientFault { exit: ExitCause::Other, ..fault },
    })
}

/// Stops the node.
pub(super) fn run_quit(plan: &ClientPlan, screen: &mut Screen) -> Result<(), ClientFault> {
    request_running_node(plan, screen, &NodeRequest::Stop)
}

fn request_running_node(
    plan: &ClientPlan,
    screen: &mut Screen,
    request: &NodeRequest,
) -> Result<(), ClientFault> {
    let mut connection = node_access::connect_running_node(plan)?.ok_or_else(|| {
        ClientFault::new(ExitCause::Other, format!("no node runs in {}", plan.node.state.display()))
            .fix("`client serve` starts one; `--state DIR` selects another state directory")
    })?;
    node_access::refuse_node_options(plan, connection.pid())?;
    let answer = connection.request(request, &mut |_| Ok(()))?;
    screen.show_answer(&answer);
    Ok(())
}
