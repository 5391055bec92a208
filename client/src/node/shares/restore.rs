//! Shares that come back: served again without being read when their files are what they were, and told to the trackers.
//!
//! Invariants: a file whose fingerprint is another is served no more, withdrawn at the trackers and named; one that cannot
//! be read now is named, withdrawn, and served again as soon as it can be; the trackers are told of each share once a
//! process, which also tells them where this node listens now. Each share is looked at anew under its claim, and only a
//! tracker's own refusal ends it; what was never listed is then set aside, and kept for its user.

use engine::Engine;
use engine::proto::manifest::Manifest;
use engine::storage::error::{StorageError, StorageErrorKind};
use engine::storage::fingerprint::Fingerprint;
use serde::de::IgnoredAny;
use tracker::api::GroupFile;
use tracker::api::answers::PeersAnswer;
use tracker::api::request::{Command, GainedPieces};

use super::listing;
use super::upload;
use crate::exit::ClientFault;
use crate::node::core::{NodeCore, quote_key, to_engine_key};
use crate::node::disk::records::{ManifestUnavailable, ShareRecord, ShareStage};
use crate::node::retry_policy::{PendingWork, pending_after, pending_after_listing};
use crate::node::share::{LocalShare, ShareState};
use crate::node::trackers::RequestUrgency;
use crate::quoting;

/// Why a share is not served.
enum ServeFailure {
    /// It may pass.
    Transient(String),
    /// Its file is another.
    Changed,
    /// Its record was set aside, as these words say.
    SetAside(String),
}

/// Brings back what a user shares here, as far as it is not back yet.
pub(in crate::node) fn restore_shares(core: &NodeCore, user: &str) -> PendingWork {
    let is_back = |known: &LocalShare| match known.record.stage {
        ShareStage::Listed => known.state == ShareState::Announced,
        ShareStage::Refused => true,
        ShareStage::Unlisted | ShareStage::Stopped => false,
    };
    let keys: Vec<GroupFile> = core
        .shares
        .of_user(user)
        .into_iter()
        .filter(|known| !is_back(known))
        .map(|known| known.record.key)
        .collect();
    if keys.is_empty() {
        return PendingWork::Nothing;
    }
    let engine = match core.peer.engine() {
        Ok(engine) => engine,
        Err(fault) => {
            core.notices.post(&format!("nothing can be shared: {fault}"));
            return PendingWork::Nothing;
        }
    };
    let mut left = PendingWork::Nothing;
    for key in keys {
        if core.shutdown.is_set() || core.trackers.user().as_deref() != Some(user) {
            break;
        }
        left = left.max(restore_share(core, &engine, user, &key));
    }
    left
}

/// Brings back one share, as it stands by now.
fn restore_share(core: &NodeCore, engine: &Engine, user: &str, key: &GroupFile) -> PendingWork {
    // Whoever has it may take long, and rings when there is something left to do; this is for when they do not.
    let Some(_claim) = core.share_locks.try_acquire(key) else { return PendingWork::Retry };
    let Some(known) = core.shares.get(user, key) else { return PendingWork::Nothing };
    match known.record.stage {
        ShareStage::Stopped => finish_stop(core, &known),
        ShareStage::Unlisted => list_share(core, engine, &known),
        ShareStage::Refused => PendingWork::Nothing,
        ShareStage::Listed => match known.state {
            ShareState::Announced => PendingWork::Nothing,
            ShareState::Served => announce_share(core, &known),
            ShareState::NotServed | ShareState::Unreadable { .. } => {
                match serve_share(core, engine, &known, None) {
                    Some(ShareState::Served) => announce_share(core, &known),
                    Some(ShareState::Unreadable { is_reported: told, .. }) => {
                        report_unreadable(core, &known, told)
                    }
                    _ => PendingWork::Nothing,
                }
            }
        },
    }
}

