//! `serve`, `status` and `quit`: runs the node as a service, shows its state, stops it.

use std::time::Duration;

use super::node_access;
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeRequest;
use crate::limits;
use crate::node::NodeRuntime;
use crate::node::state_dir::StateDir;
use crate::plan::ClientPlan;
use crate::printable::show_path;
use crate::render::Screen;
use crate::signals::SignalHandler;

/// Runs the node until a signal or `client quit`. Prints `node listening on IP:PORT` once it is ready.
pub(super) fn run_serve(
    plan: &ClientPlan,
    screen: &mut Screen,
    signals: &SignalHandler,
) -> Result<(), ClientFault> {
    signals.ignore_hangup();
    let lock = lock_state_dir(plan)?;
    let node = NodeRuntime::start(plan.node.clone(), lock)?;
    let listen = node.listen_address()?;
    let shutdown = node.shutdown_latch();
    signals.on_signal(move || shutdown.set());
    if screen.is_json() {
        screen.print(&format!("{}\n", serde_json::json!({"event": "listening", "address": listen})));
    } else {
        screen.print(&format!("node listening on {listen}\n"));
    }
    for what in node.missing_requirements() {
        screen.show_note(&format!("waiting for {what}"));
    }
    node.record_problems().iter().for_each(|problem| screen.show_note(problem));
    node_access::show_notices(&node, plan)?;
    node.start_recovery(true)?;
    node.start_reachability_check()?;
    node.wait_for_shutdown();
    signals.take_signal();
    node.shut_down();
    Ok(())
}

/// Takes the lock; waits for an earlier node that is shutting down or was just killed.
fn lock_state_dir(plan: &ClientPlan) -> Result<StateDir, ClientFault> {
    let directory = show_path(&plan.node.state);
    let deadline = clock::now() + Duration::from_millis(limits::NODE_START_WAIT_MS);
    loop {
        if let Some(lock) = StateDir::lock(&plan.node.state)? {
            return Ok(lock);
        }
        if let Some(connection) = node_access::connect_running_node(plan)? {
            return Err(already_running_fault(format!(
                "a node already runs in {directory}, as process {}",
                connection.pid()
            )));
        }
        if clock::now() >= deadline {
            let message = format!("another process runs the node of {directory}, but it does not answer");
            return Err(ClientFault::new(ExitCause::Exists, message)
                .fix("find it with `ps` and stop it, or use another `--state DIR`"));
        }
        // The other node is starting or shutting down, which raises no event, so this polls.
        std::thread::park_timeout(Duration::from_millis(limits::NODE_START_RETRY_MS));
    }
}

fn already_running_fault(message: String) -> ClientFault {
    ClientFault::new(ExitCause::Exists, message).fix("`client quit` ends it; `--state DIR` runs another node")
}

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
        ClientFault::new(ExitCause::Other, format!("no node runs in {}", show_path(&plan.node.state)))
            .fix("`client serve` starts one; `--state DIR` selects another state directory")
    })?;
    node_access::refuse_node_options(plan, connection.pid())?;
    let answer = connection.request(request, &mut |_| Ok(()))?;
    screen.show_answer(&answer);
    Ok(())
}
