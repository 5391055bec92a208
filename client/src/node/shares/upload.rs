//! What this node serves: hashed, told to the trackers, then shared.
//!
//! Invariants: a file is served only after the trackers took it, and no longer as soon as its user says so, whatever the
//! trackers do; what is served is on record first, so that a restart finds it. Whoever changes a share holds its claim.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::Engine;
use engine::proto::manifest::{FileKey as EngineKey, FileName, Manifest};
use engine::storage::fingerprint::Fingerprint;
use serde::de::IgnoredAny;
use tracker::api::request::Command;
use tracker::api::{GroupFile, GroupId};

use super::listing;
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeEvent};
use crate::limits;
use crate::node::core::{NodeCore, to_engine_key, to_tracker_key};
use crate::node::disk::records::{ManifestChecksum, ShareRecord, ShareStage};
use crate::node::events::EventStream;
use crate::node::retry_policy::{pending_after, pending_after_listing};
use crate::node::share::{LocalShare, ShareState};
use crate::node::trackers::RequestUrgency;

/// A file that is ready to be listed, and how it is served then.
struct PreparedUpload {
    manifest: Arc<Manifest>,
    fingerprint: Fingerprint,
    hashing_ms: u64,
}

/// Hashes a file, tells the trackers, and serves it.
///
/// # Errors
/// The trackers' refusal, whatever the disk says, or that the front end went away while it was hashed; also when it cannot
/// be recorded, since a restart would lose it: then the trackers are not told.
pub(in crate::node) fn upload_file(
    core: &NodeCore,
    group: GroupId,
    path: &Path,
    events: &EventStream<'_>,
) -> Result<NodeAnswer, ClientFault> {
    let key = GroupFile { group, name: share_name(path)? };
    let user = core.trackers.require_user()?;
    path.metadata().map_err(|error| ClientFault::io("read", path, &error).fix("check the path"))?;
    check_share_limit(core, &user, &key)?;
    check_membership(core, &key.group)?;
    let engine = core.peer.engine()?;
    let PreparedUpload { manifest, fingerprint, hashing_ms } =
        hash_unless_known(core, &engine, &user, &key, path, events)?;
    let (length, content) = (manifest.geometry().length(), manifest.proof().id());
    let file = key.name.to_string();
    events.send(NodeEvent::Hashing { file: file.clone(), done_bytes: length, total_bytes: length })?;
    let origin = ShareOrigin { user: user.clone(), path: path.to_owned(), fingerprint };
    let _claim = core.share_locks.acquire(&key, &core.shutdown)?;
    let mut known = record_share(core, &key, origin, &manifest, ShareStage::Unlisted)?;
    let total_bytes = length;
    let listed = listing::list_file(core, &user, &key, &manifest, RequestUrgency::Immediate, &|done_bytes| {
        events.send_progress(|| NodeEvent::Listing { file: file.clone(), done_bytes, total_bytes })
    });
    if let Err(fault) = listed {
        return Err(handle_listing_fault(core, known, fault));
    }
    known.record.stage = ShareStage::Listed;
    let recorded = core.records.write_share(&known.id, &known.record);
    let served = engine.share_file(to_engine_key(&key), path, &manifest, fingerprint);
    known.state = if served.is_ok() { ShareState::Announced } else { ShareState::NotServed };
    register_share(core, known.clone());
    unserve_unless_active_user(core, &known);
    // Whatever changed the file since it was hashed: the trackers must hear that it is not served.
    core.recovery_wakeup.set();
    served?;
    recorded?;
    let (pieces, sha1) = (manifest.pieces().0, content.to_string());
    Ok(NodeAnswer::Uploaded {
        group: key.group.to_string(),
        file,
        size_bytes: length,
        pieces,
        sha1,
        hashing_ms,
    })
}

/// Hashes the file; not if it is known, and looks as it did when it was hashed.
fn hash_unless_known(
    core: &NodeCore,
    engine: &Engine,
    user: &str,
    key: &GroupFile,
    path: &Path,
    events: &EventStream<'_>,
) -> Result<PreparedUpload, ClientFault> {
    if let Some(known) = core.shares.get(user, key)
        && known.record.path == path
        && Fingerprint::at(path)
            .is_ok_and(|now| known.record.fingerprint.difference_ignoring_device(&now).is_none())
        && let Ok(manifest) = core.records.manifest(&known.id, &known.record)
    {
        let fingerprint = known.record.fingerprint;
        return Ok(PreparedUpload { manifest: Arc::new(manifest), fingerprint, hashing_ms: 0 });
    }
    let total_bytes = path.metadata().map_or(0, |found| found.len());
    let file = key.name.to_string();
    let began = clock::now();
    let hashed = engine.hash_file(path, key.name.clone(), &|done_bytes| {
        // Whether anybody listens is found out by the caller.
        let _ = events.send_progress(|| NodeEvent::Hashing { file: file.clone(), done_bytes, total_bytes });
    })?;
    let hashing_ms = u64::try_from(clock::now().duration_since(began).as_millis()).unwrap_or(u64::MAX);
    let (manifest, fingerprint) = (Arc::clone(hashed.manifest()), hashed.fingerprint());
    Ok(PreparedUpload { manifest, fingerprint, hashing_ms })
}

