//! Ends shares: at a user's command, or because the file has changed or the tracker does not know the share.
//! Also stops serving the files of other users after a login; their shares remain.
//!
//! Always true: a file that its user stops is no longer served from that moment, even if the tracker refuses
//! the request or cannot be reached.

use std::collections::BTreeSet;

use engine::proto::manifest::FileKey as EngineKey;
use engine::proto::units::Digest;
use serde::de::IgnoredAny;
use tracker::api::GroupFile;
use tracker::api::failure::FailureCode;
use tracker::api::request::Command;

use super::share::{LocalShare, ShareState, Shares};
use crate::exit::{ClientFault, ExitCause};
use crate::node::core::{NodeCore, quote_key, to_engine_key, to_tracker_key};
use crate::node::disk::records::SharedFile;
use crate::node::retry_policy::pending_after;
use crate::node::trackers::RequestUrgency;
use crate::quoting;

/// Ends the share of a file: the command `stop_share`. If no tracker can be reached, the recovery thread
/// tells one later.
///
/// # Errors
/// The tracker's refusal, or that no tracker can be reached. The file is no longer served in either case.
pub(in crate::node) fn stop_share(shares: &Shares, key: &GroupFile) -> Result<String, ClientFault> {
    let core = &shares.core;
    unserve_file(core, key);
    let mut scope = core.locks.scope();
    let _share_lock = scope.lock_share(key)?;
    // The previous holder of the lock may have served the file again.
    unserve_file(core, key);
    let Some(share) = core.trackers.user().and_then(|user| shares.table.get(&user, key)) else {
        let command = Command::StopShare { file: key.clone(), content: None };
        return core
            .trackers
            .request::<IgnoredAny>(command, RequestUrgency::Immediate)
            .map(|(_, message)| message);
    };
    let was_known = share.state.is_listed() || matches!(share.state, ShareState::Stopped { .. });
    let marked = mark_stopped(shares, &share);
    let user = &share.file.user;
    let command = Command::StopShare { file: key.clone(), content: Some(share.file.content) };
    let answer = core.trackers.request_as::<IgnoredAny>(user, command, RequestUrgency::Immediate);
    if let Err(fault) = &answer
        && pending_after(fault).is_some()
    {
        core.recovery_wakeup.set();
        let unmarked = marked.err().map(|disk| format!(", unless this node restarts before: {disk}"));
        let message = format!(
            "{fault}; {key} is no longer served, and the trackers are told as soon as one accepts the request{}",
            unmarked.unwrap_or_default()
        );
        return Err(ClientFault { message, ..fault.clone() });
    }
    shares.table.remove(&share.id);
    core.records.remove_share(&share.id)?;
    match answer {
        // The tracker has never listed the file, so its refusal is expected.
        Err(_) if !was_known => Ok(format!("{key} is no longer shared; the trackers did not list it")),
        Err(fault) if fault.refusal_code == Some(FailureCode::OtherContent) => {
            Ok(format!("{key} is no longer shared; {fault}"))
        }
        answer => answer.map(|(_, message)| message),
    }
}

/// Marks a share as stopped, in the table and on the disk.
fn mark_stopped(shares: &Shares, share: &LocalShare) -> Result<(), ClientFault> {
    match shares.table.update(&share.id, ShareState::mark_stopped) {
        Some(stopped) => shares.core.records.write_share(&stopped.id, &stopped.to_record()),
        None => Ok(()),
    }
}

/// Ends a share that the tracker does not know, or no longer knows.
pub(super) fn remove_share(shares: &Shares, share: &LocalShare) {
    unserve_share(&shares.core, &share.file);
    shares.remove(share);
}

/// Ends the shares of the logged-in user that `is_chosen` selects. The tracker has already ended them.
pub(in crate::node) fn remove_shares(shares: &Shares, is_chosen: impl Fn(&GroupFile, &ShareState) -> bool) {
    let core = &shares.core;
    let is_chosen_served = |key: &GroupFile| is_chosen(key, &ShareState::Served);
    unserve_matching(core, is_chosen_served);
    let user = core.trackers.user().unwrap_or_default();
    for LocalShare { file, state, .. } in shares.table.shares_of_user(&user) {
        if !is_chosen(&file.key, &state) {
            continue;
        }
        // During shutdown no lock is granted. Then no thread serves the file again, so the lock is not needed.
        let mut scope = core.locks.scope();
        let _share_lock = scope.lock_share(&file.key).ok();
        if let Some(share) = shares.table.get(&user, &file.key) {
            remove_share(shares, &share);
        }
    }
    // A previous holder of a lock may have served its file again.
    unserve_matching(core, is_chosen_served);
}

fn unserve_matching(core: &NodeCore, is_chosen: impl Fn(&GroupFile) -> bool) {
    let served = core.peer.started_engine().map(|engine| engine.shares()).unwrap_or_default();
    let keys = served.iter().filter_map(|share| to_tracker_key(&share.key));
    keys.filter(is_chosen).for_each(|key| unserve_file(core, &key));
}

/// Whether the engine serves a file, whole or in part. `None` if the engine has not started.
pub(in crate::node) fn is_served(core: &NodeCore, key: &GroupFile) -> Option<bool> {
    let key = to_engine_key(key);
    Some(core.peer.started_engine()?.shares().iter().any(|share| share.key == key))
}

