//! The lines of `show_downloads`, one per download. Their format is a contract with users and scripts.

use std::time::Duration;

use super::figures;
use crate::ipc::rows::{TransferRow, TransferState};
use crate::printable::show_path;

/// `[D] [group] file  38%  1.1 GiB/s  3 peers  ETA 55s`, `[C] [group] file`, `[P] [group] file (reason)`,
/// `[F] [group] file (reason)`.
pub(crate) fn transfer_line(transfer: &TransferRow) -> String {
    let name = format!("[{}] {}", transfer.group, transfer.file);
    match transfer.state {
        TransferState::Downloading => format!("[D] {name}  {}", progress_text(transfer)),
        // `sequential_passes` counts a pass when it begins. Data of an earlier attempt is hashed before any pass.
        TransferState::Checking if transfer.sequential_passes == 0 => {
            format!("[D] {name}  {}  checking what an earlier attempt left", percent_text(transfer))
        }
        TransferState::Checking => format!("[D] {name}  {}  proving the whole", percent_text(transfer)),
        TransferState::Comparing => {
            let path = show_path(&transfer.path);
            format!("[D] {name}  {}  comparing what is at {path}", percent_text(transfer))
        }
        TransferState::Syncing => format!("[D] {name}  {}  flushing to disk", percent_text(transfer)),
        TransferState::Complete => format!("[C] {name}"),
        TransferState::Waiting | TransferState::Paused => {
            format!("[P] {name} ({})", state_reason(transfer, "by you"))
        }
        TransferState::Failed => format!("[F] {name} ({})", state_reason(transfer, "failed")),
        TransferState::Cancelled => format!("[F] {name} (cancelled)"),
    }
}

/// `38%  1.1 GiB/s  3 peers  ETA 55s`; `38%  connecting` while no peer is found yet.
pub(crate) fn progress_text(transfer: &TransferRow) -> String {
    let rest = transfer.total_bytes.saturating_sub(transfer.verified_bytes);
    if transfer.peers == 0 && transfer.rate == 0 {
        return format!("{}  connecting", percent_text(transfer));
    }
    let mut parts = vec![percent_text(transfer), figures::format_rate(transfer.rate)];
    parts.push(format!("{} {}", transfer.peers, if transfer.peers == 1 { "peer" } else { "peers" }));
    parts.extend(figures::format_eta(rest, transfer.rate).map(|eta| format!("ETA {eta}")));
    parts.join("  ")
}

/// Summary of a complete download: size, both durations, bottleneck. Bytes of an earlier attempt are named and left out of
/// the rates.
pub(crate) fn summarize_transfer(transfer: &TransferRow) -> String {
    let gained_bytes = transfer.total_bytes.saturating_sub(transfer.resumed_bytes);
    let clock = |name: &str, ms: Option<u64>| {
        ms.map(|ms| {
            let span = Duration::from_millis(ms);
            let rate = figures::format_rate(figures::mean_rate(gained_bytes, span));
            format!("{name} after {} ({rate})", figures::format_span(span))
        })
    };
    let mut parts =
        vec![format!("{} {}", show_path(&transfer.path), figures::format_size(transfer.total_bytes))];
    if transfer.resumed_bytes > 0 {
        parts.push(format!("{} were there already", figures::format_size(transfer.resumed_bytes)));
    }
    parts.extend(clock("proven", transfer.proven_ms));
    parts.extend(clock("durable", transfer.durable_ms));
    parts.push(format!("limited by {}", transfer.limited_by));
    parts.extend(transfer.cause.as_ref().map(|cause| format!("not shared: {}", cause.message)));
    if transfer.pieces_only {
        parts.push("only its pieces are proven, since the uploader gave no SHA-1 of the whole".into());
    }
    if transfer.sequential_passes > 0 {
        parts.push("proven by a pass over the whole, since the uploader's chain was missing or wrong".into());
    }
    if transfer.duplicate_bytes > 0 {
        parts.push(format!("{} received twice", figures::format_size(transfer.duplicate_bytes)));
    }
    parts.join("; ")
}

