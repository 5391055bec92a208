//! How answers, events and faults look: tables and bars on a terminal, plain lines to a pipe, JSON where asked for.
//!
//! ```text
//!   commands ──► Screen ──┬─► answer  (stdout: tables, names, sentences, one JSON object)
//!                         ├─► progress (stderr: one redrawn line, or a plain line now and then)
//!                         └─► fault   (stderr: what happened; what to type next)
//!                figures: sizes, rates, spans      transfer: the forms of `show_downloads`
//! ```
//!
//! Invariant: data goes to stdout, everything else to stderr. Nothing here decides anything.

pub(crate) mod answer;
pub(crate) mod figures;
mod progress;
pub(crate) mod transfer;

use std::io::{IsTerminal, Write};

use crate::cli::options::Color;
use crate::exit::Fault;
use crate::front::protocol::{Answer, Event};
use crate::plan::Output;

use progress::ProgressLine;

/// The user's terminal, or whatever stands in its place.
pub(crate) struct Screen {
    json: bool,
    quiet: bool,
    color: Color,
    stdout_is_terminal: bool,
    progress: ProgressLine,
}

impl Screen {
    /// A screen on this process's stdout and stderr.
    pub(crate) fn new(output: Output) -> Screen {
        Screen {
            json: output.json,
            quiet: output.quiet,
            color: output.color,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            progress: ProgressLine::new(std::io::stderr().is_terminal()),
        }
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Wants JSON, or does not: at the prompt each line decides.
    pub(crate) fn set_json(&mut self, json: bool) {
        self.json = json;
    }

    /// Shows an answer.
    pub(crate) fn answer(&mut self, answer: &Answer) {
        self.progress.clear();
        let text = if self.json {
            serde_json::to_string(answer).unwrap_or_default() + "\n"
        } else {
            answer::text(answer, self.stdout_is_terminal)
        };
        self.data(&text);
    }

    /// Shows an event: as progress, or as a JSON line.
    pub(crate) fn event(&mut self, event: &Event) {
        if self.json {
            self.data(&(serde_json::to_string(event).unwrap_or_default() + "\n"));
        } else if let Event::Notice { text } = event {
            self.note(text);
        } else if !self.quiet {
            self.progress.show(event, crate::clock::now());
        }
    }

    /// A remark for people.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.quiet {
            self.progress.clear();
            to_stderr(&format!("{text}\n"));
        }
    }

    /// Shows what went wrong; in JSON also as the one object of the command.
    pub(crate) fn fault(&mut self, fault: &Fault) {
        self.progress.clear();
        if self.json {
            let object = serde_json::json!({
                "result": "failed", "exit": fault.exit.code(), "cause": fault.exit,
                "message": fault.message, "fix": fault.fix,
            });
            self.data(&format!("{object}\n"));
        }
        let red = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stderr().is_terminal(),
        };
        to_stderr(&fault_text(fault, red));
    }

    /// Writes data as it is.
    pub(crate) fn data(&mut self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // A reader that has gone away (`| head`) is no reason to fail: what it wanted, it has.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }
}

fn fault_text(fault: &Fault, red: bool) -> String {
    let head = if red { "\x1b[31merror:\x1b[0m" } else { "error:" };
    match &fault.fix {
        Some(fix) => format!("{head} {}\n  next: {fix}\n", fault.message),
        None => format!("{head} {}\n", fault.message),
    }
}

fn to_stderr(text: &str) {
    // There is nowhere to say that stderr is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_fault_says_what_and_what_next() {
        let fault = Fault::new(Exit::NotFound, "no file `x`").fix("list_files g");
        assert_eq!(fault_text(&fault, false), "error: no file `x`\n  next: list_files g\n");
        assert!(fault_text(&fault, true).starts_with("\x1b[31m"));
    }
}
