//! The forms of `show_downloads`, one line a download: a contract with people and scripts.

use std::time::Duration;

use super::figures;
use crate::front::rows::{State, Transfer};

/// `[D] [group] file  38%  1.1 GiB/s  3 peers  ETA 55s`, `[C] [group] file`, `[P] [group] file (reason)`,
/// `[F] [group] file (reason)`.
pub(crate) fn line(transfer: &Transfer) -> String {
    let name = format!("[{}] {}", transfer.group, transfer.file);
    match transfer.state {
        State::Downloading => format!("[D] {name}  {}", moving(transfer)),
        // A pass over the whole is counted as it begins; what was there at the start is hashed before any.
        State::Checking if transfer.sequential_passes == 0 => {
            format!("[D] {name}  {}  checking what an earlier attempt left", percent(transfer))
        }
        State::Checking => format!("[D] {name}  {}  proving the whole", percent(transfer)),
        State::Comparing => {
            let path = transfer.path.display();
            format!("[D] {name}  {}  comparing what is at {path}", percent(transfer))
        }
        State::Syncing => format!("[D] {name}  {}  flushing to disk", percent(transfer)),
        State::Complete => format!("[C] {name}"),
        State::Waiting | State::Paused => format!("[P] {name} ({})", reason(transfer, "by you")),
        State::Failed => format!("[F] {name} ({})", reason(transfer, "failed")),
        State::Cancelled => format!("[F] {name} (cancelled)"),
    }
}

/// `38%  1.1 GiB/s  3 peers  ETA 55s`; `38%  connecting` while no peer is found yet.
pub(crate) fn moving(transfer: &Transfer) -> String {
    let rest = transfer.total_bytes.saturating_sub(transfer.verified_bytes);
    if transfer.peers == 0 && transfer.rate == 0 {
        return format!("{}  connecting", percent(transfer));
    }
    let mut parts = vec![percent(transfer), figures::rate(transfer.rate)];
    parts.push(format!("{} {}", transfer.peers, if transfer.peers == 1 { "peer" } else { "peers" }));
    parts.extend(figures::eta(rest, transfer.rate).map(|eta| format!("ETA {eta}")));
    parts.join("  ")
}

/// What a download was, once it is durable: sizes, both clocks, and what held it back. What an earlier attempt had left is
/// named, and no part of the rates: it took none of this time.
pub(crate) fn summary(transfer: &Transfer) -> String {
    let gained_bytes = transfer.total_bytes.saturating_sub(transfer.resumed_bytes);
    let clock = |name: &str, ms: Option<u64>| {
        ms.map(|ms| {
            let span = Duration::from_millis(ms);
            let rate = figures::rate(figures::mean_rate(gained_bytes, span));
            format!("{name} after {} ({rate})", figures::span(span))
        })
    };
    let mut parts = vec![format!("{} {}", transfer.path.display(), figures::size(transfer.total_bytes))];
    if transfer.resumed_bytes > 0 {
        parts.push(format!("{} were there already", figures::size(transfer.resumed_bytes)));
    }
    parts.extend(clock("proven", transfer.proven_ms));
    parts.extend(clock("durable", transfer.durable_ms));
    parts.push(format!("limited by {}", transfer.limited_by));
    if transfer.pieces_only {
        parts.push("only its pieces are proven, since the uploader gave no SHA-1 of the whole".into());
    }
    if transfer.sequential_passes > 0 {
        parts.push("proven by a pass over the whole, since the uploader's chain was missing or wrong".into());
    }
    if transfer.duplicate_bytes > 0 {
        parts.push(format!("{} received twice", figures::size(transfer.duplicate_bytes)));
    }
    parts.join("; ")
}

fn percent(transfer: &Transfer) -> String {
    format!("{}%", figures::percent(transfer.verified_bytes, transfer.total_bytes))
}

fn reason(transfer: &Transfer, otherwise: &str) -> String {
    transfer.cause.as_ref().map_or_else(|| otherwise.to_owned(), |cause| cause.message.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exit::{Exit, Fault};

    /// A download on its way.
    pub(crate) fn transfer(state: State) -> Transfer {
        Transfer {
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
        let because = |state, message: &str| Transfer {
            cause: Some(Fault::new(Exit::NoPeer, message)),
            ..transfer(state)
        };
        for (transfer, wanted) in [
            (transfer(State::Downloading), "[D] [group] file  38%  1.1 GiB/s  3 peers  ETA 55s"),
            (
                Transfer { peers: 1, rate: 0, ..transfer(State::Downloading) },
                "[D] [group] file  38%  0 B/s  1 peer",
            ),
            (
                Transfer { peers: 0, rate: 0, ..transfer(State::Downloading) },
                "[D] [group] file  38%  connecting",
            ),
            (transfer(State::Complete), "[C] [group] file"),
            (transfer(State::Paused), "[P] [group] file (by you)"),
            (
                because(State::Waiting, "no peer has what is missing"),
                "[P] [group] file (no peer has what is missing)",
            ),
            (because(State::Failed, "the disk broke"), "[F] [group] file (the disk broke)"),
            (transfer(State::Cancelled), "[F] [group] file (cancelled)"),
            (transfer(State::Comparing), "[D] [group] file  38%  comparing what is at /d/file"),
            (transfer(State::Checking), "[D] [group] file  38%  checking what an earlier attempt left"),
            (
                Transfer { sequential_passes: 1, ..transfer(State::Checking) },
                "[D] [group] file  38%  proving the whole",
            ),
            (transfer(State::Syncing), "[D] [group] file  38%  flushing to disk"),
        ] {
            assert_eq!(line(&transfer), wanted);
        }
    }

    #[test]
    fn the_summary_has_both_clocks_and_the_limit() {
        let done = Transfer {
            total_bytes: 1 << 30,
            proven_ms: Some(500),
            durable_ms: Some(1_000),
            ..transfer(State::Complete)
        };
        let wanted = "/d/file 1.0 GiB; proven after 0.5s (2.0 GiB/s); durable after 1.0s (1.0 GiB/s); limited by network";
        assert_eq!(summary(&done), wanted);
    }

    #[test]
    fn what_was_there_already_is_no_part_of_the_rates() {
        let resumed = Transfer {
            total_bytes: 1 << 30,
            resumed_bytes: 768 << 20,
            proven_ms: Some(500),
            durable_ms: Some(1_000),
            ..transfer(State::Complete)
        };
        let wanted = "/d/file 1.0 GiB; 768.0 MiB were there already; proven after 0.5s (512.0 MiB/s); durable after 1.0s (256.0 MiB/s); limited by network";
        assert_eq!(summary(&resumed), wanted);
    }
}