fn percent_text(transfer: &TransferRow) -> String {
    format!("{}%", figures::whole_percent(transfer.verified_bytes, transfer.total_bytes))
}

fn state_reason(transfer: &TransferRow, otherwise: &str) -> String {
    transfer.cause.as_ref().map_or_else(|| otherwise.to_owned(), |cause| cause.message.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exit::{ClientFault, ExitCause};

    /// A download in progress.
    pub(crate) fn transfer(state: TransferState) -> TransferRow {
        TransferRow {
            group: "group".into(),
            file: "file".into(),
            state,
            cause: None,
            path: "/d/file".into(),
            total_bytes: 100 << 30,
            verified_bytes: 38 << 30,
            received_bytes: 38 << 30,
            duplicate_bytes: 0,
            resumed_bytes: 0,
            rate: 1_210_438_942,
            peers: 3,
            pieces_only: false,
            sequential_passes: 0,
            limited_by: "network".into(),
            proven_ms: None,
            durable_ms: None,
            figures: None,
        }
    }

    #[test]
    fn every_state_has_its_form() {
        let because = |state, message: &str| TransferRow {
            cause: Some(ClientFault::new(ExitCause::NoPeer, message)),
            ..transfer(state)
        };
        for (transfer, wanted) in [
            (transfer(TransferState::Downloading), "[D] [group] file  38%  1.1 GiB/s  3 peers  ETA 55s"),
            (
                TransferRow { peers: 1, rate: 0, ..transfer(TransferState::Downloading) },
                "[D] [group] file  38%  0 B/s  1 peer",
            ),
            (
                TransferRow { peers: 0, rate: 0, ..transfer(TransferState::Downloading) },
                "[D] [group] file  38%  connecting",
            ),
            (transfer(TransferState::Complete), "[C] [group] file"),
            (transfer(TransferState::Paused), "[P] [group] file (by you)"),
            (
                because(TransferState::Waiting, "no peer has what is missing"),
                "[P] [group] file (no peer has what is missing)",
            ),
            (because(TransferState::Failed, "the disk broke"), "[F] [group] file (the disk broke)"),
            (transfer(TransferState::Cancelled), "[F] [group] file (cancelled)"),
            (transfer(TransferState::Comparing), "[D] [group] file  38%  comparing what is at /d/file"),
            (
                transfer(TransferState::Checking),
                "[D] [group] file  38%  checking what an earlier attempt left",
            ),
            (
                TransferRow { sequential_passes: 1, ..transfer(TransferState::Checking) },
                "[D] [group] file  38%  proving the whole",
            ),
            (transfer(TransferState::Syncing), "[D] [group] file  38%  flushing to disk"),
        ] {
            assert_eq!(transfer_line(&transfer), wanted);
        }
    }

    #[test]
    fn the_summary_has_both_clocks_and_the_limit() {
        let done = TransferRow {
            total_bytes: 1 << 30,
            proven_ms: Some(500),
            durable_ms: Some(1_000),
            ..transfer(TransferState::Complete)
        };
        let wanted = "/d/file 1.0 GiB; proven after 0.5s (2.0 GiB/s); durable after 1.0s (1.0 GiB/s); limited by network";
        assert_eq!(summarize_transfer(&done), wanted);
    }

    #[test]
    fn bytes_of_an_earlier_attempt_do_not_count_in_rates() {
        let resumed = TransferRow {
            total_bytes: 1 << 30,
            resumed_bytes: 768 << 20,
            proven_ms: Some(500),
            durable_ms: Some(1_000),
            ..transfer(TransferState::Complete)
        };
        let wanted = "/d/file 1.0 GiB; 768.0 MiB were there already; proven after 0.5s (512.0 MiB/s); durable after 1.0s (256.0 MiB/s); limited by network";
        assert_eq!(summarize_transfer(&resumed), wanted);
    }
}
