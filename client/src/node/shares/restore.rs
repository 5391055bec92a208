//! Completes the pending steps of each share: list it, serve it, announce it, or end it at the tracker.
//!
//! The recovery thread calls [`restore_shares`] at its start and whenever a share has a pending step. If the
//! file still has the recorded fingerprint, it is served without being hashed again; if only its attributes
//! have changed, the engine hashes it first. Each process announces each share once, which also tells the
//! tracker where this node listens.
//!
//! Always true: each share is looked up again under its lock. A tracker that cannot be reached never ends a
//! share; a tracker that refuses it does, but a refused upload that was never listed is kept for its user. A
//! share whose file has changed is withdrawn; a file that cannot be read now is tried again.

use engine::Engine;
use engine::proto::manifest::Manifest;
use engine::storage::error::{StorageError, StorageErrorKind};
use serde::de::IgnoredAny;
use tracker::api::GroupFile;
use tracker::api::request::{Command, GainedPieces};

use super::listing;
use super::share::{LocalShare, ShareState, Shares};
use super::stop::{remove_share, report_stopped, unserve_share, unserve_unless_active_user, withdraw_share};
use crate::exit::{ClientFault, ExitCause};
use crate::node::core::{quote_key, to_engine_key, to_tracker_key};
use crate::node::disk::records::{ManifestUnavailable, SharedFile};
use crate::node::retry_policy::{PendingWork, pending_after, pending_after_listing};
use crate::node::trackers::RequestUrgency;
use crate::printable::show_path;
use crate::quoting;

/// Why a share is not served.
enum ServeFailure {
    /// A later attempt may succeed. The text says what failed.
    Transient(String),
    /// The file has changed since it was shared.
    Changed,
    /// The record was unusable and has been set aside. The text says why.
    SetAside(String),
}

/// Restores the shares of a user. Returns what is left to do.
pub(in crate::node) fn restore_shares(shares: &Shares, user: &str) -> PendingWork {
    let core = &shares.core;
    let mut keys: Vec<GroupFile> = Vec::new();
    for LocalShare { file, state, .. } in shares.table.shares_of_user(user) {
        if !matches!(state, ShareState::Announced | ShareState::Refused(_)) {
            keys.push(file.key);
        }
    }
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
    let mut pending = PendingWork::Nothing;
    for key in keys {
        if core.shutdown.is_set() || core.trackers.user().as_deref() != Some(user) {
            break;
        }
        pending = pending.max(restore_share(shares, &engine, user, &key));
    }
    pending
}

fn restore_share(shares: &Shares, engine: &Engine, user: &str, key: &GroupFile) -> PendingWork {
    let mut scope = shares.core.locks.scope();
    // The holder of the lock usually wakes the recovery thread when work remains. `Retry` covers the cases in
    // which it does not.
    let Some(_share_lock) = scope.try_lock_share(key) else { return PendingWork::Retry };
    let Some(share) = shares.table.get(user, key) else { return PendingWork::Nothing };
    match share.state {
        ShareState::Announced | ShareState::Refused(_) => PendingWork::Nothing,
        ShareState::Stopped { .. } => finish_stop(shares, &share),
        ShareState::Unlisted => list_share(shares, engine, &share),
        ShareState::Served => announce_share(shares, &share),
        ShareState::NotServed | ShareState::Unreadable { .. } => {
            match serve_share(shares, engine, &share, None) {
                Some(ShareState::Served) => announce_share(shares, &share),
                Some(ShareState::Unreadable { is_reported, .. }) => {
                    report_unreadable(shares, &share, is_reported)
                }
                _ => PendingWork::Nothing,
            }
        }
    }
}