/// Whose file it is, where it lies, and what it looks like there.
pub(in crate::node) struct ShareOrigin {
    /// The user.
    pub(in crate::node) user: String,
    /// The path.
    pub(in crate::node) path: PathBuf,
    /// The file's looks.
    pub(in crate::node) fingerprint: Fingerprint,
}

/// Records a share: on the disk when it returns. It is not in the registry yet.
///
/// # Errors
/// A fault when it cannot be written, or would be one too many; then nothing is recorded.
pub(in crate::node) fn record_share(
    core: &NodeCore,
    key: &GroupFile,
    origin: ShareOrigin,
    manifest: &Manifest,
    stage: ShareStage,
) -> Result<LocalShare, ClientFault> {
    let ShareOrigin { user, path, fingerprint } = origin;
    check_share_limit(core, &user, key)?;
    let seal = ManifestChecksum::of(manifest);
    let content = manifest.proof().id();
    let key = key.clone();
    let shared = ShareRecord { key, user, path, fingerprint, content, checksum: seal, stage, refusal: None };
    let id = core.records.keep_share(&shared, manifest)?;
    Ok(LocalShare { id, record: shared, state: ShareState::NotServed })
}

/// Puts a share into the registry; what it replaces is forgotten.
pub(in crate::node) fn register_share(core: &NodeCore, known: LocalShare) {
    if let Some(before) = core.shares.insert(known)
        && let Err(fault) = core.records.forget_share(&before.id)
    {
        core.notices.post(&fault.message);
    }
}

/// A file that was fetched is shared from now on, also after a restart. The caller holds the share's claim.
///
/// # Errors
/// A fault when that cannot be recorded.
pub(in crate::node) fn share_download(
    core: &NodeCore,
    key: &GroupFile,
    user: &str,
    path: &Path,
    fingerprint: Fingerprint,
    manifest: &Manifest,
    standing: ShareState,
) -> Result<(), ClientFault> {
    let origin = ShareOrigin { user: user.to_owned(), path: path.to_owned(), fingerprint };
    let mut known = record_share(core, key, origin, manifest, ShareStage::Listed)?;
    known.state = standing;
    register_share(core, known.clone());
    unserve_unless_active_user(core, &known);
    Ok(())
}

/// Whether the user of a share is still the one who is logged in; else it is served no more. For whoever has just served
/// it: a login takes down what it finds, and does not find what comes after.
pub(in crate::node) fn unserve_unless_active_user(core: &NodeCore, known: &LocalShare) -> bool {
    let ShareRecord { user, key, .. } = &known.record;
    let here = core.trackers.user();
    if here.as_ref() == Some(user) {
        return true;
    }
    core.shares.update(&known.id, |known| known.state = ShareState::NotServed);
    if here.is_none_or(|here| core.shares.get(&here, key).is_none()) {
        unserve_file(core, key);
    }
    false
}

/// What becomes of an upload that the trackers did not take: it waits for them if they may take it later.
fn handle_listing_fault(core: &NodeCore, known: LocalShare, fault: ClientFault) -> ClientFault {
    // Whoever went away wants it no more; what is wrong with the request or here is for whoever asked to mend.
    let given_up = matches!(
        fault.exit,
        ExitCause::Interrupted | ExitCause::Usage | ExitCause::LocalIo | ExitCause::Protocol
    );
    // What is shared under this name now is worth more than what may be refused later for being other content.
    let other_is_shared = core.shares.get(&known.record.user, &known.record.key).is_some_and(|before| {
        before.record.stage == ShareStage::Listed && before.record.content != known.record.content
    });
    if given_up || other_is_shared || pending_after_listing(&fault).is_none() {
        if let Err(kept) = core.records.forget_share(&known.id) {
            core.notices.post(&kept.message);
        }
        return fault;
    }
    let message = format!(
        "{}; {} is hashed and recorded, and is listed and shared by the running node as soon as a tracker takes it",
        fault.message, known.record.key
    );
    register_share(core, known);
    core.recovery_wakeup.set();
    ClientFault { message, ..fault }
}

