//! Output: tables and bars on a terminal, plain lines to a pipe, JSON where requested.
//!
//! ```text
//!   commands ──► Screen ──┬─► answer   (stdout: tables, names, sentences, one JSON object)
//!                         ├─► progress (stderr: one redrawn line, or a plain line at intervals)
//!                         └─► errors   (stderr: what happened, what to do next)
//!                figures: sizes, rates, durations      transfer: the lines of `show_downloads`
//!                shell: suggested commands as a shell needs them
//! ```
//!
//! Data goes to stdout, everything else to stderr. This module decides nothing.

pub(crate) mod answer;
pub(crate) mod figures;
mod progress;
mod shell;
pub(crate) mod transfer;

use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::cli::options::ColorOption;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeEvent};
use crate::plan::OutputPlan;
use crate::printable::escape_lines;

use answer::TextForm;
use progress::{ProgressLine, write_stderr};

/// Stdout and stderr of this process.
pub(crate) struct Screen {
    json: bool,
    quiet: bool,
    color: ColorOption,
    form: TextForm,
    at_prompt: bool,
    progress: ProgressLine,
    /// First failed write to stdout.
    write_error: Option<io::Error>,
    /// An additional field of the next JSON failure.
    details: Option<(&'static str, serde_json::Value)>,
}

impl Screen {
    pub(crate) fn new(output: OutputPlan) -> Screen {
        Screen {
            json: output.json,
            quiet: output.quiet,
            color: output.color,
            form: TextForm::of_stdout(),
            at_prompt: false,
            progress: ProgressLine::new(io::stderr().is_terminal()),
            write_error: None,
            details: None,
        }
    }

    /// Suggested commands are from now on for the prompt, not for a shell.
    pub(crate) fn set_at_prompt(&mut self) {
        self.at_prompt = true;
    }

    /// Checks that every write to stdout succeeded.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn check_written(&self) -> Result<(), ClientFault> {
        match &self.write_error {
            None => Ok(()),
            Some(error) => Err(write_fault(error)),
        }
    }

    /// Adds a field to the JSON object of the next failure.
    pub(crate) fn attach_detail(&mut self, name: &'static str, value: serde_json::Value) {
        self.details = Some((name, value));
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Switches JSON output, which each prompt line decides.
    pub(crate) fn set_json(&mut self, json: bool) {
        self.json = json;
    }

    pub(crate) fn show_answer(&mut self, answer: &NodeAnswer) {
        self.progress.clear();
        let text = if self.json {
            serde_json::to_string(answer).unwrap_or_default() + "\n"
        } else {
            answer::answer_text(answer, self.form)
        };
        self.print(&text);
        if !self.json {
            answer::row_notes(answer).iter().for_each(|note| self.show_note(note));
        }
        if let Some(remark) = answer::answer_remark(answer).filter(|_| !self.json) {
            self.show_note(&remark);
        }
    }

    /// Shows an event as progress or, with JSON output, as a line.
    pub(crate) fn show_event(&mut self, event: &NodeEvent) {
        if self.json {
            self.print(&(serde_json::to_string(event).unwrap_or_default() + "\n"));
        } else if let NodeEvent::Notice { text } = event {
            self.show_note(text);
        } else if !self.quiet {
            self.progress.show(event, crate::clock::now());
        }
    }

    /// Prints a note to stderr, unless `--quiet` is set.
    pub(crate) fn show_note(&mut self, text: &str) {
        if !self.quiet {
            self.progress.clear();
            let text = escape_lines(&self.format_advice(text));
            write_stderr(&format!("{text}\n"));
        }
    }

    /// Suggested commands as the user must type them here.
    fn format_advice(&self, text: &str) -> String {
        if self.at_prompt { text.to_owned() } else { shell::prefix_shell_commands(text) }
    }

    /// Shows an error on stderr, and with JSON output also on stdout as the command's one object.
    pub(crate) fn show_fault(&mut self, fault: &ClientFault) {
        self.progress.clear();
        let fix = fault.fix.as_deref().map(|fix| self.format_advice(fix));
        let fault = &ClientFault { fix, ..fault.clone() };
        let details = self.details.take();
        if self.json {
            self.print(&fault_object(fault, details));
        }
        write_stderr(&fault_text(fault, wants_color(self.color, &io::stderr())));
    }

    /// Prints an error as a JSON object, if JSON is on. Its text is printed elsewhere.
    pub(crate) fn show_fault_in_json(&mut self, fault: &ClientFault) {
        if self.json {
            self.print(&fault_object(fault, None));
        }
    }

    /// Writes lines of a label and a text to stdout.
    pub(crate) fn print_labelled(&mut self, lines: &[(String, String)], label_columns: usize) {
        self.print(&answer::labelled_text(lines, label_columns, self.form));
    }

    /// Writes text to stdout.
    pub(crate) fn print(&mut self, text: &str) {
        self.progress.clear();
        if let Err(error) = write_stdout(text) {
            self.write_error.get_or_insert(error);
        }
    }
}

/// Writes data to stdout. A reader that went away (`| head`) is not an error.
///
/// # Errors
/// Those of the stream.
fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The error of a failed write to stdout.
pub(crate) fn write_fault(error: &io::Error) -> ClientFault {
    ClientFault::io("write to", std::path::Path::new("standard output"), error)
        .fix("send the output to a place with free space")
}

/// Whether output to a stream is coloured.
pub(crate) fn wants_color(color: ColorOption, stream: &impl IsTerminal) -> bool {
    match color {
        ColorOption::Always => true,
        ColorOption::Never => false,
        ColorOption::Auto => stream.is_terminal(),
    }
}

fn fault_object(fault: &ClientFault, details: Option<(&'static str, serde_json::Value)>) -> String {
    let mut object = serde_json::json!({
        "result": "failed", "exit": fault.exit.code(), "cause": fault.exit,
        "message": fault.message, "fix": fault.fix,
    });
    if let Some((name, value)) = details {
        object[name] = value;
    }
    format!("{object}\n")
}

fn fault_text(fault: &ClientFault, red: bool) -> String {
    let head = match (fault.exit, red) {
        // What the user ended is no error.
        (ExitCause::Interrupted, _) => "stopped:",
        (_, true) => "\x1b[31merror:\x1b[0m",
        (_, false) => "error:",
    };
    let message = escape_lines(&fault.message);
    match &fault.fix {
        Some(fix) => format!("{head} {message}\n  next: {}\n", escape_lines(fix)),
        None => format!("{head} {message}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_and_what_to_do() {
        let fault = ClientFault::new(ExitCause::NotFound, "no file `x`").fix("list_files g");
        assert_eq!(fault_text(&fault, false), "error: no file `x`\n  next: list_files g\n");
        assert!(fault_text(&fault, true).starts_with("\x1b[31m"));
        let stopped = ClientFault::new(ExitCause::Interrupted, "f has 1 of 2 GiB");
        assert_eq!(fault_text(&stopped, true), "stopped: f has 1 of 2 GiB\n");
        let hostile = ClientFault::new(ExitCause::NotFound, "a\x1b[2J\r\nb").fix("c\u{7}");
        assert_eq!(fault_text(&hostile, false), "error: a\\u{1b}[2J\\r\nb\n  next: c\\u{7}\n");
    }

    #[test]
    fn colours_follow_the_option_and_else_the_stream() {
        let pipe = std::fs::File::open("/dev/null").unwrap();
        let of = |color| wants_color(color, &pipe);
        assert_eq!(
            (of(ColorOption::Always), of(ColorOption::Never), of(ColorOption::Auto)),
            (true, false, false)
        );
    }
}
