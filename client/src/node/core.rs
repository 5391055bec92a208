//! What all threads of a node share.

use std::sync::Arc;

use engine::proto::manifest::FileKey as EngineKey;
use tracker::api::{FileKey, GroupId, UserId};

use super::bell::Bell;
use super::claims::Claims;
use super::ending::Ending;
use super::notices::Notices;
use super::peer::Peer;
use super::records::{Records, Stage};
use super::registry::{Known, Registry, Standing};
use super::state::StateDir;
use super::trackers::TrackerLink;
use crate::exit::{Exit, Fault};
use crate::plan::NodePlan;
use crate::quoted;

/// What all threads of a node share.
pub(super) struct Core {
    /// The state directory, locked.
    pub(super) state: Arc<StateDir>,
    /// The engine.
    pub(super) peer: Arc<Peer>,
    /// The trackers.
    pub(super) trackers: TrackerLink,
    /// What outlives this process.
    pub(super) records: Records,
    /// What is shared for whom.
    pub(super) registry: Registry,
    /// Whose turn it is with each share.
    pub(super) claims: Claims,
    /// Rings when there is something to bring back.
    pub(super) bell: Bell,
    /// What nobody asked for.
    pub(super) notices: Notices,
    /// The node's end.
    pub(super) ending: Arc<Ending>,
}

impl Core {
    /// A node at rest: nothing listens, nothing is connected.
    ///
    /// # Errors
    /// A fault when the state directory gives no key.
    pub(super) fn new(plan: NodePlan, state: StateDir) -> Result<Core, Fault> {
        let state = Arc::new(state);
        let named = plan.trackers.clone();
        let peer = Arc::new(Peer::new(plan, Arc::clone(&state))?);
        let trackers = TrackerLink::new(named, Arc::clone(&state), Arc::clone(&peer))?;
        let records = Records::of(state.path());
        Ok(Core {
            registry: recorded(&records),
            state,
            peer,
            trackers,
            records,
            claims: Claims::default(),
            bell: Bell::default(),
            notices: Notices::default(),
            ending: Arc::default(),
        })
    }
}

/// The shares on record, none of them served yet. Of two under one key, which a crash between writing the one and removing
/// the other leaves, the later that the trackers took counts.
fn recorded(records: &Records) -> Registry {
    let registry = Registry::default();
    let mut all = records.read_shares();
    all.sort_by_key(|(_, shared)| !matches!(shared.stage, Stage::Unlisted | Stage::Refused));
    for (id, shared) in all {
        let before = registry.add(Known { id, shared, standing: Standing::Down });
        if let Some(Err(fault)) = before.map(|before| records.forget_share(&before.id)) {
            tracing::warn!("{fault}");
        }
    }
    registry
}

/// The key by which the engine knows a file of the trackers.
pub(super) fn engine_key(key: &FileKey) -> EngineKey {
    EngineKey { group: key.group.to_string(), name: key.name.clone() }
}

/// The key by which the trackers know a file of the engine; `None` for a group that cannot be one of theirs.
pub(super) fn api_key(key: &EngineKey) -> Option<FileKey> {
    GroupId::new(&key.group).ok().map(|group| FileKey { group, name: key.name.clone() })
}

/// A file as a command names it.
pub(super) fn words_of(key: &FileKey) -> String {
    quoted::file(key.group.as_str(), key.name.as_str())
}

/// A group's name, checked.
///
/// # Errors
/// A usage fault.
pub(super) fn group_id(text: &str) -> Result<GroupId, Fault> {
    GroupId::new(text).map_err(|bad| {
        Fault::new(Exit::Usage, format!("`{text}` is no group: {bad}"))
            .fix("choose another name; `list_groups` shows the groups that there are")
    })
}

/// A user's name, checked.
///
/// # Errors
/// A usage fault.
pub(super) fn user_id(text: &str) -> Result<UserId, Fault> {
    UserId::new(text).map_err(|bad| {
        Fault::new(Exit::Usage, format!("`{text}` is no user: {bad}")).fix("choose another name")
    })
}
