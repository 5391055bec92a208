//! Pausing, resuming and cancelling: of downloads that run, and of those that are on record alone.
//!
//! Invariant: what the user said is on record before the command ends, and said to be lost where it cannot be.

use std::sync::Arc;

use tracker::api::FileKey;

use super::core::Core;
use super::dormant::Dormant;
use super::downloads::Downloads;
use super::entry::Entry;
use crate::exit::{Exit, Fault};
use crate::front::rows::State;

/// What can be done to a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steer {
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Give it up.
    Cancel,
}

impl Steer {
    fn too_late(self, key: &FileKey) -> Fault {
        Fault::new(Exit::Other, format!("{key} has ended and cannot be {}", self.word()))
            .fix("`show_downloads` shows how; `stop_share` ends the sharing of a complete file")
    }

    fn word(self) -> &'static str {
        match self {
            Steer::Pause => "paused",
            Steer::Resume => "resumed",
            Steer::Cancel => "cancelled",
        }
    }
}

/// Carries it out; what was done, in words.
///
/// # Errors
/// Exit 5 for a download that is not there, 1 for one that has ended; or it is done, but cannot be recorded.
pub(super) fn steer(
    core: &Core,
    downloads: &Downloads,
    key: &FileKey,
    steer: Steer,
) -> Result<String, Fault> {
    match (downloads.find(key), downloads.dormant(key)) {
        (Some(entry), _) => running(core, downloads, &entry, steer),
        (None, Some(dormant)) => on_record(core, downloads, dormant, steer),
        (None, None) => {
            Err(Fault::new(Exit::NotFound, format!("this node has no download of {key}"))
                .fix("show_downloads"))
        }
    }
    .map(|done| format!("{key} {done}"))
}

fn running(
    core: &Core,
    downloads: &Downloads,
    entry: &Arc<Entry>,
    steer: Steer,
) -> Result<&'static str, Fault> {
    let key = &entry.key;
    match (entry.transfer().state, steer) {
        (State::Failed, Steer::Cancel) => {
            downloads.forget(key);
            core.records.forget_download(&entry.id)?;
            return Ok("had failed, and is taken off the list");
        }
        (state, _) if state.is_end() => return Err(steer.too_late(key)),
        _ => {}
    }
    match steer {
        Steer::Pause => {
            entry.download.pause();
            entry
                .record(core, |wanted| wanted.paused = true)
                .map_err(|fault| unrecorded(key, steer, fault))?;
            Ok("is paused; `resume` goes on")
        }
        Steer::Resume => {
            core.trackers.require_user()?;
            entry.release();
            entry
                .record(core, |wanted| wanted.paused = false)
                .map_err(|fault| unrecorded(key, steer, fault))?;
            Ok("goes on")
        }
        Steer::Cancel => {
            // First its record: a crash in between leaves a partial file, and not a download that comes back.
            let forgotten = core.records.forget_download(&entry.id);
            entry.download.cancel();
            downloads.forget(key);
            forgotten?;
            Ok("is cancelled, and its partial file removed")
        }
    }
}

fn on_record(
    core: &Core,
    downloads: &Downloads,
    mut dormant: Dormant,
    steer: Steer,
) -> Result<&'static str, Fault> {
    let key = dormant.wanted.key.clone();
    match steer {
        Steer::Pause if dormant.wanted.failed.is_some() => return Err(steer.too_late(&key)),
        Steer::Pause => dormant.wanted.paused = true,
        Steer::Resume => {
            core.trackers.require_user()?;
            dormant.wanted.paused = false;
            dormant.wanted.failed = None;
            dormant.waits_for = None;
        }
        Steer::Cancel => {
            core.records.forget_download(&dormant.id)?;
            downloads.wake_up(&dormant.id);
            dormant.discard()?;
            return Ok("is cancelled, and its partial file removed");
        }
    }
    let written = core.records.write_download(&dormant.id, &dormant.wanted);
    downloads.put_back(dormant);
    core.bell.ring();
    written.map_err(|fault| unrecorded(&key, steer, fault))?;
    Ok(if steer == Steer::Pause { "is paused; `resume` goes on" } else { "goes on" })
}

fn unrecorded(key: &FileKey, steer: Steer, fault: Fault) -> Fault {
    let message =
        format!("{key} is {}, but a restart of this node would not know it: {}", steer.word(), fault.message);
    Fault { message, ..fault }
}
