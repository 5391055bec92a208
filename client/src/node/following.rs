//! Telling a front end how a download goes.

use std::time::Duration;

use engine::stats::Phase;

use super::core::Core;
use super::entry::Entry;
use super::events::Events;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Event};
use crate::limits;

/// Tells a front end how a download goes, until it ends.
///
/// # Errors
/// Why it failed; or the front end or the node went away.
pub(super) fn follow(core: &Core, entry: &Entry, events: &Events<'_>) -> Result<Answer, Fault> {
    let mut seen = 0;
    events.tell(Event::Transfer(entry.transfer()))?;
    loop {
        let progress = entry.download.wait(seen, Duration::from_millis(limits::HEARTBEAT_MS));
        seen = progress.version;
        match &progress.phase {
            Phase::Durable => {
                // So that a restart shares it; a disk that does not answer is waited for as long.
                entry.recorded.wait_for(Duration::from_millis(limits::TELLING_WAIT_MS));
                // So that whoever comes next finds this node among the seeders; but nobody waits long for a tracker.
                entry.telling.wait_for(Duration::from_millis(limits::TELLING_WAIT_MS));
                return Ok(Answer::Downloaded(entry.transfer_at(&progress)));
            }
            Phase::Failed(failure) => return Err(failure.into()),
            Phase::Cancelled => {
                let message = format!("the download of {} was cancelled", entry.key);
                return Err(Fault::new(Exit::Other, message).fix("give the command again to begin anew"));
            }
            _ => events.progress(|| Event::Transfer(entry.transfer_at(&progress)))?,
        }
        if core.ending.is_over() {
            let message = "the node is ending; what was fetched stays beside the destination";
            return Err(Fault::new(Exit::Interrupted, message).fix("give the same command again to go on"));
        }
    }
}
