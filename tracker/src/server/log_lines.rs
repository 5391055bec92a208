//! The tracker's log lines. Those of one place in the code are limited, so that no client can fill a disk with them: the
//! rest is counted, and the count is written with the next line after the window.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::clock::ServerClock;
use super::limits::{LOG_LINES_PER_WINDOW, LOG_WINDOW_MS};
use super::log_output::LogOutput;

thread_local! {
    /// This thread is writing a line.
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Makes the writer of each log line.
#[derive(Debug)]
pub struct LogLines {
    clock: ServerClock,
    repeats: Mutex<RepeatCounts<Identifier>>,
    output: Mutex<LogOutput>,
}

impl LogLines {
    /// Writes to standard error.
    #[must_use]
    pub fn new() -> LogLines {
        let repeats = Mutex::new(RepeatCounts { windows: HashMap::new() });
        LogLines { clock: ServerClock::new(), repeats, output: Mutex::default() }
    }
}

impl Default for LogLines {
    fn default() -> LogLines {
        LogLines::new()
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { output: Some(&self.output) }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter<'a> {
        // Lines below `info` are asked for by a developer, who wants all.
        if *metadata.level() > Level::INFO {
            return self.make_writer();
        }
        let now_ms = self.clock.now().ms;
        let mut repeats = lock(&self.repeats);
        for (name, lines) in repeats.take_finished(now_ms) {
            let note = format!("{lines} more lines of {name} were not written\n");
            write_line(&self.output, note.as_bytes());
        }
        let is_written = repeats.admit(metadata.callsite(), metadata.name(), now_ms);
        LineWriter { output: is_written.then_some(&self.output) }
    }
}

/// Writes one line, or drops it. Each write is one line.
#[derive(Debug)]
pub struct LineWriter<'a> {
    output: Option<&'a Mutex<LogOutput>>,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(output) = self.output {
            write_line(output, line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line, except those that a library logs while this thread writes another.
fn write_line(output: &Mutex<LogOutput>, line: &[u8]) {
    if !IS_WRITING.replace(true) {
        lock(output).write_line(line);
        IS_WRITING.set(false);
    }
}

/// Takes a lock. A panic of another thread leaves the counts as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many lines each place in the code has written lately.
#[derive(Debug)]
struct RepeatCounts<K> {
    windows: HashMap<K, LineWindow>,
}

#[derive(Debug)]
struct LineWindow {
    name: String,
    start_ms: u64,
    lines: u64,
}

impl<K: Eq + Hash> RepeatCounts<K> {
    /// Counts a line. Returns `false` when its place has written too many.
    fn admit(&mut self, place: K, name: &str, now_ms: u64) -> bool {
        let window = self.windows.entry(place).or_insert_with(|| LineWindow {
            name: name.to_owned(),
            start_ms: now_ms,
            lines: 0,
        });
        window.lines += 1;
        window.lines <= LOG_LINES_PER_WINDOW
    }

    /// Takes out the windows that are over; gives the names and numbers of lines that were not written.
    fn take_finished(&mut self, now_ms: u64) -> Vec<(String, u64)> {
        let finished = self.windows.extract_if(|_, window| now_ms >= window.start_ms + LOG_WINDOW_MS);
        finished
            .filter(|(_, window)| window.lines > LOG_LINES_PER_WINDOW)
            .map(|(_, window)| (window.name, window.lines - LOG_LINES_PER_WINDOW))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_are_counted_and_not_written() {
        let mut repeats = RepeatCounts { windows: HashMap::new() };
        let written = (0..1_000).filter(|line| repeats.admit(1, "accept", *line)).count() as u64;
        assert_eq!(written, LOG_LINES_PER_WINDOW);
        assert!(repeats.admit(2, "other", 1_000), "other lines are written");
        assert_eq!(repeats.take_finished(1_000), []);
        let lost = 1_000 - LOG_LINES_PER_WINDOW;
        assert_eq!(repeats.take_finished(LOG_WINDOW_MS), [("accept".to_owned(), lost)]);
        assert!(repeats.admit(1, "accept", LOG_WINDOW_MS), "a new window");
    }
}
