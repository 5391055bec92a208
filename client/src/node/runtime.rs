//! A node that runs in this process: started, waited for, ended.
//!
//! Invariant: the socket is gone before the lock is given back, so nobody connects to a node that is ending.

use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::NodeConnection;
use crate::node::core::NodeCore;
use crate::node::disk::state_dir::StateDir;
use crate::node::downloads::DownloadTable;
use crate::node::heartbeat;
use crate::node::recovery::NodeRecovery;
use crate::node::serve::requests::RequestHandler;
use crate::node::serve::socket::{self, FrontEnds};
use crate::node::shutdown::ShutdownLatch;
use crate::plan::NodePlan;

/// The node that this process is.
pub(crate) struct NodeRuntime {
    requests: Arc<RequestHandler>,
    front_ends: Arc<FrontEnds>,
    listener: UnixListener,
    recovery: Arc<NodeRecovery>,
}

impl NodeRuntime {
    /// Starts the node of a state directory. Its engine starts when it is first needed.
    ///
    /// # Errors
    /// A fault when the state directory or the system does not give what it takes.
    pub(crate) fn start(plan: NodePlan, state: StateDir) -> Result<NodeRuntime, ClientFault> {
        raise_descriptor_limit();
        let listener = state.listen()?;
        let core = Arc::new(NodeCore::new(plan, state)?);
        let downloads = Arc::new(DownloadTable::load(&core.records));
        let desk = Arc::new(RequestHandler::new(Arc::clone(&core), downloads));
        let fronts = Arc::<FrontEnds>::default();
        let accepting = listener.try_clone().map_err(|error| no_descriptor_fault(&error))?;
        socket::accept_front_ends(accepting, Arc::clone(&desk), Arc::clone(&fronts))?;
        heartbeat::start_heartbeat(core)?;
        Ok(NodeRuntime { requests: desk, front_ends: fronts, listener, recovery: Arc::default() })
    }

    /// A connection from this process: the same as from any other.
    ///
    /// # Errors
    /// When the system has no more descriptors or threads.
    pub(crate) fn connect(&self) -> Result<NodeConnection, ClientFault> {
        let (front, node) = UnixStream::pair().map_err(|error| no_descriptor_fault(&error))?;
        socket::serve_front_end(node, &self.requests, &self.front_ends)?;
        Ok(NodeConnection::handshake(front)?)
    }

    /// Where peers connect; starts the engine.
    ///
    /// # Errors
    /// A fault when the engine does not start.
    pub(crate) fn listen_address(&self) -> Result<SocketAddr, ClientFault> {
        self.requests.core.peer.engine().map(|engine| engine.listen_address())
    }

    /// Brings back the shares of whoever is logged in here, now and after each login; `downloads` too, where this node
    /// stays and does not end with a command.
    ///
    /// # Errors
    /// A fault when the system gives no thread.
    pub(crate) fn start_recovery(&self, downloads: bool) -> Result<(), ClientFault> {
        self.recovery.start(&self.requests.core, &self.requests.downloads, downloads)
    }

    /// What the node says without being asked, from now on.
    pub(crate) fn subscribe_notices(&self) -> Receiver<String> {
        self.requests.core.notices.subscribe()
    }

    /// What could not be brought back, with what to do about it.
    pub(crate) fn record_problems(&self) -> Vec<String> {
        self.requests.core.records.problems()
    }

    /// What the node lacks, in words.
    pub(crate) fn missing_requirements(&self) -> Vec<String> {
        self.requests.waits_for()
    }

    /// What ends the node, for a signal.
    pub(crate) fn shutdown_latch(&self) -> Arc<ShutdownLatch> {
        Arc::clone(&self.requests.core.shutdown)
    }

    /// Waits until the node is to end.
    pub(crate) fn wait_for_shutdown(&self) {
        self.requests.core.shutdown.wait();
    }

    /// Takes nobody any more, lets those who wait for an answer have it (unless the node is to end), and ends.
    pub(crate) fn shut_down(self) {
        let core = &self.requests.core;
        core.state_dir.remove_socket();
        // The thread that accepts wakes with an error; without this it would sleep until the process ends.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        self.front_ends.wait_until_idle(&core.shutdown);
        core.shutdown.set();
        core.recovery_wakeup.set();
        core.peer.stop();
    }
}

/// Lets this process have as many descriptors as it may: each share holds one, and the usual soft limit of 1,024 is there
/// for programs that cannot count further.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::info!("the limit of descriptors stays at {:?}: {error}", limit.current);
    }
}

fn no_descriptor_fault(error: &std::io::Error) -> ClientFault {
    ClientFault::new(ExitCause::LocalIo, format!("no descriptor left: {error}")).fix("raise `ulimit -n`")
}
