//! Uploads a file: hashes it, records the share, lists it at a tracker, and serves it. Also makes a complete
//! download a share.
//!
//! Always true: a share is recorded before the tracker is asked to list it, so that a restart finds it. It is
//! served only after the tracker has listed it.

use std::path::Path;
use std::sync::Arc;

use engine::Engine;
use engine::proto::manifest::Manifest;
use engine::storage::fingerprint::{Fingerprint, FingerprintMatch};
use serde::de::IgnoredAny;
use tracker::api::request::{Command, ListPage};
use tracker::api::{GroupFile, GroupId};

use super::listing;
use super::share::{LocalShare, ShareOrigin, ShareState, Shares};
use super::stop::unserve_unless_active_user;
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeEvent};
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::events::EventStream;
use crate::node::retry_policy::pending_after_listing;
use crate::node::trackers::RequestUrgency;
use crate::printable::show_path;
use crate::quoting;

/// A file that is ready to be listed.
struct PreparedUpload {
    manifest: Arc<Manifest>,
    fingerprint: Fingerprint,
    /// 0 if the manifest was on record.
    hashing_ms: u64,
}

/// Shares a file in a group: the command `upload_file`.
///
/// # Errors
/// The tracker's refusal. A storage fault. The front end disconnected while the file was hashed. If the share
/// cannot be recorded, the tracker is not told, since a restart would lose the share.
pub(in crate::node) fn upload_file(
    shares: &Shares,
    key: &GroupFile,
    path: &Path,
    events: &EventStream<'_>,
) -> Result<NodeAnswer, ClientFault> {
    let core = &shares.core;
    let user = core.trackers.require_user()?;
    path.metadata().map_err(|error| ClientFault::io("read", path, &error).default_fix("check the path"))?;
    shares.check_limit(&user, key)?;
    check_membership(core, &key.group)?;
    check_new_name(core, key, path)?;
    let engine = core.peer.engine()?;
    let PreparedUpload { manifest, fingerprint, hashing_ms } =
        hash_unless_known(shares, &engine, &user, key, path, events)?;
    let (total_bytes, content) = (manifest.geometry().length(), manifest.proof().id());
    let file = key.name.to_string();
    events.send(NodeEvent::Hashing { file: file.clone(), done_bytes: total_bytes, total_bytes })?;
    let origin = ShareOrigin { user: user.clone(), path: path.to_owned(), fingerprint };
    let mut scope = core.locks.scope();
    let _share_lock = scope.lock_share(key)?;
    let mut share = shares.write_record(key, origin, &manifest, ShareState::Unlisted)?;
    let listed = listing::list_file(core, &user, key, &manifest, RequestUrgency::Immediate, &|done_bytes| {
        events.send_progress(|| NodeEvent::Listing { file: file.clone(), done_bytes, total_bytes })
    });
    if let Err(fault) = listed {
        return Err(handle_listing_fault(shares, share, fault));
    }
    share.state.mark_listed();
    let recorded = core.records.write_share(&share.id, &share.to_record());
    let loader = shares.manifest_loader(&share);
    let served = engine.share_file(to_engine_key(key), path, &manifest, fingerprint, loader);
    if served.is_ok() {
        share.state.mark_served();
        share.state.mark_announced();
    }
    shares.register(share.clone());
    unserve_unless_active_user(shares, &share);
    // If the file has changed since it was hashed, the recovery thread withdraws it at the tracker.
    core.recovery_wakeup.set();
    served?;
    recorded?;
    Ok(NodeAnswer::Uploaded {
        group: key.group.to_string(),
        file,
        size_bytes: total_bytes,
        pieces: manifest.pieces().0,
        sha1: content.to_string(),
        hashing_ms,
    })
}