/// Serves a share if its file is unchanged. Returns the new state; `None` if nothing more is to be done.
fn serve_share(
    shares: &Shares,
    engine: &Engine,
    share: &LocalShare,
    manifest: Option<&Manifest>,
) -> Option<ShareState> {
    let core = &shares.core;
    let SharedFile { key, user, path, .. } = &share.file;
    let updated = match reshare_file(shares, engine, share, manifest) {
        Ok(()) => shares.table.update(&share.id, ShareState::mark_served)?,
        Err(ServeFailure::Transient(reason)) => {
            if !matches!(share.state, ShareState::Unreadable { .. }) {
                core.notices.post(&format!(
                    "{key} is not shared for now: {reason}; it is shared again as soon as the file can be read"
                ));
            }
            shares.table.update(&share.id, |state| state.mark_unreadable(reason))?
        }
        Err(ServeFailure::Changed) => {
            let change = format!("{} is not what it was when it was shared", show_path(path));
            withdraw_share(shares, share, &change);
            return None;
        }
        Err(ServeFailure::SetAside(problem)) => {
            core.notices.post(&problem);
            shares.table.remove(&share.id);
            unserve_share(core, &share.file);
            report_stopped(core, user, key, Some(share.file.content));
            return None;
        }
    };
    unserve_unless_active_user(shares, &updated).then_some(updated.state)
}

fn reshare_file(
    shares: &Shares,
    engine: &Engine,
    share: &LocalShare,
    manifest: Option<&Manifest>,
) -> Result<(), ServeFailure> {
    let SharedFile { key, path, fingerprint, .. } = &share.file;
    // This comes before the manifest is read, since a missing file is retried many times.
    let now = engine
        .examine_file(path, fingerprint.device)
        .map_err(|error| ServeFailure::Transient(error.description()))?;
    if fingerprint.compare_ignoring_device(&now).change().is_some() {
        return Err(ServeFailure::Changed);
    }
    let loaded;
    let manifest = match manifest {
        Some(manifest) => manifest,
        None => {
            loaded = load_manifest(shares, share)?;
            &loaded
        }
    };
    let loader = shares.manifest_loader(share);
    engine.share_file(to_engine_key(key), path, manifest, *fingerprint, loader).map_err(|error| match error {
        StorageError { kind: StorageErrorKind::Changed(_), .. } => ServeFailure::Changed,
        error => ServeFailure::Transient(error.to_string()),
    })
}

fn load_manifest(shares: &Shares, share: &LocalShare) -> Result<Manifest, ServeFailure> {
    shares.core.records.manifest(&share.id, &share.file).map_err(|unavailable| match unavailable {
        ManifestUnavailable::SetAside(problem) => ServeFailure::SetAside(problem),
        ManifestUnavailable::Transient(reason) => ServeFailure::Transient(reason),
    })
}

/// Tells the tracker that this node serves the content of a share, and where it listens.
fn announce_share(shares: &Shares, share: &LocalShare) -> PendingWork {
    let core = &shares.core;
    let SharedFile { key, user, content, .. } = &share.file;
    let (content, gained) = (Some(*content), GainedPieces::Complete);
    let command = Command::UpdatePieces { file: key.clone(), content, gained };
    match core.trackers.request_as::<IgnoredAny>(user, command, RequestUrgency::Background) {
        Ok(_) => {
            shares.table.update(&share.id, ShareState::mark_announced);
            PendingWork::Nothing
        }
        Err(fault) => pending_after(&fault).unwrap_or_else(|| {
            unserve_share(core, &share.file);
            mark_refused(shares, share, fault);
            PendingWork::Nothing
        }),
    }
}

/// Records the new fingerprints of files that the engine has hashed again, because their attributes had changed, and found
/// to have the same content.
pub(in crate::node) fn record_new_fingerprints(shares: &Shares) {
    let core = &shares.core;
    let (Some(engine), Some(user)) = (core.peer.started_engine(), core.trackers.user()) else { return };
    for served in engine.shares() {
        let Some((key, now)) = to_tracker_key(&served.key).zip(served.fingerprint) else { continue };
        let has_new_attributes = |share: &LocalShare| {
            let then = share.file.fingerprint;
            share.state.is_listed() && then != now && then.compare_ignoring_device(&now).change().is_none()
        };
        if !shares.table.get(&user, &key).is_some_and(|share| has_new_attributes(&share)) {
            continue;
        }
        let mut scope = core.locks.scope();
        let Some(_share_lock) = scope.try_lock_share(&key) else { continue };
        let Some(share) = shares.table.get(&user, &key).filter(has_new_attributes) else { continue };
        if let Some(updated) = shares.table.set_fingerprint(&share.id, now)
            && let Err(fault) = core.records.write_share(&updated.id, &updated.to_record())
        {
            core.notices.post(&fault.message);
        }
    }
}

