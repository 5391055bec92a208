//! Access to the node of the state directory: connects to the process that runs it, or runs it in this process.
//!
//! The process that gets the lock is the node, and all others connect to it. A front end never becomes a node later.

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
use crate::printable::show_path;
use crate::render::Screen;
use crate::signals::SignalHandler;

pub(crate) enum NodeAccess {
    OtherProcess,
    ThisProcess(NodeRuntime),
}

impl NodeAccess {
    /// Connects to the running node, or starts a node in this process.
    ///
    /// # Errors
    /// When neither is possible, or when node options were given although a node runs already.
    pub(crate) fn open(plan: &ClientPlan) -> Result<(NodeAccess, NodeConnection), ClientFault> {
        let deadline = clock::now() + Duration::from_millis(limits::NODE_START_WAIT_MS);
        loop {
            if let Some(connection) = connect_running_node(plan)? {
                refuse_node_options(plan, connection.pid())?;
                return Ok((NodeAccess::OtherProcess, connection));
            }
            if let Some(lock) = StateDir::lock(&plan.node.state)? {
                let node = NodeRuntime::start(plan.node.clone(), lock)?;
                let connection = node.connect()?;
                return Ok((NodeAccess::ThisProcess(node), connection));
            }
            if clock::now() >= deadline {
                let message = format!(
                    "another process runs the node of {}, but it does not answer",
                    show_path(&plan.node.state)
                );
                return Err(ClientFault::new(ExitCause::Other, message)
                    .fix("find it with `ps` and stop it, or use another `--state DIR`"));
            }
            // The node is starting or shutting down, which raises no event, so this polls.
            std::thread::park_timeout(Duration::from_millis(limits::NODE_START_RETRY_MS));
        }
    }

    /// After an upload by a node in this process: shares until Ctrl-C.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn keep_sharing(
        &self,
        plan: &ClientPlan,
        screen: &mut Screen,
        signals: &SignalHandler,
    ) -> Result<(), ClientFault> {
        if let NodeAccess::ThisProcess(node) = self {
            screen.show_note("sharing until Ctrl-C (`client serve` shares in the background)");
            show_notices(node, plan)?;
            node.start_recovery(true)?;
            let shutdown = node.shutdown_latch();
            signals.on_signal(move || shutdown.set());
            node.wait_for_shutdown();
            signals.take_signal();
        }
        Ok(())
    }

    /// Resumes this node's shares for the time of an upload or download, since the trackers send peers here.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn resume_shares(&self) -> Result<(), ClientFault> {
        match self {
            NodeAccess::ThisProcess(node) => node.start_recovery(false),
            NodeAccess::OtherProcess => Ok(()),
        }
    }

    /// Ends the node of this process once attached front ends have their answers; a signal ends it at once.
    pub(crate) fn close(self, signals: &SignalHandler) {
        if let NodeAccess::ThisProcess(node) = self {
            let shutdown = node.shutdown_latch();
            signals.on_signal(move || shutdown.set());
            node.shut_down();
        }
    }
}

/// Prints the notices of a node in this process until the process ends.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn show_notices(node: &NodeRuntime, plan: &ClientPlan) -> Result<(), ClientFault> {
    let (notices, output) = (node.subscribe_notices(), plan.output);
    std::thread::Builder::new()
        .name("notices".into())
        .spawn(move || {
            notices.into_iter().for_each(|text| Screen::new(output).show_event(&NodeEvent::Notice { text }));
        })
        .map(drop)
        .map_err(|error| ClientFault::no_thread(&error))
}

/// Connects to the running node; `None` if no node runs.
///
/// # Errors
/// When something other than a node of this version answers, or this user has no access.
pub(crate) fn connect_running_node(plan: &ClientPlan) -> Result<Option<NodeConnection>, ClientFault> {
    let stream = match state_dir::connect_node(&plan.node.state) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(state_dir::unusable_fault(&plan.node.state, &error)),
    };
    match NodeConnection::handshake(stream) {
        Ok(connection) => Ok(Some(connection)),
        Err(HandshakeError::NodeEnding) => Ok(None),
        Err(HandshakeError::Fault(fault)) => Err(fault),
    }
}

/// Refuses node options when another process is the node.
///
/// # Errors
/// A usage error that names the options.
pub(super) fn refuse_node_options(plan: &ClientPlan, pid: u32) -> Result<(), ClientFault> {
    if plan.typed_node_options.is_empty() || pid == std::process::id() {
        return Ok(());
    }
    let options = plan.typed_node_options.join(", ");
    let message = format!("{options} applies to the node, which already runs as process {pid}");
    let fix = "set it where that node is started (`client serve`, its service unit or the config file), and restart the node";
    Err(ClientFault::new(ExitCause::Usage, message).fix(fix))
}
