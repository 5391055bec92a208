//! What this node serves: hashed, told to the trackers, then shared.
//!
//! Invariant: a file is served only after the trackers took it, and no longer as soon as its user says so, whatever the
//! trackers do.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use engine::proto::manifest::{FileKey as EngineKey, FileName};
use serde::de::IgnoredAny;
use tracker::api::request::Command;
use tracker::api::{FileKey, GroupId};

use super::core::{Core, api_key, engine_key, group_id};
use super::events::Events;
use super::listing;
use super::registry::Shared;
use super::trackers::Urgency;
use crate::clock;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Event};

/// Hashes a file, tells the trackers, and serves it.
///
/// # Errors
/// The trackers' refusal, whatever the disk says, or that the front end went away while it was hashed.
pub(super) fn upload(core: &Core, group: &str, path: &Path, events: &Events<'_>) -> Result<Answer, Fault> {
    let group = group_id(group)?;
    let name = name_of(path)?;
    let user = core.trackers.require_user()?;
    let total_bytes =
        path.metadata().map_err(|error| Fault::io("read", path, &error).fix("check the path"))?.len();
    refuse_strangers(core, &group)?;
    let engine = core.peer.engine()?;
    let file = name.to_string();
    let began = clock::now();
    let hashed = engine.hash_file(path, name.clone(), &|done_bytes| {
        // Whether anybody listens is found out below.
        let _ = events.progress(|| Event::Hashing { file: file.clone(), done_bytes, total_bytes });
    })?;
    let hashing_ms = u64::try_from(clock::now().duration_since(began).as_millis()).unwrap_or(u64::MAX);
    let manifest = hashed.manifest().clone();
    let length = manifest.geometry().length();
    events.tell(Event::Hashing { file: file.clone(), done_bytes: length, total_bytes: length })?;
    listing::list(core, &group, &manifest, events)?;
    let key = FileKey { group, name };
    engine.share(engine_key(&key), hashed);
    let content = manifest.proof().id();
    core.registry.add(Shared { key: key.clone(), user, path: path.to_owned(), content });
    Ok(Answer::Uploaded {
        group: key.group.to_string(),
        file,
        size_bytes: length,
        pieces: manifest.pieces().0,
        sha1: manifest.proof().id().to_string(),
        hashing_ms,
    })
}

/// Serves a file no longer, and tells the trackers.
///
/// # Errors
/// The trackers' refusal; it is not served any more all the same.
pub(super) fn stop(core: &Core, key: &FileKey) -> Result<String, Fault> {
    unserve(core, |served| served == key);
    let ((), message) = ask_done(core, Command::StopShare { file: key.clone() })?;
    Ok(message)
}

/// Serves nothing any more of what `which` chooses, and forgets it.
pub(super) fn unserve(core: &Core, which: impl Fn(&FileKey) -> bool) {
    core.registry.forget(&which);
    let Some(engine) = core.peer.running() else { return };
    for share in engine.shares() {
        if api_key(&share.key).is_some_and(|key| which(&key)) {
            // It may have gone by itself meanwhile.
            let _ = engine.unshare(&share.key);
        }
    }
}

/// Serves what belongs to `user` (and what they are fetching) and nothing else: what others shared here is taken down,
/// what this user shared before is hashed again in the background and served if it is still the same.
///
/// # Errors
/// A fault when the system gives no thread.
pub(super) fn belong_to(core: &Arc<Core>, user: &str, fetching: &[FileKey]) -> Result<(), Fault> {
    let Some(engine) = core.peer.running() else { return Ok(()) };
    let own = core.registry.of(user);
    let served = engine.shares();
    for share in &served {
        let keys = own.iter().map(|known| &known.key).chain(fetching);
        if !keys.into_iter().any(|key| engine_key(key) == share.key) {
            // As above.
            let _ = engine.unshare(&share.key);
        }
    }
    let is_served = |known: &Shared| served.iter().any(|share| share.key == engine_key(&known.key));
    let missing: Vec<Shared> = own.into_iter().filter(|known| !is_served(known)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let core = Arc::clone(core);
    std::thread::Builder::new()
        .name("rehash".into())
        .spawn(move || missing.iter().for_each(|shared| bring_back(&core, shared)))
        .map(drop)
        .map_err(|error| Fault::new(Exit::Other, format!("the system gives no thread: {error}")))
}

fn bring_back(core: &Core, shared: &Shared) {
    let Some(engine) = core.peer.running() else { return };
    let still_wanted = || {
        let here = core.trackers.user().as_deref() == Some(shared.user.as_str());
        here && !core.ending.is_over() && core.registry.of(&shared.user).contains(shared)
    };
    if !still_wanted() {
        return;
    }
    let why = match engine.hash_file(&shared.path, shared.key.name.clone(), &|_| {}) {
        Ok(hashed) if hashed.manifest().proof().id() == shared.content => {
            if still_wanted() {
                engine.share(engine_key(&shared.key), hashed);
                core.notices.tell(&format!("{} is shared again", shared.key));
            }
            return;
        }
        Ok(_) => format!("{} is another file now", shared.path.display()),
        Err(error) => error.to_string(),
    };
    core.registry.forget(|key| *key == shared.key);
    tell_withdrawn(core, shared.key.clone(), &why);
}

/// Tells the user and the trackers of sources that changed under this node; the engine has stopped serving them.
/// `told` are those known already.
pub(super) fn withdraw_changed(core: &Core, told: &mut BTreeSet<EngineKey>) {
    let shares = core.peer.running().map(|engine| engine.shares()).unwrap_or_default();
    told.retain(|key| shares.iter().any(|share| share.key == *key && share.changed.is_some()));
    for share in shares {
        let Some(why) = share.changed else { continue };
        if !told.insert(share.key.clone()) {
            continue;
        }
        if let Some(key) = api_key(&share.key) {
            tell_withdrawn(core, key, &why);
        }
    }
}

fn tell_withdrawn(core: &Core, key: FileKey, why: &str) {
    core.notices
        .tell(&format!("{key} is not shared any more: {why}; upload it again to share it as it is now"));
    if let Err(fault) = core.trackers.ask::<IgnoredAny>(Command::StopShare { file: key }, Urgency::Background)
    {
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
