//! The lines of `show_downloads`, one per download. Their format is a contract with users and scripts.

use std::time::Duration;

use super::figures;
use crate::ipc::rows::{TransferRow, TransferState};
use crate::printable::show_path;

/// The mark of [`transfer_line`], and the rest of it with the file's length and its destination.
pub(crate) fn listing_cells(transfer: &TransferRow) -> (String, String) {
    let (size, path) = (figures::format_size(transfer.total_bytes), show_path(&transfer.path));
    let line = transfer_line(transfer);
    let (mark, text) = line.split_once(' ').expect("a line begins with its mark");
    (mark.to_owned(), format!("{text}  {size}  {path}"))
}

/// `[D] [group] file  38%  1.1 GiB/s  3 peers  ETA 55s`, `[C] [group] file`, `[W] [group] file (what it waits for)  38%`,
/// `[P] [group] file (by you)  38%`, `[F] [group] file (reason)`.
pub(crate) fn transfer_line(transfer: &TransferRow) -> String {
    let name = format!("[{}] {}", transfer.group, transfer.file);
    match transfer.state {
        TransferState::Downloading => format!("[D] {name}  {}", progress_text(transfer)),
        // `sequential_passes` counts a pass when it begins. Data of an earlier attempt is hashed before any pass.
        TransferState::Checking => {
            let what = match transfer.sequential_passes {
                0 => "checking what an earlier attempt left",
                _ => "proving the whole",
            };
            // The counted bytes are those of the check, once it has begun.
            let (done, total) = match transfer.to_hash_bytes {
                0 => (transfer.verified_bytes, transfer.total_bytes),
                total => (transfer.hashed_bytes, total),
            };
            format!("[D] {name}  {what}  {}", work_text(done, total, transfer.rate))
        }
        TransferState::Comparing => {
            let path = show_path(&transfer.path);
            format!("[W] {name}  {}  comparing {path}", percent_text(transfer))
        }
        TransferState::Syncing => format!("[D] {name}  {}  flushing to disk", percent_text(transfer)),
        TransferState::Complete => format!("[C] {name}"),
        TransferState::Waiting { .. } => {
            format!("[W] {name} ({}){}", state_reason(transfer, "waiting"), held_text(transfer))
        }
        TransferState::Paused => format!("[P] {name} (by you){}", held_text(transfer)),
        TransferState::Failed => format!("[F] {name} ({})", state_reason(transfer, "failed")),
        TransferState::Cancelled => format!("[F] {name} (cancelled)"),
    }
}

/// A part of `total` bytes that are hashed or listed: `38%  100.0 GiB  1.1 GiB/s  ETA 55s`. The rate is 0 until it is known.
pub(crate) fn work_text(done: u64, total: u64, rate: u64) -> String {
    let mut parts = vec![format!("{}%", figures::whole_percent(done, total)), figures::format_size(total)];
    if rate > 0 {
        parts.push(figures::format_rate(rate));
        parts.extend(figures::format_eta(total.saturating_sub(done), rate).map(|eta| format!("ETA {eta}")));
    }
    parts.join("  ")
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

/// `38.0 GiB of 100.0 GiB (38%) downloaded`.
pub(crate) fn amount_text(transfer: &TransferRow) -> String {
    let (done, total) =
        (figures::format_size(transfer.verified_bytes), figures::format_size(transfer.total_bytes));
    format!("{done} of {total} ({}) downloaded", percent_text(transfer))
}

fn percent_text(transfer: &TransferRow) -> String {
    format!("{}%", figures::whole_percent(transfer.verified_bytes, transfer.total_bytes))
}

/// `  38%`, for a download that does not run. Nothing for one of which the node has not looked yet how much is there.
fn held_text(transfer: &TransferRow) -> String {
    if transfer.verified_bytes == 0 { String::new() } else { format!("  {}", percent_text(transfer)) }
}

fn state_reason(transfer: &TransferRow, otherwise: &str) -> String {
    transfer.cause.as_ref().map_or_else(|| otherwise.to_owned(), |cause| cause.message.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exit::{ClientFault, ExitCause};
    use crate::ipc::rows::WaitCause;

    pub(crate) const WAITING: TransferState = TransferState::Waiting { waits_for: WaitCause::Peers };

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
            hashed_bytes: 0,
            to_hash_bytes: 0,
            peers: 3,
            peer_troubles: Vec::new(),
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
            (transfer(TransferState::Paused), "[P] [group] file (by you)  38%"),
            (
                because(WAITING, "no peer has what is missing"),
                "[W] [group] file (no peer has what is missing)  38%",
            ),
            (because(TransferState::Failed, "the disk broke"), "[F] [group] file (the disk broke)"),
            (
                TransferRow { verified_bytes: 0, ..transfer(TransferState::Paused) },
                "[P] [group] file (by you)",
            ),
            (transfer(TransferState::Cancelled), "[F] [group] file (cancelled)"),
            (transfer(TransferState::Comparing), "[W] [group] file  38%  comparing /d/file"),
            (
                transfer(TransferState::Checking),
                "[D] [group] file  checking what an earlier attempt left  38%  100.0 GiB  1.1 GiB/s  ETA 55s",
            ),
            (
                TransferRow {
                    sequential_passes: 1,
                    hashed_bytes: 1 << 30,
                    to_hash_bytes: 2 << 30,
                    rate: 0,
                    ..transfer(TransferState::Checking)
                },
                "[D] [group] file  proving the whole  50%  2.0 GiB",
            ),
            (transfer(TransferState::Syncing), "[D] [group] file  38%  flushing to disk"),
        ] {
            assert_eq!(transfer_line(&transfer), wanted);
        }
    }

    #[test]
    fn the_list_has_size_and_destination() {
        let (mark, text) = listing_cells(&transfer(TransferState::Complete));
        assert_eq!((&*mark, &*text), ("[C]", "[group] file  100.0 GiB  /d/file"));
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
