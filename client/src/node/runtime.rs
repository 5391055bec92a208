//! The node that runs in this process: starts it, connects to it, ends it.
//!
//! Always true: the socket is removed before the lock of the state directory is given back, so that no front
//! end connects to a node that is ending.

use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::core::NodeCore;
use super::disk::state_dir::StateDir;
use super::downloads::Downloads;
use super::heartbeat::start_heartbeat;
use super::reachability;
use super::recovery::NodeRecovery;
use super::serve::requests::RequestHandler;
use super::serve::socket::{self, FrontEnds};
use super::shares::Shares;
use super::shutdown::Latch;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::NodeConnection;
use crate::limits;
use crate::plan::NodePlan;

/// A running node.
pub(crate) struct NodeRuntime {
    core: Arc<NodeCore>,
    requests: Arc<RequestHandler>,
    front_ends: Arc<FrontEnds>,
    listener: UnixListener,
    recovery: Arc<NodeRecovery>,
    /// Set when the trackers know that this node has ended.
    heartbeat_ended: Arc<Latch>,
}

impl NodeRuntime {
    /// Starts the node of a state directory. Its engine starts when it is first needed.
    ///
    /// # Errors
    /// The socket, the node's key or a thread cannot be had.
    pub(crate) fn start(plan: NodePlan, state: StateDir) -> Result<NodeRuntime, ClientFault> {
        raise_descriptor_limit();
        let listener = state.listen()?;
        let core = Arc::new(NodeCore::new(plan, state)?);
        let shares = Arc::new(Shares::load(Arc::clone(&core)));
        let downloads = Arc::new(Downloads::load(Arc::clone(&shares)));
        let recovery = Arc::new(NodeRecovery::new(Arc::clone(&downloads)));
        let requests = Arc::new(RequestHandler::new(Arc::clone(&core), downloads));
        let front_ends = Arc::<FrontEnds>::default();
        let accepting = listener.try_clone().map_err(|error| no_descriptor_fault(&error))?;
        socket::accept_front_ends(accepting, Arc::clone(&requests), Arc::clone(&front_ends))?;
        let heartbeat_ended = start_heartbeat(shares)?;
        Ok(NodeRuntime { core, requests, front_ends, listener, recovery, heartbeat_ended })
    }

    /// A connection from this process, like that of any other front end.
    ///
    /// # Errors
    /// The system gives no descriptor or no thread.
    pub(crate) fn connect(&self) -> Result<NodeConnection, ClientFault> {
        let (front_end, node) = UnixStream::pair().map_err(|error| no_descriptor_fault(&error))?;
        socket::serve_front_end(node, &self.requests, &self.front_ends)?;
        Ok(NodeConnection::handshake(front_end)?)
    }

    /// The address where peers connect. Starts the engine.
    ///
    /// # Errors
    /// The engine does not start.
    pub(crate) fn listen_address(&self) -> Result<SocketAddr, ClientFault> {
        self.core.peer.engine().map(|engine| engine.listen_address())
    }

    /// Restores the shares of the user who is logged in, now and after each login. Resumes downloads too if
    /// `includes_downloads`: the node does not end with its command.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start_recovery(&self, includes_downloads: bool) -> Result<(), ClientFault> {
        self.recovery.start(includes_downloads)
    }

    /// The notices of the node from now on.
    pub(crate) fn subscribe_notices(&self) -> Receiver<String> {
        self.core.notices.subscribe()
    }

    /// The records that could not be read, with what to do about each.
    pub(crate) fn record_problems(&self) -> Vec<String> {
        self.core.records.problems()
    }

    /// What the node lacks, in words.
    pub(crate) fn missing_requirements(&self) -> Vec<String> {
        self.requests.waits_for()
    }

    /// The latch that ends the node, for a signal handler.
    pub(crate) fn shutdown_latch(&self) -> Arc<Latch> {
        Arc::clone(&self.core.shutdown)
    }

    /// Has the tracker call this node back, and posts whether others reach it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start_reachability_check(&self) -> Result<(), ClientFault> {
        reachability::start_reachability_check(&self.core)
    }

    /// Waits until the node is to end.
    pub(crate) fn wait_for_shutdown(&self) {
        self.core.shutdown.wait();
    }

    /// Ends the node. Front ends that wait for an answer get it first, unless the node is shutting down
    /// already. The trackers are told, if they answer soon.
    pub(crate) fn shut_down(self) {
        self.core.state_dir.remove_socket();
        // Ends the thread that accepts, which would sleep until the process ends.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        self.front_ends.wait_until_idle(&self.core.shutdown);
        self.core.shutdown.set();
        self.core.recovery_wakeup.set();
        self.heartbeat_ended.wait_timeout(Duration::from_millis(limits::GOODBYE_WAIT_MS));
        self.core.peer.stop();
    }
}

/// Raises the soft limit of open files to the hard one: each connection and each file that is being fetched or
/// served holds a descriptor. The usual soft limit of 1,024 is for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::info!("the limit of descriptors stays at {:?}: {error}", limit.current);
    }
}

fn no_descriptor_fault(error: &std::io::Error) -> ClientFault {
    ClientFault::new(ExitCause::LocalIo, format!("no descriptor left: {error}")).fix("raise `ulimit -n`")
}