/// Serves a file no longer, and tells the trackers: later, where none can be reached.
///
/// # Errors
/// The trackers' refusal; it is not served any more all the same.
pub(in crate::node) fn stop_share(core: &NodeCore, key: &GroupFile) -> Result<String, ClientFault> {
    unserve_file(core, key);
    let _claim = core.share_locks.acquire(key, &core.shutdown)?;
    // Whoever held the claim may have served it just now.
    unserve_file(core, key);
    let command = Command::StopShare { file: key.clone() };
    let Some(known) = core.trackers.user().and_then(|user| core.shares.get(&user, key)) else {
        return request_done(core, command).map(|((), message)| message);
    };
    let was_listed = matches!(known.record.stage, ShareStage::Listed | ShareStage::Stopped);
    let marked = mark_stopped(core, &known);
    let told = core.trackers.request_as::<IgnoredAny>(&known.record.user, command, RequestUrgency::Immediate);
    match told {
        Err(fault) if pending_after(&fault).is_some() => {
            core.recovery_wakeup.set();
            let unmarked = marked.err().map(|disk| format!(", unless this node restarts before: {disk}"));
            let message = format!(
                "{fault}; {key} is served no more, and the trackers are told as soon as one takes it{}",
                unmarked.unwrap_or_default()
            );
            Err(ClientFault { message, ..fault })
        }
        told => {
            core.shares.remove(&known.id);
            core.records.forget_share(&known.id)?;
            match told {
                // What they never took they do not know, or not from this user any more.
                Err(_) if !was_listed => Ok(format!("{key} is given up; the trackers had not taken it")),
                told => told.map(|(_, message)| message),
            }
        }
    }
}

/// Notes, durably, that a share was stopped and the trackers do not know it yet.
fn mark_stopped(core: &NodeCore, known: &LocalShare) -> Result<(), ClientFault> {
    match core.shares.update(&known.id, |known| known.record.stage = ShareStage::Stopped) {
        Some(changed) => core.records.write_share(&changed.id, &changed.record),
        None => Ok(()),
    }
}

/// Forgets a share, whatever the trackers know.
pub(in crate::node) fn forget_share(core: &NodeCore, known: &LocalShare) {
    core.shares.remove(&known.id);
    if let Err(fault) = core.records.forget_share(&known.id) {
        core.notices.post(&fault.message);
    }
}

/// Serves a share no more, and forgets it: the trackers do not know it, or not any more.
pub(in crate::node) fn drop_share(core: &NodeCore, known: &LocalShare) {
    unserve_file(core, &known.record.key);
    forget_share(core, known);
}

/// Takes down all that the user of this node shares and `which` chooses, and forgets it: the trackers did so already.
pub(in crate::node) fn drop_shares(core: &NodeCore, which: impl Fn(&GroupFile, ShareStage) -> bool) {
    let served = |key: &GroupFile| which(key, ShareStage::Listed);
    unserve_matching(core, served);
    let user = core.trackers.user().unwrap_or_default();
    for LocalShare { record: ShareRecord { key, stage, .. }, .. } in core.shares.of_user(&user) {
        if !which(&key, stage) {
            continue;
        }
        // At the node's end nobody serves it again, so that it is forgotten without the claim.
        let _claim = core.share_locks.acquire(&key, &core.shutdown).ok();
        if let Some(known) = core.shares.get(&user, &key) {
            drop_share(core, &known);
        }
    }
    // Whoever held a claim may have served some just now.
    unserve_matching(core, served);
}

fn unserve_matching(core: &NodeCore, which: impl Fn(&GroupFile) -> bool) {
    let served = core.peer.started_engine().map(|engine| engine.shares()).unwrap_or_default();
    served
        .iter()
        .filter_map(|share| to_tracker_key(&share.key))
        .filter(which)
        .for_each(|key| unserve_file(core, &key));
}

/// Whether something is served under a key; `None` without an engine.
pub(in crate::node) fn is_served(core: &NodeCore, key: &GroupFile) -> Option<bool> {
    let key = to_engine_key(key);
    Some(core.peer.started_engine()?.shares().iter().any(|share| share.key == key))
}

/// Whether this node serves all of a file.
pub(in crate::node) fn is_serving_whole_file(core: &NodeCore, key: &GroupFile) -> bool {
    let user = core.trackers.user().unwrap_or_default();
    let listed = core.shares.get(&user, key).is_some_and(|known| known.record.stage == ShareStage::Listed);
    listed && is_served(core, key) == Some(true)
}

/// Serves a file no longer.
pub(in crate::node) fn unserve_file(core: &NodeCore, key: &GroupFile) {
    if let Some(engine) = core.peer.started_engine() {
        // It may have gone by itself meanwhile.
        let _ = engine.unshare(&to_engine_key(key));
    }
}

