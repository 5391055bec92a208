//! Shares that come back: served again without being read when their files are what they were, and told to the trackers.
//!
//! Invariants: a file whose fingerprint is another is served no more, withdrawn at the trackers and named; one that cannot
//! be read now is named, withdrawn, and served again as soon as it can be; the trackers are told of each share once a
//! process, which also tells them where this node listens now.

use engine::Engine;
use engine::proto::manifest::Manifest;
use engine::storage::error::{StorageError, StorageErrorKind};
use serde::de::IgnoredAny;
use tracker::api::request::{Command, Gained};

use super::core::{Core, engine_key};
use super::listing;
use super::outlook::{Left, later};
use super::records::Stage;
use super::registry::{Known, Standing};
use super::shares;
use super::trackers::Urgency;

/// Brings back what a user shares here, as far as it is not back yet.
pub(super) fn shares(core: &Core, user: &str) -> Left {
    let all = core.registry.of(user);
    if all.iter().all(|known| known.shared.stage == Stage::Listed && known.standing == Standing::Told) {
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
    for known in all {
        if core.ending.is_over() || core.trackers.user().as_deref() != Some(user) {
            break;
        }
        left = left.max(one(core, &engine, &known));
    }
    left
}

fn one(core: &Core, engine: &Engine, known: &Known) -> Left {
    match known.shared.stage {
        Stage::Stopped => stopped(core, known),
        Stage::Unlisted => unlisted(core, engine, known),
        Stage::Listed => match known.standing {
            Standing::Told => Left::Nothing,
            Standing::Served => tell(core, known),
            Standing::Down | Standing::Away { .. } => match serve(core, engine, known, None) {
                Some(Standing::Served) => tell(core, known),
                Some(Standing::Away { told, .. }) => away(core, known, told),
                _ => Left::Nothing,
            },
        },
    }
}

/// Serves a share if its file is what it was; how it stands then, or `None` when it is a share no more.
fn serve(core: &Core, engine: &Engine, known: &Known, manifest: Option<&Manifest>) -> Option<Standing> {
    let (id, shared) = (&known.id, &known.shared);
    let loaded = match manifest {
        Some(_) => None,
        None => match core.records.manifest(id, shared) {
            Ok(manifest) => Some(manifest),
            Err(trouble) => {
                core.notices.tell(&trouble);
                core.registry.forget(id);
                shares::tell_stopped(core, &shared.key);
                return None;
            }
        },
    };
    let manifest = manifest.or(loaded.as_ref())?;
    let standing = match engine.reshare(engine_key(&shared.key), &shared.path, manifest, shared.fingerprint) {
        Ok(()) => Standing::Served,
        Err(StorageError { kind: StorageErrorKind::Changed(_), .. }) => {
            let why = format!("{} is not what it was when it was shared", shared.path.display());
            shares::withdraw(core, known, &why);
            return None;
        }
        Err(error) => {
            let why = error.to_string();
            let told = match &known.standing {
                Standing::Away { told, .. } => *told,
                _ => {
                    core.notices.tell(&format!(
                        "{} is not shared for now: {why}; it is again as soon as the file is there",
                        shared.key
                    ));
                    false
                }
            };
            Standing::Away { why, told }
        }
    };
    core.registry.change(id, |known| known.standing = standing.clone())?;
    Some(standing)
}

/// Tells the trackers that this node serves a share, and where.
fn tell(core: &Core, known: &Known) -> Left {
    let key = known.shared.key.clone();
    let command = Command::UpdatePieces { file: key.clone(), gained: Gained::Complete };
    match core.trackers.ask::<IgnoredAny>(command, Urgency::Background) {
        Ok(_) => {
            core.registry.change(&known.id, |known| known.standing = Standing::Told);
            Left::Nothing
        }
        Err(fault) => match later(&fault) {
            Some(left) => left,
            None => {
                shares::drop_share(core, known);
                core.notices.tell(&format!("{key} is not shared any more: {fault}"));
                Left::Nothing
            }
        },
    }
}

/// Tells the trackers, once, that a share cannot be served for now.
fn away(core: &Core, known: &Known, told: bool) -> Left {
    if told {
        return Left::Something;
    }
    let command = Command::StopShare { file: known.shared.key.clone() };
    match core.trackers.ask::<IgnoredAny>(command, Urgency::Background) {
        Err(fault) if later(&fault).is_some() => later(&fault).unwrap_or(Left::Something),
        // That they do not know it as a share is as good.
        _ => {
            core.registry.change(&known.id, |known| {
                if let Standing::Away { told, .. } = &mut known.standing {
                    *told = true;
                }
            });
            Left::Something
        }
    }
}

/// Tells the trackers what they have not been told: that a share was stopped.
fn stopped(core: &Core, known: &Known) -> Left {
    let command = Command::StopShare { file: known.shared.key.clone() };
    match core.trackers.ask::<IgnoredAny>(command, Urgency::Background) {
        Err(fault) if later(&fault).is_some() => later(&fault).unwrap_or(Left::Something),
        _ => {
            shares::forget(core, known);
            Left::Nothing
        }
    }
}

/// Has the trackers list what was hashed before they could take it.
fn unlisted(core: &Core, engine: &Engine, known: &Known) -> Left {
    let key = known.shared.key.clone();
    let manifest = match core.records.manifest(&known.id, &known.shared) {
        Ok(manifest) => manifest,
        Err(trouble) => {
            core.notices.tell(&trouble);
            core.registry.forget(&known.id);
            return Left::Nothing;
        }
    };
    if let Err(fault) = listing::list(core, &key, &manifest, Urgency::Background, &|_| Ok(())) {
        return match later(&fault) {
            Some(left) => left,
            None => {
                shares::forget(core, known);
                core.notices.tell(&format!("{key} was not taken by the trackers: {fault}"));
                Left::Nothing
            }
        };
    }
    let Some(listed) = core.registry.change(&known.id, |known| known.shared.stage = Stage::Listed) else {
        return Left::Nothing;
    };
    if let Err(fault) = core.records.write_share(&listed.id, &listed.shared) {
        core.notices.tell(&fault.message);
    }
    match serve(core, engine, &listed, Some(&manifest)) {
        Some(Standing::Served) => {
            core.registry.change(&listed.id, |known| known.standing = Standing::Told);
            core.notices.tell(&format!("{key} is shared now"));
            Left::Nothing
        }
        Some(Standing::Away { .. }) => Left::Something,
        _ => Left::Nothing,
    }
}
