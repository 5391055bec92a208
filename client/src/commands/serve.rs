//! `serve`: the node without a prompt, for services.

use super::door;
use crate::exit::{Exit, Fault};
use crate::interrupt::Interrupt;
use crate::node::Running;
use crate::node::state::StateDir;
use crate::plan::Plan;
use crate::render::Screen;

/// What whoever restarts a node has to know.
const FORGETFUL: &str =
    "shares and downloads are forgotten when this node ends: give their commands again after a restart";

/// Is the node until a signal or `client quit` ends it. Prints `node listening on IP:PORT` once it is ready.
pub(super) fn run(plan: &Plan, screen: &mut Screen, interrupt: &Interrupt) -> Result<(), Fault> {
    let Some(lock) = StateDir::lock(&plan.node.state)? else { return Err(occupied(plan)) };
    let running = Running::start(plan.node.clone(), lock)?;
    let listen = running.listen()?;
    let ender = running.ender();
    interrupt.on_signal(move || ender.end());
    if screen.is_json() {
        screen.print(&format!("{}\n", serde_json::json!({"event": "listening", "address": listen})));
    } else {
        screen.print(&format!("node listening on {listen}\n"));
    }
    for what in running.waits_for() {
        screen.note(&format!("waiting for {what}"));
    }
    screen.note(FORGETFUL);
    running.wait();
    interrupt.take();
    running.finish();
    Ok(())
}

fn occupied(plan: &Plan) -> Fault {
    let directory = plan.node.state.display();
    let who = match door::running_node(plan) {
        Ok(Some(link)) => format!("a node runs in {directory} already, as process {}", link.pid()),
        _ => format!("another process is the node of {directory}"),
    };
    Fault::new(Exit::Exists, who)
        .fix("`client quit` ends it; `--state DIR` gives another node a place of its own")
}
