//! The way to a node: the one that runs in the state directory, or this process, which becomes it.
//!
//! Invariant: whoever gets the lock is the node; everybody else connects to it. A front end never becomes a node
//! half-way.

use std::io::ErrorKind;
use std::time::Duration;

use crate::clock;
use crate::exit::{Exit, Fault};
use crate::front::link::{NoGreeting, NodeLink};
use crate::front::protocol::Event;
use crate::interrupt::Interrupt;
use crate::limits;
use crate::node::Running;
use crate::node::state::{self, StateDir};
use crate::plan::Plan;
use crate::render::Screen;

/// Where the node is.
pub(crate) enum Door {
    /// Another process.
    Outside,
    /// This process.
    Inside(Running),
}

impl Door {
    /// Finds the node of the state directory, or becomes it.
    ///
    /// # Errors
    /// A fault when neither can be done, or when options of the node were typed for a node that runs already.
    pub(crate) fn open(plan: &Plan) -> Result<(Door, NodeLink), Fault> {
        let deadline = clock::now() + Duration::from_millis(limits::NODE_START_WAIT_MS);
        loop {
            if let Some(link) = running_node(plan)? {
                refuse_node_options(plan, link.pid())?;
                return Ok((Door::Outside, link));
            }
            if let Some(lock) = StateDir::lock(&plan.node.state)? {
                let running = Running::start(plan.node.clone(), lock)?;
                let link = running.link()?;
                return Ok((Door::Inside(running), link));
            }
            if clock::now() >= deadline {
                let message = format!(
                    "another process is the node of {}, but does not answer",
                    plan.node.state.display()
                );
                return Err(Fault::new(Exit::Other, message)
                    .fix("see with `ps` what it does and end it, or use another `--state DIR`"));
            }
            // The node is starting or ending: there is nothing to wait on but time.
            std::thread::park_timeout(Duration::from_millis(limits::NODE_START_RETRY_MS));
        }
    }

    /// After an upload by a process that is its own node: shares until Ctrl-C, and says so.
    ///
    /// # Errors
    /// A fault when the system gives no thread.
    pub(crate) fn keep_sharing(
        &self,
        plan: &Plan,
        screen: &mut Screen,
        interrupt: &Interrupt,
    ) -> Result<(), Fault> {
        if let Door::Inside(running) = self {
            screen.note("sharing until Ctrl-C (`client serve` shares in the background)");
            tell_notices(running, plan)?;
            running.bring_back(true)?;
            let ender = running.ender();
            interrupt.on_signal(move || ender.end());
            running.wait();
            interrupt.take();
        }
        Ok(())
    }

    /// For a command that moves bytes: a process that is the node while it lasts shares what this node has meanwhile,
    /// since the trackers send peers to it.
    ///
    /// # Errors
    /// A fault when the system gives no thread.
    pub(crate) fn share_meanwhile(&self) -> Result<(), Fault> {
        match self {
            Door::Inside(running) => running.bring_back(false),
            Door::Outside => Ok(()),
        }
    }

    /// Leaves. A node of one command ends when those that have attached to it are done; a signal ends it at once.
    pub(crate) fn close(self, interrupt: &Interrupt) {
        if let Door::Inside(running) = self {
            let hurry = running.ender();
            interrupt.on_signal(move || hurry.end());
            running.finish();
        }
    }
}

/// Shows what a node of this process says without being asked, until the process ends.
///
/// # Errors
/// A fault when the system gives no thread.
pub(crate) fn tell_notices(running: &Running, plan: &Plan) -> Result<(), Fault> {
    let (heard, output) = (running.hear(), plan.output);
    std::thread::Builder::new()
        .name("notices".into())
        .spawn(move || {
            heard.into_iter().for_each(|text| Screen::new(output).event(&Event::Notice { text }));
        })
        .map(drop)
        .map_err(|error| Fault::no_thread(&error))
}

/// A connection to the node that runs in the state directory, if one does.
///
/// # Errors
/// A fault when something else than a node of this version answers, or when this user may not ask.
pub(crate) fn running_node(plan: &Plan) -> Result<Option<NodeLink>, Fault> {
    let stream = match state::connect(&plan.node.state) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(state::unusable(&plan.node.state, &error)),
    };
    match NodeLink::over(stream) {
        Ok(link) => Ok(Some(link)),
        Err(NoGreeting::Ending) => Ok(None),
        Err(NoGreeting::Fault(fault)) => Err(fault),
    }
}

/// Refuses options of the node that were typed for a node which runs already, in another process than this one.
///
/// # Errors
/// A usage fault that names them.
pub(super) fn refuse_node_options(plan: &Plan, pid: u32) -> Result<(), Fault> {
    if plan.typed_node_options.is_empty() || pid == std::process::id() {
        return Ok(());
    }
    let options = plan.typed_node_options.join(", ");
    let message = format!("{options} is for the node, which runs already as process {pid}");
    let fix =
        "set it where that node is started (`client serve`, its unit or the config file), and start it again";
    Err(Fault::new(Exit::Usage, message).fix(fix))
}
