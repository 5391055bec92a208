//! Telling a front end how a download goes.

use std::time::Duration;

use engine::stats::DownloadPhase;

use super::running::DownloadRun;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeEvent};
use crate::limits;
use crate::node::core::NodeCore;
use crate::node::events::EventStream;

/// Tells a front end how a download goes, until it ends.
///
/// # Errors
/// Why it failed; or the front end or the node went away.
pub(in crate::node) fn follow_download(
    core: &NodeCore,
    entry: &DownloadRun,
    events: &EventStream<'_>,
) -> Result<NodeAnswer, ClientFault> {
    let mut seen = 0;
    events.send(NodeEvent::Transfer(entry.row()))?;
    loop {
        let progress = entry.download.wait(seen, Duration::from_millis(limits::HEARTBEAT_MS));
        seen = progress.version;
        match &progress.phase {
            DownloadPhase::Durable => {
                // So that a restart shares it; a disk that does not answer is waited for as long.
                entry.end_recorded.wait_timeout(Duration::from_millis(limits::COMPLETION_ANNOUNCE_WAIT_MS));
                // So that whoever comes next finds this node among the seeders; but nobody waits long for a tracker.
                entry.end_announced.wait_timeout(Duration::from_millis(limits::COMPLETION_ANNOUNCE_WAIT_MS));
                return Ok(NodeAnswer::Downloaded(entry.row_at(&progress)));
            }
            DownloadPhase::Failed(failure) => return Err(failure.into()),
            DownloadPhase::Cancelled => {
                let message = format!("the download of {} was cancelled", entry.key);
                return Err(
                    ClientFault::new(ExitCause::Other, message).fix("give the command again to begin anew")
                );
            }
            _ => events.send_progress(|| NodeEvent::Transfer(entry.row_at(&progress)))?,
        }
        if core.shutdown.is_set() {
            let message = "the node is ending; what was fetched stays beside the destination";
            return Err(
                ClientFault::new(ExitCause::Interrupted, message).fix("give the same command again to go on")
            );
        }
    }
}
