//! Shoal's client: one-shot commands, the prompt, and the node that shares and fetches.
//!
//! ```text
//!   cli (what was typed) ──► plan (what it means here) ──► commands ──┐
//!                                                   └──► prompt ──────┤
//!                render ◄── answers, events ◄── front (JSON lines) ◄──┴──► node ──► engine, trackers
//! ```
//!
//! Arrows point at what is used: `prompt` uses `commands`, both use `front`, `node` and `render`; `node` uses `front`
//! alone; `exit`, `limits`, `clock`, `lock` and `printable` use nothing of ours but `limits`.

mod cli;
mod clock;
mod commands;
mod exit;
mod front;
mod interrupt;
mod limits;
mod lock;
mod node;
mod plan;
mod printable;
mod prompt;
mod render;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use cli::Cli;
use exit::{Exit, Fault};
use interrupt::Interrupt;
use plan::{Output, Plan, Surroundings};
use render::Screen;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let outcome = surroundings().and_then(|directory| {
        let around = Surroundings { var: &|name| std::env::var_os(name), directory };
        Plan::of(&cli, &around)
    });
    let plan = match outcome {
        Ok(plan) => plan,
        Err(fault) => {
            Screen::new(Output { json: cli.options.json == Some(true), ..Output::default() }).fault(&fault);
            return ExitCode::from(fault.exit.code());
        }
    };
    log(plan.verbose);
    let mut screen = Screen::new(plan.output);
    let outcome = Interrupt::listen().and_then(|interrupt| match cli.words {
        Some(words) => commands::run_once(words, &plan, &mut screen, &interrupt).map(|()| Exit::Done),
        None => prompt::run(&plan, &mut screen, &interrupt),
    });
    match outcome {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(fault) => {
            screen.fault(&fault);
            ExitCode::from(fault.exit.code())
        }
    }
}

fn surroundings() -> Result<std::path::PathBuf, Fault> {
    std::env::current_dir().map_err(|error| {
        Fault::new(Exit::LocalIo, format!("the working directory is gone: {error}"))
            .fix("`cd` to one that exists")
    })
}

/// What clap has to say: help on stdout with exit 0, everything else on stderr with exit 2.
fn usage(error: &clap::Error) -> ExitCode {
    // Where neither stream can be written, nobody can be told.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::from(Exit::Done.code()),
        _ => {
            eprintln!("next: `client help` shows the commands, `client help COMMAND` one of them");
            ExitCode::from(Exit::Usage.code())
        }
    }
}

/// Logs to stderr: warnings, with `-v` more, or as `RUST_LOG` says.
fn log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colors = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(colors).with_target(false).init();
}