/// Announces all shares of a user again, because the trackers know fewer of them than this node has announced: a file was
/// removed or replaced, or its user is no member any more.
pub(in crate::node) fn announce_again(shares: &Shares, user: &str) {
    for share in shares.table.shares_of_user(user) {
        shares.table.update(&share.id, ShareState::mark_unannounced);
    }
    shares.core.recovery_wakeup.set();
}

/// Marks the share of a downloaded file as announced: its download has already told the tracker.
pub(in crate::node) fn mark_announced(shares: &Shares, user: &str, key: &GroupFile) {
    if let Some(share) = shares.table.get(user, key) {
        shares.table.update(&share.id, ShareState::mark_announced);
    }
}

/// Tells the tracker that a share cannot be served for now, unless it has been told already.
fn report_unreadable(shares: &Shares, share: &LocalShare, is_reported: bool) -> PendingWork {
    if is_reported {
        return PendingWork::Retry;
    }
    if let Err(pending) = request_stop(shares, share) {
        return pending;
    }
    shares.table.update(&share.id, ShareState::mark_reported);
    PendingWork::Retry
}

/// Tells the tracker that a share was stopped, and forgets it. The share of a changed file is kept for its user.
fn finish_stop(shares: &Shares, share: &LocalShare) -> PendingWork {
    if let Err(pending) = request_stop(shares, share) {
        return pending;
    }
    if share.state.source_change().is_none() {
        remove_share(shares, share);
        return PendingWork::Nothing;
    }
    let core = &shares.core;
    unserve_share(core, &share.file);
    if let Some(kept) = shares.table.update(&share.id, ShareState::mark_change_reported)
        && let Err(fault) = core.records.write_share(&kept.id, &kept.to_record())
    {
        core.notices.post(&fault.message);
    }
    PendingWork::Nothing
}

/// Tells the tracker that the share ended. A refusal counts as success: the tracker does not know the share.
fn request_stop(shares: &Shares, share: &LocalShare) -> Result<(), PendingWork> {
    let command = Command::StopShare { file: share.file.key.clone(), content: Some(share.file.content) };
    let trackers = &shares.core.trackers;
    match trackers.request_as::<IgnoredAny>(&share.file.user, command, RequestUrgency::Background) {
        Ok(_) => Ok(()),
        Err(fault) => pending_after(&fault).map_or(Ok(()), Err),
    }
}

/// Lists and serves a file whose upload found no tracker that could list it.
fn list_share(shares: &Shares, engine: &Engine, share: &LocalShare) -> PendingWork {
    let core = &shares.core;
    let SharedFile { key, user, .. } = &share.file;
    let manifest = match load_manifest(shares, share) {
        Ok(manifest) => manifest,
        Err(ServeFailure::SetAside(problem)) => {
            core.notices.post(&problem);
            shares.table.remove(&share.id);
            return PendingWork::Nothing;
        }
        Err(ServeFailure::Transient(_) | ServeFailure::Changed) => return PendingWork::Retry,
    };
    if let Err(fault) =
        listing::list_file(core, user, key, &manifest, RequestUrgency::Background, &|_| Ok(()))
    {
        return pending_after_listing(&fault).unwrap_or_else(|| {
            mark_refused(shares, share, fault);
            PendingWork::Nothing
        });
    }
    let Some(listed) = shares.table.update(&share.id, ShareState::mark_listed) else {
        return PendingWork::Nothing;
    };
    if let Err(fault) = core.records.write_share(&listed.id, &listed.to_record()) {
        core.notices.post(&fault.message);
    }
    match serve_share(shares, engine, &listed, Some(&manifest)) {
        Some(ShareState::Served) => {
            shares.table.update(&listed.id, ShareState::mark_announced);
            core.notices.post(&format!("{key} is shared now"));
            PendingWork::Nothing
        }
        Some(ShareState::Unreadable { is_reported, .. }) => report_unreadable(shares, &listed, is_reported),
        _ => PendingWork::Nothing,
    }
}