/// Whether the logged-in user shares the whole file on this node, and the engine serves it.
pub(in crate::node) fn is_serving_whole_file(shares: &Shares, key: &GroupFile) -> bool {
    let user = shares.core.trackers.user().unwrap_or_default();
    let is_listed = shares.table.get(&user, key).is_some_and(|share| share.state.is_listed());
    is_listed && is_served(&shares.core, key) == Some(true)
}

/// Stops serving a file, with any content.
fn unserve_file(core: &NodeCore, key: &GroupFile) {
    if let Some(engine) = core.peer.started_engine() {
        // The engine may have stopped by itself.
        let _ = engine.unshare(&to_engine_key(key));
    }
}

/// Stops serving the content of a share. The engine may serve other content under its name by now: that of a download.
pub(super) fn unserve_share(core: &NodeCore, file: &SharedFile) {
    if let Some(engine) = core.peer.started_engine() {
        // The engine may have stopped by itself.
        let _ = engine.unshare_content(&to_engine_key(&file.key), file.content);
    }
}

/// Takes down a share that has just been served, if its user has logged out meanwhile. Returns whether the
/// user is still logged in. This is needed because a login takes down only the shares that are served at that
/// moment.
pub(super) fn unserve_unless_active_user(shares: &Shares, share: &LocalShare) -> bool {
    let core = &shares.core;
    let key = &share.file.key;
    let active = core.trackers.user();
    if active.as_ref() == Some(&share.file.user) {
        return true;
    }
    shares.table.update(&share.id, ShareState::mark_not_served);
    if active.is_none_or(|active| shares.table.get(&active, key).is_none()) {
        unserve_share(core, &share.file);
    }
    false
}

/// After a login: stops serving all files that `user` neither shares nor downloads (`fetching`). The recovery
/// thread then serves the user's shares.
pub(in crate::node) fn unserve_other_users(shares: &Shares, user: &str, fetching: &[GroupFile]) {
    shares.table.unserve_other_users(user);
    shares.core.recovery_wakeup.set();
    let Some(engine) = shares.core.peer.started_engine() else { return };
    let own = shares.table.shares_of_user(user);
    for served in engine.shares() {
        let mut keys = own.iter().map(|share| &share.file.key).chain(fetching);
        if !keys.any(|key| to_engine_key(key) == served.key) {
            // The engine may have stopped by itself.
            let _ = engine.unshare(&served.key);
        }
    }
}

/// Withdraws the shares whose files have changed. The engine has already stopped serving these. `withdrawn`
/// holds the files that earlier calls have withdrawn.
pub(in crate::node) fn withdraw_changed_files(shares: &Shares, withdrawn: &mut BTreeSet<EngineKey>) {
    let core = &shares.core;
    let served = core.peer.started_engine().map(|engine| engine.shares()).unwrap_or_default();
    withdrawn.retain(|key| served.iter().any(|share| share.key == *key && share.source_change.is_some()));
    for share in served {
        if share.source_change.is_none() || withdrawn.contains(&share.key) {
            continue;
        }
        let Some(key) = to_tracker_key(&share.key) else { continue };
        // The heartbeat must not wait for a lock, and cannot tell the tracker without a user. The next call
        // tries again.
        let mut scope = core.locks.scope();
        let Some(_share_lock) = scope.try_lock_share(&key) else { continue };
        let Some(change) = source_change(core, &share.key) else { continue };
        let Some(user) = core.trackers.user() else { continue };
        withdrawn.insert(share.key);
        match shares.table.get(&user, &key) {
            Some(share) => withdraw_share(shares, &share, &change),
            None => {
                core.notices.post(&changed_message(&key, &change));
                report_stopped(core, &user, &key, None);
            }
        }
    }
}

/// How a served file has changed since it was shared; `None` if it has not.
fn source_change(core: &NodeCore, key: &EngineKey) -> Option<String> {
    core.peer.started_engine()?.shares().into_iter().find(|share| share.key == *key)?.source_change
}

/// Ends a share whose file has changed. It stays in the table and on record, so that its user is reminded. The
/// caller holds the lock of the share.
pub(super) fn withdraw_share(shares: &Shares, share: &LocalShare, change: &str) {
    let SharedFile { key, path, .. } = &share.file;
    shares.core.notices.post(&changed_message(key, change));
    let group = key.group.as_str();
    let fix = format!(
        "{} shares it as it is now, under another name; or {} does, once its uploader or the group's owner has given \
         `remove_file {file}`; `stop_share {file}` ends its share",
        quoting::upload_renamed(group, path),
        quoting::upload_again(group, key.name.as_str(), path),
        file = quote_key(key)
    );
    let change = ClientFault::new(ExitCause::SourceChanged, change).fix(fix);
    if let Some(changed) = shares.table.update(&share.id, |state| state.mark_changed(change))
        && let Err(fault) = shares.core.records.write_share(&changed.id, &changed.to_record())
    {
        shares.core.notices.post(&fault.message);
    }
    shares.core.recovery_wakeup.set();
}

fn changed_message(key: &GroupFile, change: &str) -> String {
    format!("{key} is not shared any more: {change}; `status` says what to type to share it as it is now")
}

/// Tells the tracker once, in the name of a user, that this node does not serve a file; `content` is what it had, if known.
pub(in crate::node) fn report_stopped(core: &NodeCore, user: &str, key: &GroupFile, content: Option<Digest>) {
    let command = Command::StopShare { file: key.clone(), content };
    if let Err(fault) = core.trackers.request_as::<IgnoredAny>(user, command, RequestUrgency::Background) {
        tracing::info!("the tracker does not know yet that {key} is not shared here: {fault}");
    }
}
