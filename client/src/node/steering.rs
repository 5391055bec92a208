//! Pausing, resuming and cancelling: of downloads that run, and of those that are on record alone.
//!
//! Invariant: what the user said is on record before the command ends, and said to be lost where it cannot be.

use std::sync::Arc;
use std::time::Duration;

use engine::stats::Phase;
use tracker::api::FileKey;

use super::core::{Core, words_of};
use super::dormant::Dormant;
use super::downloads::Downloads;
use super::entry::Entry;
use super::shares;
use crate::exit::{Exit, Fault};
use crate::front::rows::{State, Transfer};
use crate::limits;

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
    if let Some(entry) = downloads.find(key).filter(|entry| !entry.has_ended()) {
        return running(core, downloads, &entry, steer).map(|done| format!("{key} {done}"));
    }
    let compared = downloads.compared(key);
    if let Some(compared) = &compared
        && let Some(answer) = at_once(downloads, key, compared, steer)
    {
        return answer;
    }
    // It may just be about to go on, or to be begun anew.
    let _claim = downloads.call_off(core, key)?;
    match (downloads.find(key), downloads.dormant(key)) {
        (Some(entry), _) => running(core, downloads, &entry, steer),
        (None, Some(dormant)) => on_record(core, downloads, dormant, steer),
        (None, None) if compared.is_some() => Ok("is cancelled before it was begun"),
        (None, None) => {
            Err(Fault::new(Exit::NotFound, format!("this node has no download of {key}"))
                .fix("`show_downloads`"))
        }
    }
    .map(|done| format!("{key} {done}"))
}

/// What there is to say of a download that is not begun yet, since what is at its destination is being compared: nothing where
/// that has to be given up for it.
fn at_once(
    downloads: &Downloads,
    key: &FileKey,
    compared: &Transfer,
    steer: Steer,
) -> Option<Result<String, Fault>> {
    match steer {
        Steer::Cancel => None,
        Steer::Resume => Some(Ok(format!("{key} goes on as soon as what is at its destination is compared"))),
        Steer::Pause => {
            if downloads.dormant(key).is_some_and(|dormant| dormant.wanted.failed.is_none()) {
                return None;
            }
            let path = compared.path.display();
            let message = format!("{key} is not begun yet: what is at {path} is compared with it");
            let fix = format!("`cancel {}` gives it up; or pause it once it is begun", words_of(key));
            Some(Err(Fault::new(Exit::Other, message).fix(fix)))
        }
    }
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
            downloads.forget(entry);
            entry.forget_record(core)?;
            return Ok("had failed, and is taken off the list");
        }
        (state, _) if state.is_end() => return Err(steer.too_late(key)),
        _ => {}
    }
    match steer {
        Steer::Pause => {
            entry.pause();
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
        Steer::Cancel => cancel(core, downloads, entry),
    }
}

fn cancel(core: &Core, downloads: &Downloads, entry: &Arc<Entry>) -> Result<&'static str, Fault> {
    // First its record: a crash in between leaves a partial file, and not a download that comes back.
    let forgotten = entry.forget_record(core);
    entry.download.cancel();
    let mut progress = entry.download.progress();
    while !progress.phase.is_end() && !core.ending.is_over() {
        progress = entry.download.wait(progress.version, Duration::from_millis(limits::HEARTBEAT_MS));
    }
    if matches!(progress.phase, Phase::Durable) {
        // Its last step was faster; its keeper makes it a share.
        return Err(Steer::Cancel.too_late(&entry.key));
    }
    downloads.forget(entry);
    forgotten?;
    Ok("is cancelled, and its partial file removed")
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
            // To them whoever began to fetch a file is one of its leechers; whoever shares it stays one of its seeders.
            let user = &dormant.wanted.user;
            if core.registry.get(user, &key).is_none() {
                shares::tell_stopped(core, user, &key);
            }
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