/// Marks a share that the tracker has refused permanently. Its record is kept for its user, with the reason,
/// and the tracker is not asked again.
fn mark_refused(shares: &Shares, share: &LocalShare, fault: ClientFault) {
    let core = &shares.core;
    let SharedFile { key, user, .. } = &share.file;
    let Some(refused) = shares.table.update(&share.id, |state| state.mark_refused(fault)) else { return };
    if let Err(fault) = core.records.write_share(&refused.id, &refused.to_record()) {
        core.notices.post(&fault.message);
    }
    if let Some(reason) = unserved_reason(&refused) {
        core.notices.post(&format!("{key} is not shared: {reason}"));
    }
    // The upload may have replaced a stopped share, before the tracker was told that it had stopped.
    report_stopped(core, user, key, Some(share.file.content));
}

/// Why a share is not served, apart from a stop or a logout, and what to type next. `None` without such a
/// reason.
pub(in crate::node) fn unserved_reason(share: &LocalShare) -> Option<String> {
    if let Some(ClientFault { message, fix, .. }) = share.state.source_change() {
        let fix = fix.as_ref().map(|fix| format!("; next: {fix}"));
        return Some(format!("{message}{}", fix.unwrap_or_default()));
    }
    match &share.state {
        ShareState::Refused(refusal) => Some(refusal_message(&share.file, refusal.as_ref())),
        ShareState::Unreadable { reason, .. } => Some(reason.clone()),
        ShareState::Stopped { before } => match &**before {
            ShareState::Unreadable { reason, .. } => Some(reason.clone()),
            _ => None,
        },
        ShareState::Unlisted => Some("the trackers have not listed it yet".to_owned()),
        ShareState::NotServed | ShareState::Served | ShareState::Announced => None,
    }
}