/// Hashes a file. If its user already shares it and it has the recorded fingerprint, reads the recorded
/// manifest instead.
fn hash_unless_known(
    shares: &Shares,
    engine: &Engine,
    user: &str,
    key: &GroupFile,
    path: &Path,
    events: &EventStream<'_>,
) -> Result<PreparedUpload, ClientFault> {
    if let Some(LocalShare { id, file, .. }) = shares.table.get(user, key)
        && file.path == path
        && Fingerprint::at(path)
            .is_ok_and(|now| file.fingerprint.compare_ignoring_device(&now) == FingerprintMatch::Same)
        && let Ok(manifest) = shares.core.records.manifest(&id, &file)
    {
        let manifest = Arc::new(manifest);
        return Ok(PreparedUpload { manifest, fingerprint: file.fingerprint, hashing_ms: 0 });
    }
    let total_bytes = path.metadata().map_or(0, |found| found.len());
    let file = key.name.to_string();
    let began = clock::now();
    let hashed = engine.hash_file(path, key.name.clone(), &|done_bytes| {
        // Ignored: the caller notices a disconnected front end when it sends the next event.
        let _ = events.send_progress(|| NodeEvent::Hashing { file: file.clone(), done_bytes, total_bytes });
    })?;
    let hashing_ms = u64::try_from(clock::now().duration_since(began).as_millis()).unwrap_or(u64::MAX);
    let (manifest, fingerprint) = (Arc::clone(hashed.manifest()), hashed.fingerprint());
    Ok(PreparedUpload { manifest, fingerprint, hashing_ms })
}

/// Handles a failed listing. If the tracker may list the file later, the share is kept and waits; otherwise its
/// record is removed. Returns the fault for the user.
fn handle_listing_fault(shares: &Shares, share: LocalShare, fault: ClientFault) -> ClientFault {
    let core = &shares.core;
    // The front end has disconnected, or the user has to correct something.
    let is_given_up = matches!(
        fault.exit,
        ExitCause::Interrupted | ExitCause::Usage | ExitCause::LocalIo | ExitCause::Protocol
    );
    // The user already shares other content under this name. Do not replace that share by one that the tracker
    // may refuse.
    let other_is_shared = shares
        .table
        .get(&share.file.user, &share.file.key)
        .is_some_and(|known| known.state.is_listed() && known.file.content != share.file.content);
    if is_given_up || other_is_shared || pending_after_listing(&fault).is_none() {
        if let Err(kept) = core.records.remove_share(&share.id) {
            core.notices.post(&kept.message);
        }
        return fault;
    }
    let message = format!(
        "{}; {} is hashed and recorded, and the running node lists and shares it as soon as a tracker can be reached",
        fault.message, share.file.key
    );
    shares.register(share);
    core.recovery_wakeup.set();
    ClientFault { message, ..fault }
}

/// Makes a complete download a share. The caller holds the lock of the share.
///
/// # Errors
/// The share cannot be recorded.
pub(in crate::node) fn share_download(
    shares: &Shares,
    key: &GroupFile,
    origin: ShareOrigin,
    manifest: &Manifest,
    state: ShareState,
) -> Result<(), ClientFault> {
    assert!(state.is_listed(), "{key}: a file that was downloaded is listed");
    let share = shares.write_record(key, origin, manifest, state)?;
    shares.register(share.clone());
    if let Some(engine) = shares.core.peer.started_engine() {
        // Until now the engine has kept the manifest of the download.
        let loader = shares.manifest_loader(&share);
        engine.set_manifest_loader(&to_engine_key(key), share.file.content, loader);
    }
    unserve_unless_active_user(shares, &share);
    Ok(())
}

/// Refuses an upload to a group of which the user is not a member, before the file is hashed. Asks for a file
/// of the group, which only members may list.
fn check_membership(core: &NodeCore, group: &GroupId) -> Result<(), ClientFault> {
    let command = Command::ListFiles { group: group.clone(), page: ListPage { after: None, count: Some(1) } };
    core.trackers.request::<IgnoredAny>(command, RequestUrgency::Immediate).map(drop)
}

/// Refuses a name that looks like another one before the file is hashed. One that is listed already stays usable.
fn check_new_name(core: &NodeCore, key: &GroupFile, path: &Path) -> Result<(), ClientFault> {
    let Err(bad) = key.name.check_new() else { return Ok(()) };
    let command = Command::GetPeers { file: key.clone(), content: None, peer_key: None };
    match core.trackers.request::<IgnoredAny>(command, RequestUrgency::Immediate) {
        Ok(_) => return Ok(()),
        Err(fault) if fault.exit == ExitCause::NotFound => {}
        Err(fault) => return Err(fault),
    }
    let message = format!("{} cannot be shared under this name: {bad}", show_path(path));
    let fix = quoting::upload_as(key.group.as_str(), path);
    Err(ClientFault::new(ExitCause::Usage, message).fix(format!("{fix} shares it under another name")))
}
