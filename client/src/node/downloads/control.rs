//! Pauses, resumes and cancels downloads, both running ones and those that are only on record.
//!
//! Always true: a command records its effect before it returns, or fails with an error that says that the
//! effect is not recorded.

use std::sync::Arc;
use std::time::Duration;

use engine::stats::DownloadPhase;
use tracker::api::GroupFile;

use super::recorded::RecordedDownload;
use super::running::DownloadRun;
use super::table::DownloadTable;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::TransferRow;
use crate::limits;
use crate::node::core::{NodeCore, quote_key};
use crate::node::locks::DownloadLock;
use crate::node::shares::{self, Shares};
use crate::printable::show_path;

/// What a command does to a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum DownloadControl {
    /// Stops the download until it is resumed.
    Pause,
    /// Continues the download.
    Resume,
    /// Ends the download and removes its partial file.
    Cancel,
}

impl DownloadControl {
    fn ended_fault(self, key: &GroupFile) -> ClientFault {
        ClientFault::new(ExitCause::Other, format!("{key} has ended and cannot be {}", self.participle()))
            .fix("`show_downloads` shows how; `resume` starts a failed one again; `stop_share` ends the sharing of a complete file")
    }

    fn unrecorded_fault(self, key: &GroupFile, fault: ClientFault) -> ClientFault {
        let done = self.participle();
        let message =
            format!("{key} is {done}, but this node forgets that when it restarts: {}", fault.message);
        ClientFault { message, ..fault }
    }

    fn participle(self) -> &'static str {
        match self {
            DownloadControl::Pause => "paused",
            DownloadControl::Resume => "resumed",
            DownloadControl::Cancel => "cancelled",
        }
    }
}

/// Carries out a command. Returns what was done, in words.
///
/// # Errors
/// Exit code 5 for a download that does not exist, 1 for one that has ended. Also if the command took effect
/// but could not be recorded.
pub(super) fn control_download(
    shares: &Shares,
    table: &DownloadTable,
    key: &GroupFile,
    control: DownloadControl,
) -> Result<String, ClientFault> {
    let core = &shares.core;
    if let Some(run) = table.find_run(key).filter(|run| !run.has_ended()) {
        return control_running(core, table, &run, control).map(|done| format!("{key} {done}"));
    }
    let comparison = table.comparison_row(key);
    if let Some(row) = &comparison
        && let Some(answer) = answer_while_comparing(table, key, row, control)
    {
        return answer;
    }
    // The lock aborts a comparison, and excludes a thread that is about to resume or restart the download.
    let mut scope = core.locks.scope();
    let download_lock = scope.preempt_download(key)?;
    if control != DownloadControl::Pause {
        table.put_failed_on_record(&download_lock);
    }
    match (table.find_run(key), table.find_recorded(key)) {
        (Some(run), _) => control_running(core, table, &run, control),
        (None, Some(recorded)) => control_recorded(shares, table, &download_lock, recorded, control),
        (None, None) if comparison.is_some() => Ok("is cancelled; nothing had been downloaded yet"),
        (None, None) => {
            let message = format!("this node has no download of {key}");
            Err(ClientFault::new(ExitCause::NotFound, message).fix("`show_downloads`"))
        }
    }
    .map(|done| format!("{key} {done}"))
}

/// The answer to a command for a download whose destination is being compared. `None` if the command needs
/// the comparison to be aborted.
fn answer_while_comparing(
    table: &DownloadTable,
    key: &GroupFile,
    comparison: &TransferRow,
    control: DownloadControl,
) -> Option<Result<String, ClientFault>> {
    match control {
        DownloadControl::Cancel => None,
        DownloadControl::Resume => {
            Some(Ok(format!("{key} continues as soon as the file at its destination has been compared")))
        }
        DownloadControl::Pause => {
            if table.find_recorded(key).is_some_and(|recorded| recorded.record.failed.is_none()) {
                return None;
            }
            let path = show_path(&comparison.path);
            let message = format!("{key} has not begun yet: the file {path} is being compared with it");
            let fix = format!("`cancel {}` ends it; a download that has begun can be paused", quote_key(key));
            Some(Err(ClientFault::new(ExitCause::Other, message).fix(fix)))
        }
    }
}

