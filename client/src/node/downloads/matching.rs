//! Finds the download that a request for the same file joins or takes over, or refuses the request.
//!
//! Always true: a request never joins another user's download, nor one to another destination.

use std::path::Path;
use std::sync::Arc;

use tracker::api::GroupFile;

use super::compare::DownloadRequest;
use super::recorded::RecordedDownload;
use super::running::DownloadRun;
use super::table::DownloadTable;
use crate::exit::{ClientFault, ExitCause};
use crate::node::core::quote_key;
use crate::printable::show_path;

/// The run of the requested file, unless it has ended. Refused if it is another user's, or if its destination
/// is another one.
pub(super) fn matching_run(
    table: &DownloadTable,
    request: &DownloadRequest,
    user: &str,
) -> Result<Option<Arc<DownloadRun>>, ClientFault> {
    let Some(run) = table.find_run(&request.key).filter(|run| !run.has_ended()) else {
        return Ok(None);
    };
    if run.user != user {
        return Err(other_user_fault(&run.key, &run.user));
    }
    let path = run.download.progress().path;
    if request.destination == run.destination
        || is_same_destination(&request.destination, &path, &request.key)
    {
        return Ok(Some(run));
    }
    Err(other_destination_fault(&run.key, &path))
}

/// The recorded download that a request may take over: of the same file and user, and to the same
/// destination unless it has failed. `None` if the file has no recorded download.
pub(super) fn matching_record(
    table: &DownloadTable,
    request: &DownloadRequest,
    user: &str,
) -> Result<Option<RecordedDownload>, ClientFault> {
    let Some(recorded) = table.find_recorded(&request.key) else { return Ok(None) };
    let record = &recorded.record;
    if record.user != user {
        return Err(other_user_fault(&request.key, &record.user));
    }
    if record.failed.is_some() || is_same_destination(&request.destination, &record.destination, &request.key)
    {
        return Ok(Some(recorded));
    }
    Err(other_destination_fault(&request.key, &record.destination))
}

/// Whether two destinations mean the same file. Either may be a directory, which stands for the file's name in
/// it.
fn is_same_destination(typed: &Path, path: &Path, key: &GroupFile) -> bool {
    let name = key.name.as_str();
    typed == path || typed.join(name) == path || path.join(name) == typed
}

fn other_user_fault(key: &GroupFile, user: &str) -> ClientFault {
    let message = format!("{key} is already being downloaded by {user} on this node");
    let fix = format!("use a node of your own (`--state DIR`), or log in as {user} to cancel it");
    ClientFault::new(ExitCause::Exists, message).fix(fix)
}

fn other_destination_fault(key: &GroupFile, path: &Path) -> ClientFault {
    let message = format!("{key} is already being downloaded to {}", show_path(path));
    let fix = format!("wait until it is complete, or `cancel {}`", quote_key(key));
    ClientFault::new(ExitCause::Exists, message).fix(fix)
}
