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
use tracker::api::{FileKey, GroupId};

use super::core::{Core, api_key, engine_key, group_id};
use super::events::Events;
use super::listing;
use super::outlook::{later, later_listed};
use super::records::{Seal, Shared, Stage};
use super::registry::{Known, Standing};
use super::trackers::Urgency;
use crate::clock;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Event};
use crate::limits;

/// A file that is ready to be listed, and how it is served then.
struct Prepared {
    manifest: Arc<Manifest>,
    fingerprint: Fingerprint,
    hashing_ms: u64,
}

/// Hashes a file, tells the trackers, and serves it.
///
/// # Errors
/// The trackers' refusal, whatever the disk says, or that the front end went away while it was hashed; also when it cannot
/// be recorded, since a restart would lose it: then the trackers are not told.
pub(super) fn upload(core: &Core, group: &str, path: &Path, events: &Events<'_>) -> Result<Answer, Fault> {
    let group = group_id(group)?;
    let key = FileKey { group, name: name_of(path)? };
    let user = core.trackers.require_user()?;
    path.metadata().map_err(|error| Fault::io("read", path, &error).fix("check the path"))?;
    refuse_too_many_shares(core, &user, &key)?;
    refuse_strangers(core, &key.group)?;
    let engine = core.peer.engine()?;
    let Prepared { manifest, fingerprint, hashing_ms } = prepare(core, &engine, &user, &key, path, events)?;
    let (length, content) = (manifest.geometry().length(), manifest.proof().id());
    let file = key.name.to_string();
    events.tell(Event::Hashing { file: file.clone(), done_bytes: length, total_bytes: length })?;
    let origin = Origin { user: user.clone(), path: path.to_owned(), fingerprint };
    let _claim = core.claims.take(&key, &core.ending)?;
    let mut known = keep(core, &key, origin, &manifest, Stage::Unlisted)?;
    let total_bytes = length;
    let listed = listing::list(core, &user, &key, &manifest, Urgency::Asked, &|done_bytes| {
        events.progress(|| Event::Listing { file: file.clone(), done_bytes, total_bytes })
    });
    if let Err(fault) = listed {
        return Err(not_listed(core, known, fault));
    }
    known.shared.stage = Stage::Listed;
    let recorded = core.records.write_share(&known.id, &known.shared);
    let served = engine.reshare(engine_key(&key), path, &manifest, fingerprint);
    known.standing = if served.is_ok() { Standing::Told } else { Standing::Down };
    replace(core, known.clone());
    is_its_users_turn(core, &known);
    // Whatever changed the file since it was hashed: the trackers must hear that it is not served.
    core.bell.ring();
    served?;
    recorded?;
    let (pieces, sha1) = (manifest.pieces().0, content.to_string());
    Ok(Answer::Uploaded { group: key.group.to_string(), file, size_bytes: length, pieces, sha1, hashing_ms })
}

/// Hashes the file; not if it is known, and looks as it did when it was hashed.
fn prepare(
    core: &Core,
    engine: &Engine,
    user: &str,
    key: &FileKey,
    path: &Path,
    events: &Events<'_>,
) -> Result<Prepared, Fault> {
    if let Some(known) = core.registry.get(user, key)
        && known.shared.path == path
        && Fingerprint::at(path).is_ok_and(|now| known.shared.fingerprint.change_on_record(&now).is_none())
        && let Ok(manifest) = core.records.manifest(&known.id, &known.shared)
    {
        let fingerprint = known.shared.fingerprint;
        return Ok(Prepared { manifest: Arc::new(manifest), fingerprint, hashing_ms: 0 });
    }
    let total_bytes = path.metadata().map_or(0, |found| found.len());
    let file = key.name.to_string();
    let began = clock::now();
    let hashed = engine.hash_file(path, key.name.clone(), &|done_bytes| {
        // Whether anybody listens is found out by the caller.
        let _ = events.progress(|| Event::Hashing { file: file.clone(), done_bytes, total_bytes });
    })?;
    let hashing_ms = u64::try_from(clock::now().duration_since(began).as_millis()).unwrap_or(u64::MAX);
    let (manifest, fingerprint) = (Arc::clone(hashed.manifest()), hashed.fingerprint());
    Ok(Prepared { manifest, fingerprint, hashing_ms })
}

