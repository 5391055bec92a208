//! Shoal's client: one-shot commands, the prompt, and the node that shares and fetches.
//!
//! ```text
//!   cli (what was typed) ──► plan (what it means here) ──► commands ──┐
//!                                                   └──► prompt ──────┤
//!                render ◄── answers, events ◄── front (JSON lines) ◄──┴──► node ──► engine, trackers
//! ```
//!
//! Arrows point at what is used: `prompt` uses `commands`, both use `front`, `node` and `render`; `node` uses `front`
//! alone; `exit`, `limits`, `clock`, `lock`, `printable` and `quoted` use nothing of ours but `limits`, and `interrupt` and
//! `terminal` nothing but these.

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
mod quoted;
mod render;
mod terminal;

use std::io::Write;
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
    log(plan.verbose, render::colours(plan.output.color, &std::io::stderr()));
    let mut screen = Screen::new(plan.output);
    let outcome = Interrupt::listen().and_then(|interrupt| match cli.words {
        Some(words) => commands::run_once(words, &plan, &mut screen, &interrupt).map(|()| Exit::Done),
        None => prompt::run(&plan, &mut screen, &interrupt),
    });
    // Output that went nowhere is a failure too, though nothing else was.
    let outcome = outcome.and_then(|exit| screen.all_written().map(|()| exit));
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

/// What clap has to say: help on stdout with exit 0, everything else on stderr with exit 2, and in JSON where that was typed.
fn usage(error: &clap::Error) -> ExitCode {
    let mut screen = Screen::new(Output { json: wants_json(), ..Output::default() });
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print().and_then(|()| std::io::stdout().flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                let fault = render::unwritten(&error);
                screen.fault(&fault);
                ExitCode::from(fault.exit.code())
            }
            _ => ExitCode::from(Exit::Done.code()),
        };
    }
    let next = "`client help` shows the commands, `client help COMMAND` one of them";
    let message = error.to_string();
    let message = message.trim_start_matches("error: ").trim_end();
    screen.fault_in_json(&Fault::new(Exit::Usage, message).fix(next));
    // Where stderr cannot be written, nobody can be told.
    let _ = error.print();
    eprintln!("next: {next}");
    ExitCode::from(Exit::Usage.code())
}

/// Whether the arguments, which could not be read as a whole, ask for JSON; the last word counts.
fn wants_json() -> bool {
    let mut typed = std::env::args_os().filter_map(|argument| match argument.to_str()? {
        "--json" | "--json=true" => Some(true),
        "--json=false" => Some(false),
        _ => None,
    });
    typed.next_back().unwrap_or_else(|| std::env::var_os("SHOAL_JSON").is_some_and(|value| value == "true"))
}

/// Logs to stderr: warnings, with `-v` more, or as `RUST_LOG` says.
fn log(verbose: u8, coloured: bool) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(coloured).with_target(false).init();
}
