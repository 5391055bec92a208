//! The way to a node: the one that runs in the state directory, or this process, which becomes it.
//!
//! Invariant: whoever gets the lock is the node; everybody else connects to it. A front end never becomes a node
//! half-way.

use std::io::ErrorKind;
use std::time::Duration;

use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::{HandshakeError, NodeConnection};
use crate::ipc::protocol::NodeEvent;
use crate::limits;
use crate::node::NodeRuntime;
use crate::node::state_dir::{self, StateDir};
use crate::plan::ClientPlan;
use crate::render::Screen;
use crate::signals::SignalHandler;

/// Where the node is.
pub(crate) enum NodeAccess {
    /// Another process.
    OtherProcess,
    /// This process.
    ThisProcess(NodeRuntime),
}

impl NodeAccess {
    /// Finds the node of the state directory, or becomes it.
    ///
    /// # Errors
    /// A fault when neither can be done, or when options of the node were typed for a node that runs already.
    pub(crate) fn open(plan: &ClientPlan) -> Result<(NodeAccess, NodeConnection), ClientFault> {
        let deadline = clock::now() + Duration::from_millis(limits::NODE_START_WAIT_MS);
        loop {
            if let Some(link) = connect_running_node(plan)? {
                refuse_node_options(plan, link.pid())?;
                return Ok((NodeAccess::OtherProcess, link));
            }
            if let Some(lock) = StateDir::lock(&plan.node.state)? {
                let running = NodeRuntime::start(plan.node.clone(), lock)?;
                let link = running.connect()?;
                return Ok((NodeAccess::ThisProcess(running), link));
            }
            if clock::now() >= deadline {
                let message = format!(
                    "another process is the node of {}, but does not answer",
                    plan.node.state.display()
                );
                return Err(ClientFault::new(ExitCause::Other, message)
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
        plan: &ClientPlan,
        screen: &mut Screen,
        interrupt: &SignalHandler,
    ) -> Result<(), ClientFault> {
        if let NodeAccess::ThisProcess(running) = self {
            screen.show_note("sharing until Ctrl-C (`client serve` shares in the background)");
            show_notices(running, plan)?;
            running.start_recovery(true)?;
            let ender = running.shutdown_latch();
            interrupt.on_signal(move || ender.set());
            running.wait_for_shutdown();
            interrupt.take_signal();
        }
        Ok(())
    }

    /// For a command that moves bytes: a process that is the node while it lasts shares what this node has meanwhile,
    /// since the trackers send peers to it.
    ///
    /// # Errors
    /// A fault when the system gives no thread.
    pub(crate) fn resume_shares(&self) -> Result<(), ClientFault> {
        match self {
            NodeAccess::ThisProcess(running) => running.start_recovery(false),
            NodeAccess::OtherProcess => Ok(()),
        }
    }

    /// Leaves. A node of one command ends when those that have attached to it are done; a signal ends it at once.
    pub(crate) fn close(self, interrupt: &SignalHandler) {
        if let NodeAccess::ThisProcess(running) = self {
            let hurry = running.shutdown_latch();
            interrupt.on_signal(move || hurry.set());
            running.shut_down();
        }
    }
}

/// Shows what a node of this process says without being asked, until the process ends.
///
/// # Errors
/// A fault when the system gives no thread.
pub(crate) fn show_notices(running: &NodeRuntime, plan: &ClientPlan) -> Result<(), ClientFault> {
    let (heard, output) = (running.subscribe_notices(), plan.output);
    std::thread::Builder::new()
        .name("notices".into())
        .spawn(move || {
            heard.into_iter().for_each(|text| Screen::new(output).show_event(&NodeEvent::Notice { text }));
        })
        .map(drop)
        .map_err(|error| ClientFault::no_thread(&error))
}

/// A connection to the node that runs in the state directory, if one does.
///
/// # Errors
/// A fault when something else than a node of this version answers, or when this user may not ask.
pub(crate) fn connect_running_node(plan: &ClientPlan) -> Result<Option<NodeConnection>, ClientFault> {
    let stream = match state_dir::connect_node(&plan.node.state) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(state_dir::unusable_fault(&plan.node.state, &error)),
    };
    match NodeConnection::handshake(stream) {
        Ok(link) => Ok(Some(link)),
        Err(HandshakeError::NodeEnding) => Ok(None),
        Err(HandshakeError::Fault(fault)) => Err(fault),
    }
}

/// Refuses options of the node that were typed for a node which runs already, in another process than this one.
///
/// # Errors
/// A usage fault that names them.
pub(super) fn refuse_node_options(plan: &ClientPlan, pid: u32) -> Result<(), ClientFault> {
    if plan.typed_node_options.is_empty() || pid == std::process::id() {
        return Ok(());
    }
    let options = plan.typed_node_options.join(", ");
    let message = format!("{options} is for the node, which runs already as process {pid}");
    let fix =
        "set it where that node is started (`client serve`, its unit or the config file), and start it again";
    Err(ClientFault::new(ExitCause::Usage, message).fix(fix))
}
