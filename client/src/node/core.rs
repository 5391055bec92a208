//! What all threads of a node share.

use std::sync::Arc;

use engine::proto::manifest::FileKey as EngineKey;
use tracker::api::{GroupFile, GroupId};

use crate::exit::ClientFault;
use crate::node::disk::records::{RecordStore, ShareStage};
use crate::node::disk::state_dir::StateDir;
use crate::node::locks::KeyLocks;
use crate::node::notices::NoticeBoard;
use crate::node::peer::LocalPeer;
use crate::node::share::{LocalShare, ShareRegistry, ShareState};
use crate::node::shutdown::ShutdownLatch;
use crate::node::trackers::TrackerClient;
use crate::node::wakeup::WakeupFlag;
use crate::plan::NodePlan;
use crate::quoting;

/// What all threads of a node share.
pub(super) struct NodeCore {
    /// The state directory, locked.
    pub(super) state_dir: Arc<StateDir>,
    /// The engine.
    pub(super) peer: Arc<LocalPeer>,
    /// The trackers.
    pub(super) trackers: TrackerClient,
    /// What outlives this process.
    pub(super) records: RecordStore,
    /// What is shared for whom.
    pub(super) shares: ShareRegistry,
    /// Whose turn it is with each share.
    pub(super) share_locks: KeyLocks,
    /// Rings when there is something to bring back.
    pub(super) recovery_wakeup: WakeupFlag,
    /// What nobody asked for.
    pub(super) notices: NoticeBoard,
    /// The node's end.
    pub(super) shutdown: Arc<ShutdownLatch>,
}

impl NodeCore {
    /// A node at rest: nothing listens, nothing is connected.
    ///
    /// # Errors
    /// A fault when the state directory gives no key.
    pub(super) fn new(plan: NodePlan, state: StateDir) -> Result<NodeCore, ClientFault> {
        let state = Arc::new(state);
        let named = plan.trackers.clone();
        let peer = Arc::new(LocalPeer::new(plan, Arc::clone(&state))?);
        let trackers = TrackerClient::new(named, Arc::clone(&state), Arc::clone(&peer))?;
        let records = RecordStore::in_state_dir(state.path());
        Ok(NodeCore {
            shares: load_shares(&records),
            state_dir: state,
            peer,
            trackers,
            records,
            share_locks: KeyLocks::default(),
            recovery_wakeup: WakeupFlag::default(),
            notices: NoticeBoard::default(),
            shutdown: Arc::default(),
        })
    }
}

/// The shares on record, none of them served yet. Of two under one key, which a crash between writing the one and removing
/// the other leaves, the later that the trackers took counts.
fn load_shares(records: &RecordStore) -> ShareRegistry {
    let registry = ShareRegistry::default();
    let mut all = records.read_shares();
    all.sort_by_key(|(_, shared)| !matches!(shared.stage, ShareStage::Unlisted | ShareStage::Refused));
    for (id, shared) in all {
        let before = registry.insert(LocalShare { id, record: shared, state: ShareState::NotServed });
        if let Some(Err(fault)) = before.map(|before| records.forget_share(&before.id)) {
            tracing::warn!("{fault}");
        }
    }
    registry
}

/// The key by which the engine knows a file of the trackers.
pub(super) fn to_engine_key(key: &GroupFile) -> EngineKey {
    EngineKey { group: key.group.to_string(), name: key.name.clone() }
}

/// The key by which the trackers know a file of the engine; `None` for a group that cannot be one of theirs.
pub(super) fn to_tracker_key(key: &EngineKey) -> Option<GroupFile> {
    GroupId::new(&key.group).ok().map(|group| GroupFile { group, name: key.name.clone() })
}

/// A file as a command names it.
pub(super) fn quote_key(key: &GroupFile) -> String {
    quoting::quote_file(key.group.as_str(), key.name.as_str())
}
