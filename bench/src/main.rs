//! Shoal's throughput harness: measures side by side, in one run on one machine, and reports ratios.
//!
//! ```text
//!   main ─► hash workloads ─► recorder (interleaved rounds, one histogram each) ─► report (table, JSON lines)
//!     └──► host  what the machine is and allows ───────────────────────────────────────┘
//!   cli: what was typed     size: byte counts as typed     clock: the one place that reads time
//! ```
//!
//! A number without its rival and its spread says little, so every workload runs once a round beside the reference, and
//! its ratio is taken within the round. A further benchmark is a module beside `hash` with a `run`, its arguments in `cli`, and a line in `main`.

mod cli;
mod clock;
mod hash;
mod host;
mod recorder;
mod report;
mod size;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = match &cli.command {
        cli::Command::Hash(args) => hash::run(args),
        cli::Command::Host(args) => report::print_host_alone(&host::Host::read(), args.json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
