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
use tracker::api::FileKey;
use tracker::api::answers::PeersAnswer;
use tracker::api::request::{Command, Gained};

use super::core::{Core, engine_key, words_of};
use super::listing;
use super::outlook::{Left, later, later_listed};
use super::records::{Shared, Stage, Unusable};
use super::registry::{Known, Standing};
use super::shares;
use super::trackers::Urgency;
use crate::exit::Fault;
use crate::quoted;

/// Why a share is not served.
enum Hurdle {
    /// It may pass.
    Passing(String),
    /// Its file is another.
    Changed,
    /// Its record was set aside, as these words say.
    SetAside(String),
}

/// Brings back what a user shares here, as far as it is not back yet.
pub(super) fn shares(core: &Core, user: &str) -> Left {
    let is_back = |known: &Known| match known.shared.stage {
        Stage::Listed => known.standing == Standing::Told,
        Stage::Refused => true,
        Stage::Unlisted | Stage::Stopped => false,
    };
    let keys: Vec<FileKey> = core
        .registry
        .of(user)
        .into_iter()
        .filter(|known| !is_back(known))
        .map(|known| known.shared.key)
        .collect();
    if keys.is_empty() {
        return Left::Nothing;
    }
    let engine = match core.peer.engine() {
        Ok(engine) => engine,
        Err(fault) => {
            core.notices.tell(&format!("nothing can be shared: {fault}"));
            return Left::Nothing;
        }
    };
    let mut left = Left::Nothing;
    for key in keys {
        if core.ending.is_over() || core.trackers.user().as_deref() != Some(user) {
            break;
        }
        left = left.max(bring_back(core, &engine, user, &key));
    }
    left
}

/// Brings back one share, as it stands by now.
fn bring_back(core: &Core, engine: &Engine, user: &str, key: &FileKey) -> Left {
    // Whoever has it may take long, and rings when there is something left to do; this is for when they do not.
    let Some(_claim) = core.claims.try_take(key) else { return Left::Something };
    let Some(known) = core.registry.get(user, key) else { return Left::Nothing };
    match known.shared.stage {
        Stage::Stopped => stopped(core, &known),
        Stage::Unlisted => unlisted(core, engine, &known),
        Stage::Refused => Left::Nothing,
        Stage::Listed => match known.standing {
            Standing::Told => Left::Nothing,
            Standing::Served => tell(core, &known),
            Standing::Down | Standing::Away { .. } => match serve(core, engine, &known, None) {
                Some(Standing::Served) => tell(core, &known),
                Some(Standing::Away { told, .. }) => away(core, &known, told),
                _ => Left::Nothing,
            },
        },
    }
}

/// Serves a share if its file is what it was; how it stands then, or `None` when there is nothing more to do for it.
fn serve(core: &Core, engine: &Engine, known: &Known, manifest: Option<&Manifest>) -> Option<Standing> {
    let standing = match put_up(core, engine, known, manifest) {
        Ok(()) => Standing::Served,
        Err(Hurdle::Passing(why)) => not_now(core, known, why),
        Err(Hurdle::Changed) => {
            let why = format!("{} is not what it was when it was shared", known.shared.path.display());
            shares::withdraw(core, known, &why);
            return None;
        }
        Err(Hurdle::SetAside(trouble)) => {
            core.notices.tell(&trouble);
            core.registry.forget(&known.id);
            shares::unserve(core, &known.shared.key);
            shares::tell_stopped(core, &known.shared.user, &known.shared.key);
            return None;
        }
    };
    let changed = core.registry.change(&known.id, |known| known.standing = standing.clone())?;
    shares::is_its_users_turn(core, &changed).then_some(standing)
}

fn put_up(core: &Core, engine: &Engine, known: &Known, manifest: Option<&Manifest>) -> Result<(), Hurdle> {
    let Shared { key, path, fingerprint, .. } = &known.shared;
    // The cheap question first: a file that is not there is looked for again and again.
    let now =
        Fingerprint::at(path).map_err(|error| Hurdle::Passing(Fault::io("look at", path, &error).message))?;
    if fingerprint.change_on_record(&now).is_some() {
        return Err(Hurdle::Changed);
    }
    let loaded;
    let manifest = match manifest {
        Some(manifest) => manifest,
        None => {
            loaded = load(core, known)?;
            &loaded
        }
    };
    engine.reshare(engine_key(key), path, manifest, *fingerprint).map_err(|error| match error {
        StorageError { kind: StorageErrorKind::Changed(_), .. } => Hurdle::Changed,
        error => Hurdle::Passing(error.to_string()),
    })
}

