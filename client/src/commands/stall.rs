//! Ends a download on the command line that makes no progress for too long. Pure: time is an argument.
//!
//! Progress is received or verified bytes. The timer ends with the cause of the latest stall. Time in which this process was
//! stopped does not count.

use std::time::{Duration, Instant};

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{TransferRow, TransferState};
use crate::limits;
use crate::quoting;

/// Measures the stall of one download.
pub(super) struct StallTimer {
    wait: Duration,
    stalled_since: Option<Instant>,
    last_checked: Option<Instant>,
    last_bytes: Option<(u64, u64)>,
    /// Latest reported cause since the last progress. While the node retries an address, it reports none for a moment.
    cause: Option<ClientFault>,
}

impl StallTimer {
    /// Allows stalls of at most `wait`.
    pub(super) fn new(wait: Duration) -> StallTimer {
        StallTimer { wait, stalled_since: None, last_checked: None, last_bytes: None, cause: None }
    }

    /// Checks the download's current state.
    ///
    /// # Errors
    /// The error to end with, when the download has stalled for too long.
    pub(super) fn check(&mut self, now: Instant, transfer: &TransferRow) -> Result<(), ClientFault> {
        let bytes = (transfer.received_bytes, transfer.verified_bytes);
        let since_last_check = now.duration_since(self.last_checked.replace(now).unwrap_or(now));
        if since_last_check > Duration::from_millis(limits::PROCESS_STOPPED_MS) {
            self.stalled_since = self.stalled_since.map(|since| since + since_last_check);
        }
        let is_working = matches!(
            transfer.state,
            TransferState::Comparing | TransferState::Checking | TransferState::Syncing
        );
        if is_working || transfer.state.is_end() || self.last_bytes != Some(bytes) {
            self.last_bytes = Some(bytes);
            self.stalled_since = Some(now);
            self.cause.clone_from(&transfer.cause);
            return Ok(());
        }
        if transfer.cause.is_some() || transfer.state == TransferState::Paused {
            self.cause.clone_from(&transfer.cause);
        }
        let since = *self.stalled_since.get_or_insert(now);
        if now.duration_since(since) < self.wait { Ok(()) } else { Err(self.stall_fault(transfer)) }
    }

    fn stall_fault(&self, transfer: &TransferRow) -> ClientFault {
        let seconds = self.wait.as_secs();
        let resume = "give the same command to resume, `--wait SECONDS` to wait longer";
        let name = format!("[{}] {}", transfer.group, transfer.file);
        match &self.cause {
            Some(cause) => {
                let message = format!("{name} has waited for {seconds} s: {}", cause.message);
                let fix =
                    cause.fix.as_ref().map_or_else(|| resume.to_owned(), |fix| format!("{fix}; {resume}"));
                ClientFault::new(cause.exit, message).fix(fix)
            }
            None if transfer.state == TransferState::Paused => {
                let file = quoting::quote_file(&transfer.group, &transfer.file);
                ClientFault::new(ExitCause::NoProgress, format!("{name} has been paused for {seconds} s"))
                    .fix(format!("`client resume {file}`, or {resume}"))
            }
            None => ClientFault::new(
                ExitCause::NoProgress,
                format!("{name} has made no progress for {seconds} s"),
            )
            .fix(resume),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::transfer::tests::{WAITING, transfer};

    /// Checks every second; each step holds until the next.
    fn end_of(steps: &[(u64, TransferRow)]) -> Option<(u64, ExitCause)> {
        let mut timer = StallTimer::new(Duration::from_secs(60));
        let start = crate::clock::now();
        let end = steps.last()?.0;
        (0..=end).find_map(|at| {
            let (_, transfer) = steps.iter().rfind(|(from, _)| *from <= at)?;
            let checked = timer.check(start + Duration::from_secs(at), transfer);
            checked.err().map(|fault| (at, fault.exit))
        })
    }

    #[test]
    fn time_in_which_the_process_was_stopped_is_not_a_stall() {
        let mut timer = StallTimer::new(Duration::from_secs(60));
        let (start, still) = (crate::clock::now(), transfer(TransferState::Downloading));
        let mut check = |at: u64| timer.check(start + Duration::from_secs(at), &still).is_ok();
        assert!((0..30).all(&mut check));
        assert!(check(3_600), "this process was stopped for an hour");
        assert!((3_601..3_629).all(&mut check));
        assert!(!(3_629..3_640).all(&mut check), "the stall continues");
    }

    fn waiting(exit: ExitCause) -> TransferRow {
        TransferRow { cause: Some(ClientFault::new(exit, "why")), ..transfer(WAITING) }
    }

    #[test]
    fn a_stall_ends_with_its_cause() {
        for exit in [
            ExitCause::NoPeer,
            ExitCause::Corrupt,
            ExitCause::DiskFull,
            ExitCause::LocalIo,
            ExitCause::NoTracker,
        ] {
            let steps = [(0, waiting(exit)), (59, waiting(exit)), (60, waiting(exit))];
            assert_eq!(end_of(&steps), Some((60, exit)));
        }
        let still = transfer(TransferState::Downloading);
        assert_eq!(end_of(&[(0, still.clone()), (60, still)]), Some((60, ExitCause::NoProgress)));
        let paused = transfer(TransferState::Paused);
        assert_eq!(end_of(&[(0, paused.clone()), (61, paused)]), Some((60, ExitCause::NoProgress)));
    }

    #[test]
    fn a_retried_address_does_not_hide_the_cause() {
        let still = transfer(TransferState::Downloading);
        let steps = [(0, still.clone()), (1, waiting(ExitCause::NoPeer)), (60, still.clone())];
        assert_eq!(end_of(&steps), Some((60, ExitCause::NoPeer)));
        let moved = TransferRow { received_bytes: 1, ..still };
        let steps = [(0, waiting(ExitCause::NoPeer)), (1, moved.clone()), (61, moved)];
        assert_eq!(end_of(&steps), Some((61, ExitCause::NoProgress)));
    }

    #[test]
    fn progress_and_local_work_restart_the_timer() {
        let moved = TransferRow { received_bytes: 1, ..transfer(TransferState::Downloading) };
        let still = transfer(TransferState::Downloading);
        assert_eq!(end_of(&[(0, still), (59, moved.clone()), (61, moved)]), None);
        let syncing = transfer(TransferState::Syncing);
        assert_eq!(end_of(&[(0, syncing.clone()), (600, syncing)]), None);
    }
}