/// Whose file it is, where it lies, and what it looks like there.
pub(super) struct Origin {
    /// The user.
    pub(super) user: String,
    /// The path.
    pub(super) path: PathBuf,
    /// The file's looks.
    pub(super) fingerprint: Fingerprint,
}

/// Records a share: on the disk when it returns. It is not in the registry yet.
///
/// # Errors
/// A fault when it cannot be written, or would be one too many; then nothing is recorded.
pub(super) fn keep(
    core: &Core,
    key: &FileKey,
    origin: Origin,
    manifest: &Manifest,
    stage: Stage,
) -> Result<Known, Fault> {
    let Origin { user, path, fingerprint } = origin;
    refuse_too_many_shares(core, &user, key)?;
    let seal = Seal::of(manifest);
    let content = manifest.proof().id();
    let key = key.clone();
    let shared = Shared { key, user, path, fingerprint, content, seal, stage, refusal: None };
    let id = core.records.keep_share(&shared, manifest)?;
    Ok(Known { id, shared, standing: Standing::Down })
}

/// Puts a share into the registry; what it replaces is forgotten.
pub(super) fn replace(core: &Core, known: Known) {
    if let Some(before) = core.registry.add(known)
        && let Err(fault) = core.records.forget_share(&before.id)
    {
        core.notices.tell(&fault.message);
    }
}

/// A file that was fetched is shared from now on, also after a restart. The caller holds the share's claim.
///
/// # Errors
/// A fault when that cannot be recorded.
pub(super) fn become_share(
    core: &Core,
    key: &FileKey,
    user: &str,
    path: &Path,
    fingerprint: Fingerprint,
    manifest: &Manifest,
    standing: Standing,
) -> Result<(), Fault> {
    let origin = Origin { user: user.to_owned(), path: path.to_owned(), fingerprint };
    let mut known = keep(core, key, origin, manifest, Stage::Listed)?;
    known.standing = standing;
    replace(core, known.clone());
    is_its_users_turn(core, &known);
    Ok(())
}

/// Whether the user of a share is still the one who is logged in; else it is served no more. For whoever has just served
/// it: a login takes down what it finds, and does not find what comes after.
pub(super) fn is_its_users_turn(core: &Core, known: &Known) -> bool {
    let Shared { user, key, .. } = &known.shared;
    let here = core.trackers.user();
    if here.as_ref() == Some(user) {
        return true;
    }
    core.registry.change(&known.id, |known| known.standing = Standing::Down);
    if here.is_none_or(|here| core.registry.get(&here, key).is_none()) {
        unserve(core, key);
    }
    false
}

/// What becomes of an upload that the trackers did not take: it waits for them if they may take it later.
fn not_listed(core: &Core, known: Known, fault: Fault) -> Fault {
    // Whoever went away wants it no more; what is wrong with the request or here is for whoever asked to mend.
    let given_up = matches!(fault.exit, Exit::Interrupted | Exit::Usage | Exit::LocalIo | Exit::Protocol);
    // What is shared under this name now is worth more than what may be refused later for being other content.
    let other_is_shared = core.registry.get(&known.shared.user, &known.shared.key).is_some_and(|before| {
        before.shared.stage == Stage::Listed && before.shared.content != known.shared.content
    });
    if given_up || other_is_shared || later_listed(&fault).is_none() {
        if let Err(kept) = core.records.forget_share(&known.id) {
            core.notices.tell(&kept.message);
        }
        return fault;
    }
    let message = format!(
        "{}; {} is hashed and recorded, and is listed and shared by the running node as soon as a tracker takes it",
        fault.message, known.shared.key
    );
    replace(core, known);
    core.bell.ring();
    Fault { message, ..fault }
}

