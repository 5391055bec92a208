//! How answers, events and faults look: tables and bars on a terminal, plain lines to a pipe, JSON where asked for.
//!
//! ```text
//!   commands ──► Screen ──┬─► answer  (stdout: tables, names, sentences, one JSON object)
//!                         ├─► progress (stderr: one redrawn line, or a plain line now and then)
//!                         └─► fault   (stderr: what happened; what to type next)
//!                figures: sizes, rates, spans      transfer: the forms of `show_downloads`      streams
//!                shell: commands in advice, as they are typed outside of the prompt
//! ```
//!
//! Invariant: data goes to stdout, everything else to stderr. Nothing here decides anything.

pub(crate) mod answer;
pub(crate) mod figures;
mod progress;
mod shell;
mod streams;
pub(crate) mod transfer;

use std::io::IsTerminal;

use crate::cli::options::Color;
use crate::exit::Fault;
use crate::front::protocol::{Answer, Event};
use crate::plan::Output;

use progress::ProgressLine;
use streams::{to_stderr, to_stdout};

/// The user's terminal, or whatever stands in its place.
pub(crate) struct Screen {
    json: bool,
    quiet: bool,
    color: Color,
    stdout_is_terminal: bool,
    at_prompt: bool,
    progress: ProgressLine,
    /// The first thing that stdout did not take.
    unwritten: Option<std::io::Error>,
    /// What the object of a failure says besides, in JSON.
    details: Option<(&'static str, serde_json::Value)>,
}

impl Screen {
    /// A screen on this process's stdout and stderr.
    pub(crate) fn new(output: Output) -> Screen {
        Screen {
            json: output.json,
            quiet: output.quiet,
            color: output.color,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            at_prompt: false,
            progress: ProgressLine::new(std::io::stderr().is_terminal()),
            unwritten: None,
            details: None,
        }
    }

    /// What is advised from now on is typed at the prompt, not in a shell.
    pub(crate) fn set_at_prompt(&mut self) {
        self.at_prompt = true;
    }

    /// Whether stdout has taken everything so far.
    ///
    /// # Errors
    /// A fault with what the system said when it first did not.
    pub(crate) fn all_written(&self) -> Result<(), Fault> {
        match &self.unwritten {
            None => Ok(()),
            Some(error) => Err(unwritten(error)),
        }
    }

    /// Has the object of the failure that follows say this too, in JSON.
    pub(crate) fn explain(&mut self, name: &'static str, value: serde_json::Value) {
        self.details = Some((name, value));
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
        self.print(&text);
        if let Some(remark) = answer::remark(answer).filter(|_| !self.json) {
            self.note(remark);
        }
    }

    /// Shows an event: as progress, or as a JSON line.
    pub(crate) fn event(&mut self, event: &Event) {
        if self.json {
            self.print(&(serde_json::to_string(event).unwrap_or_default() + "\n"));
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
            let text = self.advice(text);
            to_stderr(&format!("{text}\n"));
        }
    }

    /// Advice with its commands as they are typed here.
    fn advice(&self, text: &str) -> String {
        if self.at_prompt { text.to_owned() } else { shell::commands_of_the_shell(text) }
    }

    /// Shows what went wrong; in JSON also as the one object of the command.
    pub(crate) fn fault(&mut self, fault: &Fault) {
        self.progress.clear();
        let fix = fault.fix.as_deref().map(|fix| self.advice(fix));
        let fault = &Fault { fix, ..fault.clone() };
        let details = self.details.take();
        if self.json {
            self.print(&fault_object(fault, details));
        }
        to_stderr(&fault_text(fault, colours(self.color, &std::io::stderr())));
    }

    /// Shows a fault whose words somebody else shows: in JSON alone, as the one object of the command.
    pub(crate) fn fault_in_json(&mut self, fault: &Fault) {
        if self.json {
            self.print(&fault_object(fault, None));
        }
    }

    /// Writes to stdout, as it is.
    pub(crate) fn print(&mut self, text: &str) {
        self.progress.clear();
        if let Err(error) = to_stdout(text) {
            self.unwritten.get_or_insert(error);
        }
    }
}

/// That stdout did not take what was written.
pub(crate) fn unwritten(error: &std::io::Error) -> Fault {
    Fault::io("write to", std::path::Path::new("standard output"), error)
        .fix("send the output to where there is room for it")
}

/// Whether what goes to a stream has colours.
pub(crate) fn colours(color: Color, stream: &impl IsTerminal) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => stream.is_terminal(),
    }
}

fn fault_object(fault: &Fault, details: Option<(&'static str, serde_json::Value)>) -> String {
    let mut object = serde_json::json!({
        "result": "failed", "exit": fault.exit.code(), "cause": fault.exit,
        "message": fault.message, "fix": fault.fix,
    });
    if let Some((name, value)) = details {
        object[name] = value;
    }
    format!("{object}\n")
}

fn fault_text(fault: &Fault, red: bool) -> String {
    let head = if red { "\x1b[31merror:\x1b[0m" } else { "error:" };
    match &fault.fix {
        Some(fix) => format!("{head} {}\n  next: {fix}\n", fault.message),
        None => format!("{head} {}\n", fault.message),
    }
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

    #[test]
    fn colours_are_what_was_asked_for_and_else_the_streams() {
        let pipe = std::fs::File::open("/dev/null").unwrap();
        let of = |color| colours(color, &pipe);
        assert_eq!((of(Color::Always), of(Color::Never), of(Color::Auto)), (true, false, false));
    }
}