/// Serves a share if its file is what it was; how it stands then, or `None` when there is nothing more to do for it.
fn serve_share(
    core: &NodeCore,
    engine: &Engine,
    known: &LocalShare,
    manifest: Option<&Manifest>,
) -> Option<ShareState> {
    let standing = match reshare_file(core, engine, known, manifest) {
        Ok(()) => ShareState::Served,
        Err(ServeFailure::Transient(why)) => mark_unreadable(core, known, why),
        Err(ServeFailure::Changed) => {
            let why = format!("{} is not what it was when it was shared", known.record.path.display());
            upload::withdraw_share(core, known, &why);
            return None;
        }
        Err(ServeFailure::SetAside(trouble)) => {
            core.notices.post(&trouble);
            core.shares.remove(&known.id);
            upload::unserve_file(core, &known.record.key);
            upload::report_stopped(core, &known.record.user, &known.record.key);
            return None;
        }
    };
    let changed = core.shares.update(&known.id, |known| known.state = standing.clone())?;
    upload::unserve_unless_active_user(core, &changed).then_some(standing)
}

fn reshare_file(
    core: &NodeCore,
    engine: &Engine,
    known: &LocalShare,
    manifest: Option<&Manifest>,
) -> Result<(), ServeFailure> {
    let ShareRecord { key, path, fingerprint, .. } = &known.record;
    // The cheap question first: a file that is not there is looked for again and again.
    let now = Fingerprint::at(path)
        .map_err(|error| ServeFailure::Transient(ClientFault::io("look at", path, &error).message))?;
    if fingerprint.difference_ignoring_device(&now).is_some() {
        return Err(ServeFailure::Changed);
    }
    let loaded;
    let manifest = match manifest {
        Some(manifest) => manifest,
        None => {
            loaded = load_manifest(core, known)?;
            &loaded
        }
    };
    engine.share_file(to_engine_key(key), path, manifest, *fingerprint).map_err(|error| match error {
        StorageError { kind: StorageErrorKind::Changed(_), .. } => ServeFailure::Changed,
        error => ServeFailure::Transient(error.to_string()),
    })
}

fn load_manifest(core: &NodeCore, known: &LocalShare) -> Result<Manifest, ServeFailure> {
    core.records.manifest(&known.id, &known.record).map_err(|unusable| match unusable {
        ManifestUnavailable::SetAside(trouble) => ServeFailure::SetAside(trouble),
        ManifestUnavailable::Transient(why) => ServeFailure::Transient(why),
    })
}

/// A share that cannot be served now; said once.
fn mark_unreadable(core: &NodeCore, known: &LocalShare, why: String) -> ShareState {
    let told = match &known.state {
        ShareState::Unreadable { is_reported: told, .. } => *told,
        _ => {
            core.notices.post(&format!(
                "{} is not shared for now: {why}; it is again as soon as that can be read",
                known.record.key
            ));
            false
        }
    };
    ShareState::Unreadable { why, is_reported: told }
}

/// Tells the trackers that this node serves a share, and where; first it asks whether what they list under its name is
/// still this file, since whoever says to have a file says so by its name.
fn announce_share(core: &NodeCore, known: &LocalShare) -> PendingWork {
    let ShareRecord { key, user, content, .. } = &known.record;
    let question = Command::GetPeers { file: key.clone(), peer_key: Some(core.peer.key()) };
    let listed = core.trackers.request_as::<PeersAnswer>(user, question, RequestUrgency::Background);
    let told = match listed.map(|(answer, _)| answer.ticket.and_then(|ticket| ticket.unverified_grant().ok()))
    {
        Ok(Some(grant)) if grant.file_id != *content => {
            upload::drop_share(core, known);
            core.notices.post(&format!(
                "{key} is not shared any more: under this name there is another file by now; upload {} under another name",
                known.record.path.display()
            ));
            return PendingWork::Nothing;
        }
        Ok(_) => {
            let command = Command::UpdatePieces { file: key.clone(), gained: GainedPieces::Complete };
            core.trackers.request_as::<IgnoredAny>(user, command, RequestUrgency::Background).map(drop)
        }
        Err(fault) => Err(fault),
    };
    match told {
        Ok(()) => {
            core.shares.mark_announced(&known.id);
            PendingWork::Nothing
        }
        Err(fault) => pending_after(&fault).unwrap_or_else(|| {
            upload::drop_share(core, known);
            core.notices.post(&format!("{key} is not shared any more: {fault}"));
            PendingWork::Nothing
        }),
    }
}

/// Tells the trackers, once, that a share cannot be served for now.
fn report_unreadable(core: &NodeCore, known: &LocalShare, told: bool) -> PendingWork {
    if told {
        return PendingWork::Retry;
    }
    if let Err(left) = request_stop(core, known) {
        return left;
    }
    core.shares.update(&known.id, |known| {
        if let ShareState::Unreadable { is_reported: told, .. } = &mut known.state {
            *told = true;
        }
    });
    PendingWork::Retry
}