fn load(core: &Core, known: &Known) -> Result<Manifest, Hurdle> {
    core.records.manifest(&known.id, &known.shared).map_err(|unusable| match unusable {
        Unusable::SetAside(trouble) => Hurdle::SetAside(trouble),
        Unusable::ForNow(why) => Hurdle::Passing(why),
    })
}

/// A share that cannot be served now; said once.
fn not_now(core: &Core, known: &Known, why: String) -> Standing {
    let told = match &known.standing {
        Standing::Away { told, .. } => *told,
        _ => {
            core.notices.tell(&format!(
                "{} is not shared for now: {why}; it is again as soon as that can be read",
                known.shared.key
            ));
            false
        }
    };
    Standing::Away { why, told }
}

/// Tells the trackers that this node serves a share, and where; first it asks whether what they list under its name is
/// still this file, since whoever says to have a file says so by its name.
fn tell(core: &Core, known: &Known) -> Left {
    let Shared { key, user, content, .. } = &known.shared;
    let question = Command::GetPeers { file: key.clone(), peer_key: Some(core.peer.key()) };
    let listed = core.trackers.ask_as::<PeersAnswer>(user, question, Urgency::Background);
    let told = match listed.map(|(answer, _)| answer.ticket.and_then(|ticket| ticket.unproven_grant().ok())) {
        Ok(Some(grant)) if grant.file_id != *content => {
            shares::drop_share(core, known);
            core.notices.tell(&format!(
                "{key} is not shared any more: under this name there is another file by now; upload {} under another name",
                known.shared.path.display()
            ));
            return Left::Nothing;
        }
        Ok(_) => {
            let command = Command::UpdatePieces { file: key.clone(), gained: Gained::Complete };
            core.trackers.ask_as::<IgnoredAny>(user, command, Urgency::Background).map(drop)
        }
        Err(fault) => Err(fault),
    };
    match told {
        Ok(()) => {
            core.registry.told(&known.id);
            Left::Nothing
        }
        Err(fault) => later(&fault).unwrap_or_else(|| {
            shares::drop_share(core, known);
            core.notices.tell(&format!("{key} is not shared any more: {fault}"));
            Left::Nothing
        }),
    }
}

/// Tells the trackers, once, that a share cannot be served for now.
fn away(core: &Core, known: &Known, told: bool) -> Left {
    if told {
        return Left::Something;
    }
    if let Err(left) = say_stopped(core, known) {
        return left;
    }
    core.registry.change(&known.id, |known| {
        if let Standing::Away { told, .. } = &mut known.standing {
            *told = true;
        }
    });
    Left::Something
}

/// Tells the trackers what they have not been told: that a share was stopped.
fn stopped(core: &Core, known: &Known) -> Left {
    if let Err(left) = say_stopped(core, known) {
        return left;
    }
    shares::drop_share(core, known);
    Left::Nothing
}

/// Has the trackers know that a share is none now. That they do not know it as one is as good.
fn say_stopped(core: &Core, known: &Known) -> Result<(), Left> {
    let command = Command::StopShare { file: known.shared.key.clone() };
    match core.trackers.ask_as::<IgnoredAny>(&known.shared.user, command, Urgency::Background) {
        Ok(_) => Ok(()),
        Err(fault) => later(&fault).map_or(Ok(()), Err),
    }
}

/// Has the trackers list what was hashed before they could take it.
fn unlisted(core: &Core, engine: &Engine, known: &Known) -> Left {
    let (key, user) = (&known.shared.key, &known.shared.user);
    let manifest = match load(core, known) {
        Ok(manifest) => manifest,
        Err(Hurdle::SetAside(trouble)) => {
            core.notices.tell(&trouble);
            core.registry.forget(&known.id);
            return Left::Nothing;
        }
        Err(Hurdle::Passing(_) | Hurdle::Changed) => return Left::Something,
    };
    if let Err(fault) = listing::list(core, user, key, &manifest, Urgency::Background, &|_| Ok(())) {
        return later_listed(&fault).unwrap_or_else(|| {
            set_aside(core, known, fault);
            Left::Nothing
        });
    }
    let Some(listed) = core.registry.change(&known.id, |known| known.shared.stage = Stage::Listed) else {
        return Left::Nothing;
    };
    if let Err(fault) = core.records.write_share(&listed.id, &listed.shared) {
        core.notices.tell(&fault.message);
    }
    match serve(core, engine, &listed, Some(&manifest)) {
        Some(Standing::Served) => {
            core.registry.told(&listed.id);
            core.notices.tell(&format!("{key} is shared now"));
            Left::Nothing
        }
        Some(Standing::Away { told, .. }) => away(core, &listed, told),
        _ => Left::Nothing,
    }
}

