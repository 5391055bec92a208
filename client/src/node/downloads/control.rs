//! Pausing, resuming and cancelling: of downloads that run, and of those that are on record alone.
//!
//! Invariant: what the user said is on record before the command ends, and said to be lost where it cannot be.

use std::sync::Arc;
use std::time::Duration;

use engine::stats::DownloadPhase;
use tracker::api::GroupFile;

use super::recorded::RecordedDownload;
use super::running::DownloadRun;
use super::table::DownloadTable;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{TransferRow, TransferState};
use crate::limits;
use crate::node::core::{NodeCore, quote_key};
use crate::node::shares;

/// What can be done to a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum DownloadControl {
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Give it up.
    Cancel,
}

impl DownloadControl {
    fn ended_fault(self, key: &GroupFile) -> ClientFault {
        ClientFault::new(ExitCause::Other, format!("{key} has ended and cannot be {}", self.participle()))
            .fix("`show_downloads` shows how; `stop_share` ends the sharing of a complete file")
    }

    fn participle(self) -> &'static str {
        match self {
            DownloadControl::Pause => "paused",
            DownloadControl::Resume => "resumed",
            DownloadControl::Cancel => "cancelled",
        }
    }
}

/// Carries it out; what was done, in words.
///
/// # Errors
/// Exit 5 for a download that is not there, 1 for one that has ended; or it is done, but cannot be recorded.
pub(in crate::node) fn control_download(
    core: &NodeCore,
    downloads: &DownloadTable,
    key: &GroupFile,
    steer: DownloadControl,
) -> Result<String, ClientFault> {
    if let Some(entry) = downloads.find_run(key).filter(|entry| !entry.has_ended()) {
        return control_running(core, downloads, &entry, steer).map(|done| format!("{key} {done}"));
    }
    let compared = downloads.comparison_row(key);
    if let Some(compared) = &compared
        && let Some(answer) = answer_while_comparing(downloads, key, compared, steer)
    {
        return answer;
    }
    // It may just be about to go on, or to be begun anew.
    let _claim = downloads.preempt(core, key)?;
    match (downloads.find_run(key), downloads.find_recorded(key)) {
        (Some(entry), _) => control_running(core, downloads, &entry, steer),
        (None, Some(dormant)) => control_recorded(core, downloads, dormant, steer),
        (None, None) if compared.is_some() => Ok("is cancelled before it was begun"),
        (None, None) => {
            Err(ClientFault::new(ExitCause::NotFound, format!("this node has no download of {key}"))
                .fix("`show_downloads`"))
        }
    }
    .map(|done| format!("{key} {done}"))
}

/// What there is to say of a download that is not begun yet, since what is at its destination is being compared: nothing where
/// that has to be given up for it.
fn answer_while_comparing(
    downloads: &DownloadTable,
    key: &GroupFile,
    compared: &TransferRow,
    steer: DownloadControl,
) -> Option<Result<String, ClientFault>> {
    match steer {
        DownloadControl::Cancel => None,
        DownloadControl::Resume => {
            Some(Ok(format!("{key} goes on as soon as what is at its destination is compared")))
        }
        DownloadControl::Pause => {
            if downloads.find_recorded(key).is_some_and(|dormant| dormant.wanted.failed.is_none()) {
                return None;
            }
            let path = compared.path.display();
            let message = format!("{key} is not begun yet: what is at {path} is compared with it");
            let fix = format!("`cancel {}` gives it up; or pause it once it is begun", quote_key(key));
            Some(Err(ClientFault::new(ExitCause::Other, message).fix(fix)))
        }
    }
}

fn control_running(
    core: &NodeCore,
    downloads: &DownloadTable,
    entry: &Arc<DownloadRun>,
    steer: DownloadControl,
) -> Result<&'static str, ClientFault> {
    let key = &entry.key;
    match (entry.row().state, steer) {
        (TransferState::Failed, DownloadControl::Cancel) => {
            downloads.remove_run(entry);
            entry.delete_record(core)?;
            return Ok("had failed, and is taken off the list");
        }
        (state, _) if state.is_end() => return Err(steer.ended_fault(key)),
        _ => {}
    }
    match steer {
        DownloadControl::Pause => {
            entry.pause();
            entry
                .update_record(core, |wanted| wanted.paused = true)
                .map_err(|fault| unrecorded_fault(key, steer, fault))?;
            Ok("is paused; `resume` goes on")
        }
        DownloadControl::Resume => {
            core.trackers.require_user()?;
            entry.resume();
            entry
                .update_record(core, |wanted| wanted.paused = false)
                .map_err(|fault| unrecorded_fault(key, steer, fault))?;
            Ok("goes on")
        }
        DownloadControl::Cancel => cancel_running(core, downloads, entry),
    }
}

fn cancel_running(
    core: &NodeCore,
    downloads: &DownloadTable,
    entry: &Arc<DownloadRun>,
) -> Result<&'static str, ClientFault> {
    // First its record: a crash in between leaves a partial file, and not a download that comes back.
    let forgotten = entry.delete_record(core);
    entry.download.cancel();
    let mut progress = entry.download.progress();
    while !progress.phase.is_end() && !core.shutdown.is_set() {
        progress = entry.download.wait(progress.version, Duration::from_millis(limits::HEARTBEAT_MS));
    }
    if matches!(progress.phase, DownloadPhase::Durable) {
        // Its last step was faster; its keeper makes it a share.
        return Err(DownloadControl::Cancel.ended_fault(&entry.key));
    }
    downloads.remove_run(entry);
    forgotten?;
    Ok("is cancelled, and its partial file removed")
}

fn control_recorded(
    core: &NodeCore,
    downloads: &DownloadTable,
    mut dormant: RecordedDownload,
    steer: DownloadControl,
) -> Result<&'static str, ClientFault> {
    let key = dormant.wanted.key.clone();
    match steer {
        DownloadControl::Pause if dormant.wanted.failed.is_some() => return Err(steer.ended_fault(&key)),
        DownloadControl::Pause => dormant.wanted.paused = true,
        DownloadControl::Resume => {
            core.trackers.require_user()?;
            dormant.wanted.paused = false;
            dormant.wanted.failed = None;
            dormant.waiting_for = None;
        }
        DownloadControl::Cancel => {
            core.records.forget_download(&dormant.id)?;
            downloads.remove_recorded(&dormant.id);
            // To them whoever began to fetch a file is one of its leechers; whoever shares it stays one of its seeders.
            let user = &dormant.wanted.user;
            if core.shares.get(user, &key).is_none() {
                shares::report_stopped(core, user, &key);
            }
            dormant.remove_partial_file()?;
            return Ok("is cancelled, and its partial file removed");
        }
    }
    let written = core.records.write_download(&dormant.id, &dormant.wanted);
    downloads.update_recorded(dormant);
    core.recovery_wakeup.set();
    written.map_err(|fault| unrecorded_fault(&key, steer, fault))?;
    Ok(if steer == DownloadControl::Pause { "is paused; `resume` goes on" } else { "goes on" })
}

fn unrecorded_fault(key: &GroupFile, steer: DownloadControl, fault: ClientFault) -> ClientFault {
    let message = format!(
        "{key} is {}, but a restart of this node would not know it: {}",
        steer.participle(),
        fault.message
    );
    ClientFault { message, ..fault }
}
