//! A node that runs in this process: started, waited for, ended.
//!
//! Invariant: the socket is gone before the lock is given back, so nobody connects to a node that is ending.

use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::comeback::Comeback;
use super::core::Core;
use super::desk::Desk;
use super::downloads::Downloads;
use super::ending::Ending;
use super::pulse;
use super::socket::{self, Fronts};
use super::state::StateDir;
use crate::exit::{Exit, Fault};
use crate::front::link::NodeLink;
use crate::plan::NodePlan;

/// The node that this process is.
pub(crate) struct Running {
    desk: Arc<Desk>,
    fronts: Arc<Fronts>,
    listener: UnixListener,
    comeback: Arc<Comeback>,
}

impl Running {
    /// Starts the node of a state directory. Its engine starts when it is first needed.
    ///
    /// # Errors
    /// A fault when the state directory or the system does not give what it takes.
    pub(crate) fn start(plan: NodePlan, state: StateDir) -> Result<Running, Fault> {
        raise_descriptors();
        let listener = state.listen()?;
        let core = Arc::new(Core::new(plan, state)?);
        let downloads = Arc::new(Downloads::on_record(&core.records));
        let desk = Arc::new(Desk::new(Arc::clone(&core), downloads));
        let fronts = Arc::<Fronts>::default();
        let accepting = listener.try_clone().map_err(|error| no_descriptor(&error))?;
        socket::accept(accepting, Arc::clone(&desk), Arc::clone(&fronts))?;
        pulse::start(core)?;
        Ok(Running { desk, fronts, listener, comeback: Arc::default() })
    }

    /// A connection from this process: the same as from any other.
    ///
    /// # Errors
    /// When the system has no more descriptors or threads.
    pub(crate) fn link(&self) -> Result<NodeLink, Fault> {
        let (front, node) = UnixStream::pair().map_err(|error| no_descriptor(&error))?;
        socket::serve(node, &self.desk, &self.fronts)?;
        Ok(NodeLink::over(front)?)
    }

    /// Where peers connect; starts the engine.
    ///
    /// # Errors
    /// A fault when the engine does not start.
    pub(crate) fn listen(&self) -> Result<SocketAddr, Fault> {
        self.desk.core.peer.engine().map(|engine| engine.listen_addr())
    }

    /// Brings back the shares of whoever is logged in here, now and after each login; `downloads` too, where this node
    /// stays and does not end with a command.
    ///
    /// # Errors
    /// A fault when the system gives no thread.
    pub(crate) fn bring_back(&self, downloads: bool) -> Result<(), Fault> {
        self.comeback.begin(&self.desk.core, &self.desk.downloads, downloads)
    }

    /// What the node says without being asked, from now on.
    pub(crate) fn hear(&self) -> Receiver<String> {
        self.desk.core.notices.watch()
    }

    /// What could not be brought back, with what to do about it.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.desk.core.records.troubles()
    }

    /// What the node lacks, in words.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        self.desk.waits_for()
    }

    /// What ends the node, for a signal.
    pub(crate) fn ender(&self) -> Arc<Ending> {
        Arc::clone(&self.desk.core.ending)
    }

    /// Waits until the node is to end.
    pub(crate) fn wait(&self) {
        self.desk.core.ending.wait();
    }

    /// Takes nobody any more, lets those who wait for an answer have it (unless the node is to end), and ends.
    pub(crate) fn finish(self) {
        let core = &self.desk.core;
        core.state.remove_socket();
        // The thread that accepts wakes with an error; without this it would sleep until the process ends.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        self.fronts.wait_until_idle(&core.ending);
        core.ending.end();
        core.bell.ring();
        core.peer.stop();
    }
}

/// Lets this process have as many descriptors as it may: each share holds one, and the usual soft limit of 1,024 is there
/// for programs that cannot count further.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::info!("the limit of descriptors stays at {:?}: {error}", limit.current);
    }
}

fn no_descriptor(error: &std::io::Error) -> Fault {
    Fault::new(Exit::LocalIo, format!("no descriptor left: {error}")).fix("raise `ulimit -n`")
}