/// Has what the trackers refused for good wait for its user: its record stays, with why, and they are not asked again.
fn set_aside(core: &Core, known: &Known, fault: Fault) {
    let (key, user) = (&known.shared.key, &known.shared.user);
    let changed = core.registry.change(&known.id, |known| {
        known.shared.stage = Stage::Refused;
        known.shared.refusal = Some(fault);
    });
    let Some(Known { id, shared, .. }) = changed else { return };
    if let Err(fault) = core.records.write_share(&id, &shared) {
        core.notices.tell(&fault.message);
    }
    core.notices.tell(&format!("{key} is not shared: {}", refused_because(&shared)));
    // It may have taken the place of one that was stopped, which they were not told.
    shares::tell_stopped(core, user, key);
}

/// Why a share was set aside, and what to type next.
pub(super) fn refused_because(shared: &Shared) -> String {
    let Shared { key, path, refusal, .. } = shared;
    let (why, first) = match refusal {
        Some(Fault { message, fix: Some(fix), .. }) => (message.as_str(), format!("{fix}; then ")),
        Some(Fault { message, fix: None, .. }) => (message.as_str(), String::new()),
        None => ("it was not said why", String::new()),
    };
    format!(
        "the trackers refuse it ({why}) and are not asked again; next: {first}`upload_file {} {}`, which does not hash \
         it again, or `stop_share {}` to give it up",
        key.group,
        quoted::path(path),
        words_of(key)
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

    use super::super::shares::{Origin, keep, replace, stop};
    use super::super::state::{SavedSession, StateDir};
    use super::*;
    use crate::exit::Exit;
    use crate::plan::NodePlan;

    /// A node of `u`, whose tracker is a port on which nobody listens.
    fn alone(directory: &Path) -> Core {
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
        Core::new(plan, state).unwrap()
    }

    /// A share of `u` that an earlier process left, listed.
    fn left_behind(core: &Core, path: PathBuf) -> (FileKey, Manifest) {
        let key = FileKey { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
        let engine = core.peer.engine().unwrap();
        let hashed = engine.hash_file(&path, key.name.clone(), &|_| {}).unwrap();
        let manifest = Manifest::clone(hashed.manifest());
        let origin = Origin { user: "u".into(), path, fingerprint: hashed.fingerprint() };
        let known = keep(core, &key, origin, &manifest, Stage::Listed).unwrap();
        replace(core, known);
        (key, manifest)
    }

    fn is_served(core: &Core) -> bool {
        !core.peer.engine().unwrap().shares().is_empty()
    }

    #[test]
    fn a_stop_is_not_undone_by_who_was_bringing_the_share_back() {
        let dir = tempfile::tempdir().unwrap();
        let core = alone(dir.path());
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let (key, manifest) = left_behind(&core, path.clone());
        let claim = core.claims.try_take(&key).unwrap();
        assert_eq!(shares(&core, "u"), Left::Something);
        assert!(!is_served(&core), "somebody else had its claim");
        drop(claim);
        assert_eq!(shares(&core, "u"), Left::Trackers);
        assert!(is_served(&core), "what can be served without a tracker is");

        let claim = core.claims.try_take(&key).unwrap();
        let known = core.registry.get("u", &key).unwrap();
        std::thread::scope(|scope| {
            let stopping = scope.spawn(|| stop(&core, &key));
            // The user's word counts at once, whoever has the claim …
            let gone = (0..3_000).any(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                !is_served(&core)
            });
            assert!(gone, "it is served although its user stopped it");
            // … and also when who has it serves the file once more.
            let engine = core.peer.engine().unwrap();
            engine.reshare(engine_key(&key), &path, &manifest, known.shared.fingerprint).unwrap();
            drop(claim);
            assert_eq!(stopping.join().unwrap().unwrap_err().exit, Exit::NoTracker);
        });
        assert_eq!(shares(&core, "u"), Left::Trackers, "the trackers are to be told");
        assert!(!is_served(&core));
        assert_eq!(core.registry.get("u", &key).unwrap().shared.stage, Stage::Stopped);
        assert_eq!(core.records.read_shares()[0].1.stage, Stage::Stopped);
        core.peer.stop();
    }

    #[test]
    fn what_is_served_when_its_user_goes_is_taken_down() {
        let dir = tempfile::tempdir().unwrap();
        let core = alone(dir.path());
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let (key, manifest) = left_behind(&core, path);
        let known = core.registry.get("u", &key).unwrap();
        core.trackers.forget_session();
        let engine = core.peer.engine().unwrap();
        assert_eq!(serve(&core, &engine, &known, Some(&manifest)), None);
        assert!(!is_served(&core));
        assert_eq!(core.registry.get("u", &key).unwrap().standing, Standing::Down);
        assert_eq!(tell(&core, &known), Left::Something, "nobody else says it in their name");
        assert!(core.registry.get("u", &key).is_some());
        core.peer.stop();
    }
}