/// Serves nothing but what belongs to `user` and what they are fetching; what this user shared before comes back in the
/// background.
pub(in crate::node) fn set_active_user(core: &NodeCore, user: &str, fetching: &[GroupFile]) {
    core.shares.mark_others_not_served(user);
    core.recovery_wakeup.set();
    let Some(engine) = core.peer.started_engine() else { return };
    let own = core.shares.of_user(user);
    for share in engine.shares() {
        let keys = own.iter().map(|known| &known.record.key).chain(fetching);
        if !keys.into_iter().any(|key| to_engine_key(key) == share.key) {
            // As above.
            let _ = engine.unshare(&share.key);
        }
    }
}

/// Tells the user and the trackers of sources that changed under this node; the engine has stopped serving them.
/// `told` are those known already.
pub(in crate::node) fn withdraw_changed_files(core: &NodeCore, told: &mut BTreeSet<EngineKey>) {
    let shares = core.peer.started_engine().map(|engine| engine.shares()).unwrap_or_default();
    told.retain(|key| shares.iter().any(|share| share.key == *key && share.source_change.is_some()));
    for share in shares {
        if share.source_change.is_none() || told.contains(&share.key) {
            continue;
        }
        let Some(key) = to_tracker_key(&share.key) else { continue };
        // Whoever has it may take long, and the pulse must not: the next beat looks again.
        let Some(_claim) = core.share_locks.try_acquire(&key) else { continue };
        let Some(why) = source_change(core, &share.key) else { continue };
        // Without a user there is nobody to tell; once there is one, the next beat looks again.
        let Some(user) = core.trackers.user() else { continue };
        told.insert(share.key);
        match core.shares.get(&user, &key) {
            Some(known) => withdraw_share(core, &known, &why),
            None => {
                core.notices.post(&changed_message(&key, &why));
                report_stopped(core, &user, &key);
            }
        }
    }
}

/// How the source of what is served under a key differs from what was shared, if it does.
fn source_change(core: &NodeCore, key: &EngineKey) -> Option<String> {
    core.peer.started_engine()?.shares().into_iter().find(|share| share.key == *key)?.source_change
}

/// A file is not what was shared: says so, and has the trackers told. The caller holds the share's claim.
pub(in crate::node) fn withdraw_share(core: &NodeCore, known: &LocalShare, why: &str) {
    core.notices.post(&changed_message(&known.record.key, why));
    if let Err(fault) = mark_stopped(core, known) {
        core.notices.post(&fault.message);
    }
    core.recovery_wakeup.set();
}

fn changed_message(key: &GroupFile, why: &str) -> String {
    format!(
        "{key} is not shared any more: {why}; to share it as it is now: `remove_file GROUP NAME`, then `upload_file` \
         again, or upload it under another name"
    )
}

/// Tells the trackers, once and in the name of `user`, that this node does not serve a file.
pub(in crate::node) fn report_stopped(core: &NodeCore, user: &str, key: &GroupFile) {
    let command = Command::StopShare { file: key.clone() };
    if let Err(fault) = core.trackers.request_as::<IgnoredAny>(user, command, RequestUrgency::Background) {
        tracing::info!("the trackers do not know yet: {fault}");
    }
}

fn request_done(core: &NodeCore, command: Command) -> Result<((), String), ClientFault> {
    core.trackers.request::<IgnoredAny>(command, RequestUrgency::Immediate).map(|(_, message)| ((), message))
}

fn share_name(path: &Path) -> Result<FileName, ClientFault> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        ClientFault::new(ExitCause::Usage, format!("{} has no name that is text", path.display()))
            .fix("rename it, or share it by a link with another name")
    })?;
    FileName::new(name).map_err(|bad| {
        ClientFault::new(
            ExitCause::Usage,
            format!("{} cannot be shared under its name: {bad}", path.display()),
        )
        .fix("rename it, or share it by a hard link with another name")
    })
}

/// A share that a restart could not read again is none. One that takes the place of another is not one more.
fn check_share_limit(core: &NodeCore, user: &str, key: &GroupFile) -> Result<(), ClientFault> {
    if core.shares.count() < limits::SHARES_MAX || core.shares.get(user, key).is_some() {
        return Ok(());
    }
    let message = format!("this node shares {} files already, and no more are taken", limits::SHARES_MAX);
    Err(ClientFault::new(ExitCause::Other, message).fix("stop one of them: `stop_share GROUP FILE`"))
}

/// Whoever may not list the group's files may not add to them: better said before the hashing than after.
fn check_membership(core: &NodeCore, group: &GroupId) -> Result<(), ClientFault> {
    let command = Command::ListFiles { group: group.clone(), after: None, count: Some(1) };
    request_done(core, command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_shared_are_refused_before_hashing() {
        assert_eq!(share_name(Path::new("/a/b c")).map(|name| name.to_string()), Ok("b c".into()));
        for path in ["/", "/a/..", "/a/x\u{202E}y", "/a/b\nc"] {
            assert_eq!(share_name(Path::new(path)).unwrap_err().exit, ExitCause::Usage, "{path:?}");
        }
    }
}
