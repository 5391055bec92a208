//! Shoal's client: one-shot commands, the prompt, and the node that shares and downloads files.
//!
//! ```text
//!   cli (what was typed) ──► plan (joined with config) ──► commands ──┐
//!                                                   └──► prompt ──────┤
//!                render ◄── answers, events ◄── ipc (JSON lines) ◄────┴──► node ──► engine, trackers
//! ```
//!
//! Arrows point at what is used: `prompt` uses `commands`; both use `ipc`, `node` and `render`; `node` uses `ipc`.
//! `exit`, `limits`, `clock`, `printable` and `quoting` use no other module than `limits` and `printable`; `signals` and
//! `terminal` use only these. `fuzzing` lists parsers for the fuzz targets.

#![cfg_attr(
    test,
    allow(
        clippy::duplicate_mod,
        reason = "`locks_model` compiles the locks over a model checker's primitives"
    )
)]

mod cli;
mod clock;
mod commands;
mod exit;
#[doc(hidden)]
pub mod fuzzing;
mod ipc;
mod limits;
mod node;
mod plan;
mod printable;
mod prompt;
mod quoting;
mod render;
mod signals;
mod terminal;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use cli::CommandLine;
use exit::{ClientFault, ExitCause};
use plan::{ClientEnvironment, ClientPlan, OutputPlan};
use render::Screen;
use signals::SignalHandler;

/// Runs the client with the arguments of this process; gives its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match CommandLine::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    let outcome = working_directory().and_then(|directory| {
        let env = ClientEnvironment { var: &|name| std::env::var_os(name), directory };
        ClientPlan::resolve(&cli, &env)
    });
    let plan = match outcome {
        Ok(plan) => plan,
        Err(fault) => {
            Screen::new(OutputPlan { json: cli.options.json == Some(true), ..OutputPlan::default() })
                .show_fault(&fault);
            return ExitCode::from(fault.exit.code());
        }
    };
    init_logging(plan.verbose, render::wants_color(plan.output.color, &std::io::stderr()));
    let mut screen = Screen::new(plan.output);
    let outcome = SignalHandler::install().and_then(|signals| match cli.command {
        Some(command) => commands::run_once(command, &plan, &mut screen, &signals).map(|()| ExitCause::Done),
        None => prompt::run_prompt(&plan, &mut screen, &signals),
    });
    // Output that could not be written fails a command that was otherwise successful.
    let outcome = outcome.and_then(|exit| screen.check_written().map(|()| exit));
    match outcome {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(fault) => {
            screen.show_fault(&fault);
            ExitCode::from(fault.exit.code())
        }
    }
}

fn working_directory() -> Result<std::path::PathBuf, ClientFault> {
    std::env::current_dir().map_err(|error| {
        ClientFault::new(ExitCause::LocalIo, format!("the working directory is gone: {error}"))
            .fix("`cd` to one that exists")
    })
}

/// Prints clap's message: help to stdout with exit 0, an error to stderr with exit 2 (and as JSON where that was typed).
fn report_usage(error: &clap::Error) -> ExitCode {
    let mut screen = Screen::new(OutputPlan { json: wants_json(), ..OutputPlan::default() });
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print().and_then(|()| std::io::stdout().flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                let fault = render::write_fault(&error);
                screen.show_fault(&fault);
                ExitCode::from(fault.exit.code())
            }
            _ => ExitCode::from(ExitCause::Done.code()),
        };
    }
    let next = "`client help` shows the commands, `client help COMMAND` one of them";
    let message = error.to_string();
    let message = message.trim_start_matches("error: ").trim_end();
    screen.show_fault_in_json(&ClientFault::new(ExitCause::Usage, message).fix(next));
    let is_plain = |word: std::ffi::OsString| printable::show_path(word.as_ref()) == word.to_string_lossy();
    if std::env::args_os().all(is_plain) {
        // With clap's colours. There is no other place to report a failure to write to stderr.
        let _ = error.print();
    } else {
        _ = writeln!(std::io::stderr(), "error: {}\n", printable::escape_lines(message));
    }
    _ = writeln!(std::io::stderr(), "next: {next}");
    ExitCode::from(ExitCause::Usage.code())
}

/// Looks for `--json` in arguments that clap refused. The last occurrence counts.
fn wants_json() -> bool {
    let mut typed = std::env::args_os().filter_map(|argument| match argument.to_str()? {
        "--json" | "--json=true" => Some(true),
        "--json=false" => Some(false),
        _ => None,
    });
    typed.next_back().unwrap_or_else(|| std::env::var_os("SHOAL_JSON").is_some_and(|value| value == "true"))
}

/// Logs to stderr: warnings by default, more with `-v`. `RUST_LOG` overrides both.
fn init_logging(verbose: u8, coloured: bool) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogLine);
    log.with_ansi(coloured).with_target(false).init();
}

/// Writes log lines to stderr. Those that cannot be written are dropped: a full disk or a closed pipe ends no node.
struct LogLine;

impl std::io::Write for LogLine {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        _ = std::io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
