//! `serve`: the node without a prompt, for services.

use std::time::Duration;

use super::door;
use crate::clock;
use crate::exit::{Exit, Fault};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::node::Running;
use crate::node::state::StateDir;
use crate::plan::Plan;
use crate::render::Screen;

/// Is the node until a signal or `client quit` ends it. Prints `node listening on IP:PORT` once it is ready.
pub(super) fn run(plan: &Plan, screen: &mut Screen, interrupt: &Interrupt) -> Result<(), Fault> {
    let lock = lock(plan)?;
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
    running.troubles().iter().for_each(|trouble| screen.note(trouble));
    door::tell_notices(&running, plan)?;
    running.bring_back(true)?;
    running.wait();
    interrupt.take();
    running.finish();
    Ok(())
}

/// Takes the lock; waits for a node that is just ending, as one that was killed is for a moment.
fn lock(plan: &Plan) -> Result<StateDir, Fault> {
    let directory = plan.node.state.display();
    let deadline = clock::now() + Duration::from_millis(limits::NODE_START_WAIT_MS);
    loop {
        if let Some(lock) = StateDir::lock(&plan.node.state)? {
            return Ok(lock);
        }
        if let Some(link) = door::running_node(plan)? {
            return Err(occupied(format!("a node runs in {directory} already, as process {}", link.pid())));
        }
        if clock::now() >= deadline {
            return Err(occupied(format!("another process is the node of {directory}, but does not answer")));
        }
        // It is starting or ending: there is nothing to wait on but time.
        std::thread::park_timeout(Duration::from_millis(limits::NODE_START_RETRY_MS));
    }
}

fn occupied(who: String) -> Fault {
    Fault::new(Exit::Exists, who)
        .fix("`client quit` ends it; `--state DIR` gives another node a place of its own")
}