fn control_running(
    core: &NodeCore,
    table: &DownloadTable,
    run: &Arc<DownloadRun>,
    control: DownloadControl,
) -> Result<&'static str, ClientFault> {
    let key = &run.key;
    if run.has_ended() {
        return Err(control.ended_fault(key));
    }
    match control {
        DownloadControl::Pause => {
            run.pause();
            run.update_record(core, |record| record.paused = true)
                .map_err(|fault| control.unrecorded_fault(key, fault))?;
            Ok("is paused; `resume` continues it")
        }
        DownloadControl::Resume => {
            require_own_user(core, key, &run.user)?;
            run.resume(core).map_err(|fault| control.unrecorded_fault(key, fault))?;
            Ok("continues")
        }
        DownloadControl::Cancel => cancel_running(core, table, run),
    }
}

fn cancel_running(
    core: &NodeCore,
    table: &DownloadTable,
    run: &Arc<DownloadRun>,
) -> Result<&'static str, ClientFault> {
    // The record is removed first: after a crash in between, a partial file is left, but the download does not
    // resume.
    let deleted = run.delete_record(core);
    run.download.cancel();
    let mut progress = run.download.progress();
    while !progress.phase.is_end() && !core.shutdown.is_set() {
        progress = run.download.wait(progress.version, Duration::from_millis(limits::HEARTBEAT_MS));
    }
    if matches!(progress.phase, DownloadPhase::Durable) {
        // The download completed before the cancellation; its announcer makes the file a share.
        return Err(DownloadControl::Cancel.ended_fault(&run.key));
    }
    table.remove_run(run);
    deleted?;
    Ok("is cancelled, and its partial file removed")
}

fn control_recorded(
    shares: &Shares,
    table: &DownloadTable,
    download_lock: &DownloadLock<'_>,
    mut recorded: RecordedDownload,
    control: DownloadControl,
) -> Result<&'static str, ClientFault> {
    let core = &shares.core;
    let key = download_lock.key();
    match control {
        DownloadControl::Pause if recorded.record.failed.is_some() => return Err(control.ended_fault(key)),
        DownloadControl::Pause => recorded.record.paused = true,
        DownloadControl::Resume => {
            require_own_user(core, key, &recorded.record.user)?;
            recorded.record.paused = false;
            recorded.record.failed = None;
            recorded.wait = None;
        }
        DownloadControl::Cancel => {
            core.records.remove_download(&recorded.id)?;
            table.remove_recorded(download_lock);
            // The trackers list the user as a leecher since the first request. A user who also shares the file
            // must stay listed as a seeder.
            let user = &recorded.record.user;
            if shares.table.get(user, key).is_none() {
                shares::report_stopped(core, user, key, Some(recorded.record.content));
            }
            recorded.remove_partial_file()?;
            return Ok(match recorded.record.failed {
                Some(_) => "had failed; it is removed from the list, with its partial file",
                None => "is cancelled, and its partial file removed",
            });
        }
    }
    let written = core.records.write_download(&recorded.id, &recorded.record);
    table.update_recorded(download_lock, recorded);
    written.map_err(|fault| control.unrecorded_fault(key, fault))?;
    Ok(if control == DownloadControl::Pause { "is paused; `resume` continues it" } else { "continues" })
}

/// Only the logged-in user's own downloads can be resumed: the trackers permit them to that user alone.
fn require_own_user(core: &NodeCore, key: &GroupFile, owner: &str) -> Result<(), ClientFault> {
    if core.trackers.require_user()? == owner {
        return Ok(());
    }
    let message = format!("{key} is a download of {owner}, who is not logged in here");
    Err(ClientFault::new(ExitCause::NotLoggedIn, message).fix(format!("`login {owner}`")))
}