/// Tells the trackers what they have not been told: that a share was stopped.
fn finish_stop(core: &NodeCore, known: &LocalShare) -> PendingWork {
    if let Err(left) = request_stop(core, known) {
        return left;
    }
    upload::drop_share(core, known);
    PendingWork::Nothing
}

/// Has the trackers know that a share is none now. That they do not know it as one is as good.
fn request_stop(core: &NodeCore, known: &LocalShare) -> Result<(), PendingWork> {
    let command = Command::StopShare { file: known.record.key.clone() };
    match core.trackers.request_as::<IgnoredAny>(&known.record.user, command, RequestUrgency::Background) {
        Ok(_) => Ok(()),
        Err(fault) => pending_after(&fault).map_or(Ok(()), Err),
    }
}

/// Has the trackers list what was hashed before they could take it.
fn list_share(core: &NodeCore, engine: &Engine, known: &LocalShare) -> PendingWork {
    let (key, user) = (&known.record.key, &known.record.user);
    let manifest = match load_manifest(core, known) {
        Ok(manifest) => manifest,
        Err(ServeFailure::SetAside(trouble)) => {
            core.notices.post(&trouble);
            core.shares.remove(&known.id);
            return PendingWork::Nothing;
        }
        Err(ServeFailure::Transient(_) | ServeFailure::Changed) => return PendingWork::Retry,
    };
    if let Err(fault) =
        listing::list_file(core, user, key, &manifest, RequestUrgency::Background, &|_| Ok(()))
    {
        return pending_after_listing(&fault).unwrap_or_else(|| {
            mark_refused(core, known, fault);
            PendingWork::Nothing
        });
    }
    let Some(listed) = core.shares.update(&known.id, |known| known.record.stage = ShareStage::Listed) else {
        return PendingWork::Nothing;
    };
    if let Err(fault) = core.records.write_share(&listed.id, &listed.record) {
        core.notices.post(&fault.message);
    }
    match serve_share(core, engine, &listed, Some(&manifest)) {
        Some(ShareState::Served) => {
            core.shares.mark_announced(&listed.id);
            core.notices.post(&format!("{key} is shared now"));
            PendingWork::Nothing
        }
        Some(ShareState::Unreadable { is_reported: told, .. }) => report_unreadable(core, &listed, told),
        _ => PendingWork::Nothing,
    }
}

/// Has what the trackers refused for good wait for its user: its record stays, with why, and they are not asked again.
fn mark_refused(core: &NodeCore, known: &LocalShare, fault: ClientFault) {
    let (key, user) = (&known.record.key, &known.record.user);
    let changed = core.shares.update(&known.id, |known| {
        known.record.stage = ShareStage::Refused;
        known.record.refusal = Some(fault);
    });
    let Some(LocalShare { id, record: shared, .. }) = changed else { return };
    if let Err(fault) = core.records.write_share(&id, &shared) {
        core.notices.post(&fault.message);
    }
    core.notices.post(&format!("{key} is not shared: {}", refusal_message(&shared)));
    // It may have taken the place of one that was stopped, which they were not told.
    upload::report_stopped(core, user, key);
}