fn refusal_message(file: &SharedFile, refusal: Option<&ClientFault>) -> String {
    let SharedFile { key, path, .. } = file;
    let group = key.group.as_str();
    let again = quoting::upload_again(group, key.name.as_str(), path);
    let (why, next) = match refusal {
        // Other content is listed under this name.
        Some(ClientFault { exit: ExitCause::Exists, message, .. }) => (
            message.as_str(),
            format!(
                "{} shares it under another name, or {again}, once its uploader or the group's owner has given `remove_file {}`",
                quoting::upload_renamed(group, path),
                quote_key(key)
            ),
        ),
        Some(ClientFault { exit: ExitCause::NotFound, message, .. }) => (message.as_str(), again),
        Some(ClientFault { message, fix: Some(fix), .. }) => {
            (message.as_str(), format!("{fix}; then {again}"))
        }
        Some(ClientFault { message, fix: None, .. }) => (message.as_str(), again),
        None => ("the reason is not on record", again),
    };
    format!(
        "the trackers refuse it ({why}) and are not asked again; next: {next}, which does not hash it again; or \
         `stop_share {}` to give it up",
        quote_key(key)
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use engine::proto::manifest::FileName;
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    use tracker::api::GroupId;

    use super::super::share::ShareOrigin;
    use super::super::stop::stop_share;
    use super::*;
    use crate::cli::trackers::TrackersOption;
    use crate::node::core::NodeCore;
    use crate::node::disk::records::ShareStage;
    use crate::node::disk::state_dir::{SavedSession, StateDir};
    use crate::plan::NodePlan;

    /// The shares of a node of the user `u` whose tracker does not listen.
    fn shares_without_tracker(directory: &Path) -> Shares {
        let trackers = directory.join("trackers.txt");
        let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = SocketAddr::try_from(getsockname(&bound).unwrap()).unwrap();
        // The socket stays bound until the tests end, so that no other process listens on its port.
        std::mem::forget(bound);
        std::fs::write(&trackers, format!("{address}\n")).unwrap();
        let state = StateDir::lock(&directory.join("state")).unwrap().unwrap();
        let session = SavedSession { user: "u".into(), token: "t".into(), tracker_key: [9; 32] };
        state.save_session(&session).unwrap();
        let plan = NodePlan {
            state: state.path().to_owned(),
            trackers: Some(TrackersOption::File(trackers)),
            listen: "127.0.0.1".parse().ok(),
            advertise: None,
            io: engine::config::IoChoice::Epoll,
            zero_copy: engine::config::ZeroCopyChoice::Auto,
            hash: None,
            limit_up: None,
            limit_down: None,
        };
        Shares::load(Arc::new(NodeCore::new(plan, state).unwrap()))
    }

    /// A listed share of `u`, as an earlier process left it.
    fn add_listed_share(shares: &Shares, path: PathBuf) -> (GroupFile, Manifest) {
        let key = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
        let engine = shares.core.peer.engine().unwrap();
        let hashed = engine.hash_file(&path, key.name.clone(), &|_| {}).unwrap();
        let manifest = Manifest::clone(hashed.manifest());
        let origin = ShareOrigin { user: "u".into(), path, fingerprint: hashed.fingerprint() };
        shares.register(shares.write_record(&key, origin, &manifest, ShareState::NotServed).unwrap());
        (key, manifest)
    }

    fn is_serving(shares: &Shares) -> bool {
        !shares.core.peer.engine().unwrap().shares().is_empty()
    }

    #[test]
    fn a_stop_is_not_undone_by_the_thread_that_restores_the_share() {
        let dir = tempfile::tempdir().unwrap();
        let shares = shares_without_tracker(dir.path());
        let core = &shares.core;
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let (key, manifest) = add_listed_share(&shares, path.clone());
        let mut scope = core.locks.scope();
        let held = scope.try_lock_share(&key).unwrap();
        assert_eq!(restore_shares(&shares, "u"), PendingWork::Retry);
        assert!(!is_serving(&shares), "its lock was held");
        drop(held);
        assert_eq!(restore_shares(&shares, "u"), PendingWork::Trackers);
        assert!(is_serving(&shares), "a listed share is served without a tracker");

        let held = scope.try_lock_share(&key).unwrap();
        let share = shares.table.get("u", &key).unwrap();
        std::thread::scope(|threads| {
            let stopping = threads.spawn(|| stop_share(&shares, &key));
            // A stop takes effect at once, also while another thread holds the lock …
            let is_gone = (0..3_000).any(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                !is_serving(&shares)
            });
            assert!(is_gone, "it is served although its user stopped it");
            // … and again when that thread serves the file once more.
            let engine = core.peer.engine().unwrap();
            let loader = shares.manifest_loader(&share);
            engine.share_file(to_engine_key(&key), &path, &manifest, share.file.fingerprint, loader).unwrap();
            drop(held);
            assert_eq!(stopping.join().unwrap().unwrap_err().exit, ExitCause::NoTracker);
        });
        assert_eq!(restore_shares(&shares, "u"), PendingWork::Trackers, "the tracker is to be told");
        assert!(!is_serving(&shares));
        assert!(matches!(shares.table.get("u", &key).unwrap().state, ShareState::Stopped { .. }));
        assert_eq!(core.records.read_shares()[0].1.stage, ShareStage::Stopped);
        core.peer.stop();
    }

    #[test]
    fn the_end_of_a_share_ends_no_other_content_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let shares = shares_without_tracker(dir.path());
        let (path, later) = (dir.path().join("f"), dir.path().join("later"));
        [(&path, "1"), (&later, "22")].iter().for_each(|(path, text)| std::fs::write(path, text).unwrap());
        let (key, _) = add_listed_share(&shares, path);
        let share = shares.table.get("u", &key).unwrap();
        let engine = shares.core.peer.engine().unwrap();
        let hashed = engine.hash_file(&later, key.name.clone(), &|_| {}).unwrap();
        let (name, loader) = (to_engine_key(&key), shares.manifest_loader(&share));
        engine.share_file(name, &later, hashed.manifest(), hashed.fingerprint(), loader).unwrap();
        remove_share(&shares, &share);
        assert!(is_serving(&shares) && shares.table.get("u", &key).is_none());
        shares.core.peer.stop();
    }

    #[test]
    fn a_share_that_is_served_after_its_user_logged_out_is_taken_down() {
        let dir = tempfile::tempdir().unwrap();
        let shares = shares_without_tracker(dir.path());
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let (key, manifest) = add_listed_share(&shares, path);
        let share = shares.table.get("u", &key).unwrap();
        shares.core.trackers.forget_session();
        let engine = shares.core.peer.engine().unwrap();
        assert_eq!(serve_share(&shares, &engine, &share, Some(&manifest)), None);
        assert!(!is_serving(&shares));
        assert_eq!(shares.table.get("u", &key).unwrap().state, ShareState::NotServed);
        assert_eq!(announce_share(&shares, &share), PendingWork::Retry, "only its user may announce it");
        assert!(shares.table.get("u", &key).is_some());
        shares.core.peer.stop();
    }
}
