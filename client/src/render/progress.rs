//! Progress on stderr: one redrawn line on a terminal, otherwise a plain line at intervals.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use engine::proto::rate::RateMeter;
use engine::proto::time::Moment;
use indicatif::{ProgressBar, ProgressStyle};

use super::transfer;
use crate::ipc::protocol::NodeEvent;
use crate::ipc::rows::{TransferRow, TransferState};
use crate::limits;
use crate::printable::escape_line;

const TEMPLATE: &str = "{bar:24} {wide_msg}";

/// The progress line.
pub(crate) struct ProgressLine {
    terminal: bool,
    bar: Option<ProgressBar>,
    last: Option<(Instant, String)>,
    rate: Option<WorkRate>,
}

/// The rate of one work that is shown.
struct WorkRate {
    /// The activity and its file.
    what: String,
    began: Instant,
    done_bytes: u64,
    meter: RateMeter,
}

impl WorkRate {
    fn new(what: String, began: Instant, done_bytes: u64) -> WorkRate {
        WorkRate { what, began, done_bytes, meter: RateMeter::new(Moment::default()) }
    }

    /// Bytes a second; 0 until they are known.
    fn measure(&mut self, now: Instant, done_bytes: u64) -> u64 {
        let moment = Moment::at(now.duration_since(self.began));
        self.meter.add(moment, done_bytes.saturating_sub(self.done_bytes));
        self.done_bytes = done_bytes;
        self.meter.rate(moment).unwrap_or(0)
    }
}

impl ProgressLine {
    pub(crate) fn new(terminal: bool) -> ProgressLine {
        ProgressLine { terminal, bar: None, last: None, rate: None }
    }

    /// Shows the progress of an event.
    pub(crate) fn show(&mut self, event: &NodeEvent, now: Instant) {
        let Some((done, total, text)) = self.progress_figures(event, now) else { return };
        if self.terminal {
            let bar = self.bar.get_or_insert_with(new_bar);
            bar.update(|state| {
                state.set_len(total.max(1));
                state.set_pos(if total == 0 { 1 } else { done });
            });
            bar.set_message(text);
        } else if let Some(line) = self.plain_line(event, text, now) {
            write_stderr(&format!("{line}\n"));
        }
    }

    /// Removes the line so that other text can be written.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.last = None;
    }

    /// Done and total bytes, and the text.
    fn progress_figures(&mut self, event: &NodeEvent, now: Instant) -> Option<(u64, u64, String)> {
        let (file, done, total) = match event {
            NodeEvent::Hashing { file, done_bytes, total_bytes }
            | NodeEvent::Listing { file, done_bytes, total_bytes }
            | NodeEvent::Comparing { file, done_bytes, total_bytes } => (file, *done_bytes, *total_bytes),
            NodeEvent::Transfer(row) => {
                return Some((row.verified_bytes, row.total_bytes, escape_line(&transfer_text(row))));
            }
            NodeEvent::Notice { .. } => return None,
        };
        let what = format!("{} {file}", event_kind(event));
        let is_same = |rate: &WorkRate| rate.what == what && rate.done_bytes <= done;
        let mut rate = self.rate.take().filter(is_same).unwrap_or_else(|| WorkRate::new(what, now, done));
        let bytes_per_s = rate.measure(now, done);
        let text = format!("{}  {}", rate.what, transfer::work_text(done, total, bytes_per_s));
        self.rate = Some(rate);
        Some((done, total, text))
    }

    /// The plain line if one is due: at the start, at intervals, and when the activity changes.
    fn plain_line(&mut self, event: &NodeEvent, text: String, now: Instant) -> Option<String> {
        let every = Duration::from_millis(match event {
            NodeEvent::Transfer(TransferRow {
                state: TransferState::Waiting { .. } | TransferState::Paused,
                ..
            }) => limits::PLAIN_WAITING_EVERY_MS,
            _ => limits::PLAIN_PROGRESS_EVERY_MS,
        });
        let what = event_kind(event);
        let due = self
            .last
            .as_ref()
            .is_none_or(|(shown_at, shown)| *shown != what || now.duration_since(*shown_at) >= every);
        due.then(|| {
            self.last = Some((now, what));
            text
        })
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).expect("the template is a constant and is tested");
    ProgressBar::new(1).with_style(style)
}

fn transfer_text(now: &TransferRow) -> String {
    match now.state {
        TransferState::Downloading => format!("{}  {}", now.file, transfer::progress_text(now)),
        _ => transfer::transfer_line(now),
    }
}

/// The activity without its numbers. A plain line is due when it changes.
fn event_kind(event: &NodeEvent) -> String {
    match event {
        NodeEvent::Hashing { .. } => "hashing".into(),
        NodeEvent::Listing { .. } => "listing".into(),
        NodeEvent::Comparing { .. } => "comparing".into(),
        NodeEvent::Transfer(now) => {
            let troubles: Vec<_> =
                now.peer_troubles.iter().map(|trouble| (trouble.address, &trouble.trouble)).collect();
            format!("{:?} {:?} {troubles:?}", now.state, now.cause.as_ref().map(|cause| cause.exit))
        }
        NodeEvent::Notice { .. } => "notice".into(),
    }
}

/// Writes text to stderr.
pub(super) fn write_stderr(text: &str) {
    // There is no other place to report a failure to write to stderr.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashing(done_bytes: u64) -> NodeEvent {
        NodeEvent::Hashing { file: "f".into(), done_bytes, total_bytes: 200 }
    }

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn plain_lines_come_at_intervals() {
        let mut line = ProgressLine::new(false);
        let start = crate::clock::now();
        let mut shown = |event: &NodeEvent, after_ms| {
            let now = start + Duration::from_millis(after_ms);
            let text = line.progress_figures(event, now).unwrap().2;
            line.plain_line(event, text, now)
        };
        assert_eq!(shown(&hashing(0), 0).as_deref(), Some("hashing f  0%  200 B"));
        assert_eq!(shown(&hashing(50), 1_000), None);
        assert_eq!(shown(&hashing(100), 5_000).as_deref(), Some("hashing f  50%  200 B  12 B/s  ETA 9s"));
        let comparing = NodeEvent::Comparing { file: "f".into(), done_bytes: 0, total_bytes: 1 };
        assert!(shown(&comparing, 5_001).is_some(), "something else has begun");
        let waiting = NodeEvent::Transfer(transfer::tests::transfer(transfer::tests::WAITING));
        assert!(shown(&waiting, 6_000).is_some());
        assert_eq!(shown(&waiting, 35_000), None, "it waits on, and that is known");
        assert!(shown(&waiting, 36_000).is_some());
    }
}