/// Why a share was set aside, and what to type next.
pub(in crate::node) fn refusal_message(shared: &ShareRecord) -> String {
    let ShareRecord { key, path, refusal, .. } = shared;
    let (why, first) = match refusal {
        Some(ClientFault { message, fix: Some(fix), .. }) => (message.as_str(), format!("{fix}; then ")),
        Some(ClientFault { message, fix: None, .. }) => (message.as_str(), String::new()),
        None => ("it was not said why", String::new()),
    };
    format!(
        "the trackers refuse it ({why}) and are not asked again; next: {first}`upload_file {} {}`, which does not hash \
         it again, or `stop_share {}` to give it up",
        key.group,
        quoting::quote_path(path),
        quote_key(key)
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use engine::proto::manifest::FileName;
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    use tracker::api::GroupId;

    use super::upload::{ShareOrigin, record_share, register_share, stop_share};
    use super::*;
    use crate::exit::ExitCause;
    use crate::node::disk::state_dir::{SavedSession, StateDir};
    use crate::plan::NodePlan;

    /// A node of `u`, whose tracker is a port on which nobody listens.
    fn core_without_tracker(directory: &Path) -> NodeCore {
        let trackers = directory.join("trackers.txt");
        let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let nobody = SocketAddr::try_from(getsockname(&bound).unwrap()).unwrap();
        // It stays bound until the tests end, so that nobody else comes to listen there.
        std::mem::forget(bound);
        std::fs::write(&trackers, format!("{nobody}\n")).unwrap();
        let state = StateDir::lock(&directory.join("state")).unwrap().unwrap();
        let session = SavedSession { user: "u".into(), token: "t".into(), tracker_key: [9; 32] };
        state.save_session(&session).unwrap();
        let plan = NodePlan {
            state: state.path().to_owned(),
            trackers: Some(trackers),
            listen: "127.0.0.1".parse().ok(),
            advertise: None,
            io: engine::config::IoChoice::Epoll,
            zero_copy: engine::config::ZeroCopyChoice::Auto,
            hash: None,
            limit_up: None,
            limit_down: None,
        };
        NodeCore::new(plan, state).unwrap()
    }

    /// A share of `u` that an earlier process left, listed.
    fn recorded_share(core: &NodeCore, path: PathBuf) -> (GroupFile, Manifest) {
        let key = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
        let engine = core.peer.engine().unwrap();
        let hashed = engine.hash_file(&path, key.name.clone(), &|_| {}).unwrap();
        let manifest = Manifest::clone(hashed.manifest());
        let origin = ShareOrigin { user: "u".into(), path, fingerprint: hashed.fingerprint() };
        let known = record_share(core, &key, origin, &manifest, ShareStage::Listed).unwrap();
        register_share(core, known);
        (key, manifest)
    }

    fn is_served(core: &NodeCore) -> bool {
        !core.peer.engine().unwrap().shares().is_empty()
    }

    #[test]
    fn a_stop_is_not_undone_by_who_was_bringing_the_share_back() {
        let dir = tempfile::tempdir().unwrap();
        let core = core_without_tracker(dir.path());
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let (key, manifest) = recorded_share(&core, path.clone());
        let claim = core.share_locks.try_acquire(&key).unwrap();
        assert_eq!(restore_shares(&core, "u"), PendingWork::Retry);
        assert!(!is_served(&core), "somebody else had its claim");
        drop(claim);
        assert_eq!(restore_shares(&core, "u"), PendingWork::Trackers);
        assert!(is_served(&core), "what can be served without a tracker is");

        let claim = core.share_locks.try_acquire(&key).unwrap();
        let known = core.shares.get("u", &key).unwrap();
        std::thread::scope(|scope| {
            let stopping = scope.spawn(|| stop_share(&core, &key));
            // The user's word counts at once, whoever has the claim …
            let gone = (0..3_000).any(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                !is_served(&core)
            });
            assert!(gone, "it is served although its user stopped it");
            // … and also when who has it serves the file once more.
            let engine = core.peer.engine().unwrap();
            engine.share_file(to_engine_key(&key), &path, &manifest, known.record.fingerprint).unwrap();
            drop(claim);
            assert_eq!(stopping.join().unwrap().unwrap_err().exit, ExitCause::NoTracker);
        });
        assert_eq!(restore_shares(&core, "u"), PendingWork::Trackers, "the trackers are to be told");
        assert!(!is_served(&core));
        assert_eq!(core.shares.get("u", &key).unwrap().record.stage, ShareStage::Stopped);
        assert_eq!(core.records.read_shares()[0].1.stage, ShareStage::Stopped);
        core.peer.stop();
    }

    #[test]
    fn what_is_served_when_its_user_goes_is_taken_down() {
        let dir = tempfile::tempdir().unwrap();
        let core = core_without_tracker(dir.path());
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let (key, manifest) = recorded_share(&core, path);
        let known = core.shares.get("u", &key).unwrap();
        core.trackers.forget_session();
        let engine = core.peer.engine().unwrap();
        assert_eq!(serve_share(&core, &engine, &known, Some(&manifest)), None);
        assert!(!is_served(&core));
        assert_eq!(core.shares.get("u", &key).unwrap().state, ShareState::NotServed);
        assert_eq!(announce_share(&core, &known), PendingWork::Retry, "nobody else says it in their name");
        assert!(core.shares.get("u", &key).is_some());
        core.peer.stop();
    }
}
