//! `serve`: the node without a prompt, as a service.

use std::time::Duration;

use super::node_access;
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::node::NodeRuntime;
use crate::node::state_dir::StateDir;
use crate::plan::ClientPlan;
use crate::render::Screen;
use crate::signals::SignalHandler;

/// Runs the node until a signal or `client quit`. Prints `node listening on IP:PORT` once it is ready.
pub(super) fn run_serve(
    plan: &ClientPlan,
    screen: &mut Screen,
    signals: &SignalHandler,
) -> Result<(), ClientFault> {
    let lock = lock_state_dir(plan)?;
    let running = NodeRuntime::start(plan.node.clone(), lock)?;
    let listen = running.listen_address()?;
    let ender = running.shutdown_latch();
    signals.on_signal(move || ender.set());
    if screen.is_json() {
        screen.print(&format!("{}\n", serde_json::json!({"event": "listening", "address": listen})));
    } else {
        screen.print(&format!("node listening on {listen}\n"));
    }
    for what in running.missing_requirements() {
        screen.show_note(&format!("waiting for {what}"));
    }
    running.record_problems().iter().for_each(|trouble| screen.show_note(trouble));
    node_access::show_notices(&running, plan)?;
    running.start_recovery(true)?;
    running.wait_for_shutdown();
    signals.take_signal();
    running.shut_down();
    Ok(())
}

/// Takes the lock; waits for an earlier node that is shutting down or was just killed.
fn lock_state_dir(plan: &ClientPlan) -> Result<StateDir, ClientFault> {
    let directory = plan.node.state.display();
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
            return Err(already_running_fault(format!(
                "another process runs the node of {directory}, but it does not answer"
            )));
        }
        // The other node is starting or shutting down, which raises no event, so this polls.
        std::thread::park_timeout(Duration::from_millis(limits::NODE_START_RETRY_MS));
    }
}

fn already_running_fault(who: String) -> ClientFault {
    ClientFault::new(ExitCause::Exists, who).fix("`client quit` ends it; `--state DIR` runs another node")
}