/// Serves a file no longer, and tells the trackers: later, where none can be reached.
///
/// # Errors
/// The trackers' refusal; it is not served any more all the same.
pub(super) fn stop(core: &Core, key: &FileKey) -> Result<String, Fault> {
    unserve(core, key);
    let _claim = core.claims.take(key, &core.ending)?;
    // Whoever held the claim may have served it just now.
    unserve(core, key);
    let command = Command::StopShare { file: key.clone() };
    let Some(known) = core.trackers.user().and_then(|user| core.registry.get(&user, key)) else {
        return ask_done(core, command).map(|((), message)| message);
    };
    let was_listed = matches!(known.shared.stage, Stage::Listed | Stage::Stopped);
    let marked = mark_stopped(core, &known);
    let told = core.trackers.ask_as::<IgnoredAny>(&known.shared.user, command, Urgency::Asked);
    match told {
        Err(fault) if later(&fault).is_some() => {
            core.bell.ring();
            let unmarked = marked.err().map(|disk| format!(", unless this node restarts before: {disk}"));
            let message = format!(
                "{fault}; {key} is served no more, and the trackers are told as soon as one takes it{}",
                unmarked.unwrap_or_default()
            );
            Err(Fault { message, ..fault })
        }
        told => {
            core.registry.forget(&known.id);
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
fn mark_stopped(core: &Core, known: &Known) -> Result<(), Fault> {
    match core.registry.change(&known.id, |known| known.shared.stage = Stage::Stopped) {
        Some(changed) => core.records.write_share(&changed.id, &changed.shared),
        None => Ok(()),
    }
}

/// Forgets a share, whatever the trackers know.
pub(super) fn forget(core: &Core, known: &Known) {
    core.registry.forget(&known.id);
    if let Err(fault) = core.records.forget_share(&known.id) {
        core.notices.tell(&fault.message);
    }
}

/// Serves a share no more, and forgets it: the trackers do not know it, or not any more.
pub(super) fn drop_share(core: &Core, known: &Known) {
    unserve(core, &known.shared.key);
    forget(core, known);
}

/// Takes down all that the user of this node shares and `which` chooses, and forgets it: the trackers did so already.
pub(super) fn drop_shares(core: &Core, which: impl Fn(&FileKey, Stage) -> bool) {
    let served = |key: &FileKey| which(key, Stage::Listed);
    unserve_all(core, served);
    let user = core.trackers.user().unwrap_or_default();
    for Known { shared: Shared { key, stage, .. }, .. } in core.registry.of(&user) {
        if !which(&key, stage) {
            continue;
        }
        // At the node's end nobody serves it again, so that it is forgotten without the claim.
        let _claim = core.claims.take(&key, &core.ending).ok();
        if let Some(known) = core.registry.get(&user, &key) {
            drop_share(core, &known);
        }
    }
    // Whoever held a claim may have served some just now.
    unserve_all(core, served);
}

fn unserve_all(core: &Core, which: impl Fn(&FileKey) -> bool) {
    let served = core.peer.running().map(|engine| engine.shares()).unwrap_or_default();
    served.iter().filter_map(|share| api_key(&share.key)).filter(which).for_each(|key| unserve(core, &key));
}

/// Whether something is served under a key; `None` without an engine.
pub(super) fn is_served(core: &Core, key: &FileKey) -> Option<bool> {
    let key = engine_key(key);
    Some(core.peer.running()?.shares().iter().any(|share| share.key == key))
}

/// Whether this node serves all of a file.
pub(super) fn is_shared_whole(core: &Core, key: &FileKey) -> bool {
    let user = core.trackers.user().unwrap_or_default();
    let listed = core.registry.get(&user, key).is_some_and(|known| known.shared.stage == Stage::Listed);
    listed && is_served(core, key) == Some(true)
}

/// Serves a file no longer.
pub(super) fn unserve(core: &Core, key: &FileKey) {
    if let Some(engine) = core.peer.running() {
        // It may have gone by itself meanwhile.
        let _ = engine.unshare(&engine_key(key));
    }
}

/// Serves nothing but what belongs to `user` and what they are fetching; what this user shared before comes back in the
/// background.
pub(super) fn belong_to(core: &Core, user: &str, fetching: &[FileKey]) {
    core.registry.take_down_all_but(user);
    core.bell.ring();
    let Some(engine) = core.peer.running() else { return };
    let own = core.registry.of(user);
    for share in engine.shares() {
        let keys = own.iter().map(|known| &known.shared.key).chain(fetching);
        if !keys.into_iter().any(|key| engine_key(key) == share.key) {
            // As above.
            let _ = engine.unshare(&share.key);
        }
    }
}

/// Tells the user and the trackers of sources that changed under this node; the engine has stopped serving them.
/// `told` are those known already.
pub(super) fn withdraw_changed(core: &Core, told: &mut BTreeSet<EngineKey>) {
    let shares = core.peer.running().map(|engine| engine.shares()).unwrap_or_default();
    told.retain(|key| shares.iter().any(|share| share.key == *key && share.changed.is_some()));
    for share in shares {
        if share.changed.is_none() || told.contains(&share.key) {
            continue;
        }
        let Some(key) = api_key(&share.key) else { continue };
        // Whoever has it may take long, and the pulse must not: the next beat looks again.
        let Some(_claim) = core.claims.try_take(&key) else { continue };
        let Some(why) = changed_now(core, &share.key) else { continue };
        // Without a user there is nobody to tell; once there is one, the next beat looks again.
        let Some(user) = core.trackers.user() else { continue };
        told.insert(share.key);
        match core.registry.get(&user, &key) {
            Some(known) => withdraw(core, &known, &why),
            None => {
                core.notices.tell(&changed(&key, &why));
                tell_stopped(core, &user, &key);
            }
        }
    }
}

/// How the source of what is served under a key differs from what was shared, if it does.
fn changed_now(core: &Core, key: &EngineKey) -> Option<String> {
    core.peer.running()?.shares().into_iter().find(|share| share.key == *key)?.changed
}

/// A file is not what was shared: says so, and has the trackers told. The caller holds the share's claim.
pub(super) fn withdraw(core: &Core, known: &Known, why: &str) {
    core.notices.tell(&changed(&known.shared.key, why));
    if let Err(fault) = mark_stopped(core, known) {
        core.notices.tell(&fault.message);
    }
    core.bell.ring();
}

fn changed(key: &FileKey, why: &str) -> String {
    format!(
        "{key} is not shared any more: {why}; to share it as it is now: `remove_file GROUP NAME`, then `upload_file` \
         again, or upload it under another name"
    )
}

/// Tells the trackers, once and in the name of `user`, that this node does not serve a file.
pub(super) fn tell_stopped(core: &Core, user: &str, key: &FileKey) {
    let command = Command::StopShare { file: key.clone() };
    if let Err(fault) = core.trackers.ask_as::<IgnoredAny>(user, command, Urgency::Background) {
        tracing::info!("the trackers do not know yet: {fault}");
    }
}

fn ask_done(core: &Core, command: Command) -> Result<((), String), Fault> {
    core.trackers.ask::<IgnoredAny>(command, Urgency::Asked).map(|(_, message)| ((), message))
}

fn name_of(path: &Path) -> Result<FileName, Fault> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Fault::new(Exit::Usage, format!("{} has no name that is text", path.display()))
            .fix("rename it, or share it by a link with another name")
    })?;
    FileName::new(name).map_err(|bad| {
        Fault::new(Exit::Usage, format!("{} cannot be shared under its name: {bad}", path.display()))
            .fix("rename it, or share it by a hard link with another name")
    })
}

/// A share that a restart could not read again is none. One that takes the place of another is not one more.
fn refuse_too_many_shares(core: &Core, user: &str, key: &FileKey) -> Result<(), Fault> {
    if core.registry.count() < limits::SHARES_MAX || core.registry.get(user, key).is_some() {
        return Ok(());
    }
    let message = format!("this node shares {} files already, and no more are taken", limits::SHARES_MAX);
    Err(Fault::new(Exit::Other, message).fix("stop one of them: `stop_share GROUP FILE`"))
}

/// Whoever may not list the group's files may not add to them: better said before the hashing than after.
fn refuse_strangers(core: &Core, group: &GroupId) -> Result<(), Fault> {
    let command = Command::ListFiles { group: group.clone(), after: None, count: Some(1) };
    ask_done(core, command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_shared_are_refused_before_hashing() {
        assert_eq!(name_of(Path::new("/a/b c")).map(|name| name.to_string()), Ok("b c".into()));
        for path in ["/", "/a/..", "/a/x\u{202E}y", "/a/b\nc"] {
            assert_eq!(name_of(Path::new(path)).unwrap_err().exit, Exit::Usage, "{path:?}");
        }
    }
}
