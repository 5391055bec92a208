//! What all parts of a node use: state directory, engine, trackers, records, locks, notices; and the keys of
//! files.

use std::sync::{Arc, Mutex};

use engine::proto::manifest::FileKey as EngineKey;
use tracker::api::{GroupFile, GroupId};

use super::disk::records::RecordStore;
use super::disk::state_dir::StateDir;
use super::events::NoticeBoard;
use super::locks::KeyLocks;
use super::peer::LocalPeer;
use super::shutdown::{Latch, WakeupFlag};
use super::trackers::{TrackerClient, TrackerLocator};
use crate::exit::ClientFault;
use crate::ipc::rows::ReachabilityRow;
use crate::plan::NodePlan;
use crate::quoting;

/// What all parts of a node use. It belongs to all its threads.
pub(super) struct NodeCore {
    /// The state directory, locked.
    pub(super) state_dir: Arc<StateDir>,
    /// The engine, and the node's key.
    pub(super) peer: Arc<LocalPeer>,
    /// The connection to the trackers, and the session.
    pub(super) trackers: TrackerClient,
    /// The records of shares and downloads.
    pub(super) records: RecordStore,
    /// The locks of shares and downloads.
    pub(super) locks: KeyLocks,
    /// Wakes the recovery thread: a share or a download waits for it.
    pub(super) recovery_wakeup: WakeupFlag,
    /// Notices to front ends.
    pub(super) notices: NoticeBoard,
    /// Whether the tracker reached this node when it last called back; `None` before that in this session.
    pub(super) reachability: Mutex<Option<ReachabilityRow>>,
    /// Set when the node is to end.
    pub(super) shutdown: Arc<Latch>,
}

impl NodeCore {
    /// The core of a node that neither listens nor is connected.
    ///
    /// # Errors
    /// The node's key can be neither read nor made.
    pub(super) fn new(plan: NodePlan, state: StateDir) -> Result<NodeCore, ClientFault> {
        let state_dir = Arc::new(state);
        let locator = TrackerLocator::new(&plan);
        let peer = Arc::new(LocalPeer::new(plan, Arc::clone(&state_dir))?);
        let trackers = TrackerClient::new(locator, Arc::clone(&state_dir), Arc::clone(&peer))?;
        let shutdown = Arc::<Latch>::default();
        Ok(NodeCore {
            records: RecordStore::in_state_dir(state_dir.path()),
            state_dir,
            peer,
            trackers,
            locks: KeyLocks::new(Arc::clone(&shutdown)),
            recovery_wakeup: WakeupFlag::default(),
            notices: NoticeBoard::default(),
            reachability: Mutex::default(),
            shutdown,
        })
    }
}

/// The engine's key of a file.
pub(super) fn to_engine_key(key: &GroupFile) -> EngineKey {
    EngineKey { group: key.group.to_string(), name: key.name.clone() }
}

/// The trackers' key of a file. `None` for a group name that no tracker takes.
pub(super) fn to_tracker_key(key: &EngineKey) -> Option<GroupFile> {
    GroupId::new(&key.group).ok().map(|group| GroupFile { group, name: key.name.clone() })
}

/// A file as the arguments of a command, quoted for a shell.
pub(super) fn quote_key(key: &GroupFile) -> String {
    quoting::quote_file(key.group.as_str(), key.name.as_str())
}
