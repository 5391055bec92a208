//! Shoal's throughput harness: measures side by side, in one run on one machine, and reports ratios.
//!
//! ```text
//!   main ─► workloads ─► recorder (interleaved rounds)
//!     │         └──────► results (records: standard output, folder) ─► report (table, text plot, report.html)
//!     └──► host  what the machine is and allows ──────────────────────────┘
//!   cli: what was typed     size, mix: byte counts and kinds of requests, as typed     clock: the one place that reads time
//! ```
//!
//! A number without its rival and its spread says little, so every workload runs once a round beside the reference, and
//! its ratio is taken within the round.

mod cli;
mod clock;
mod contender;
mod floor;
mod host;
mod mix;
mod recorder;
mod report;
mod results;
mod rivals;
mod size;
mod topology;
mod workloads;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = match &cli.command {
        cli::Command::Hash(args) => workloads::hash::run(args),
        cli::Command::Tracker(args) => workloads::tracker::run(args),
        cli::Command::Transfer(args) => workloads::transfer::run(args),
        cli::Command::Compare(args) => workloads::compare::run(args),
        cli::Command::PumpSend(args) => floor::pump::send(args),
        cli::Command::PumpReceive(args) => floor::pump::receive(args),
        cli::Command::Swarm(args) => workloads::swarm::run(args),
        cli::Command::Host(args) => workloads::host::run(args),
    };
    // What a signal interrupted has failed, and that is no news.
    topology::ending::leave_it_to_the_signal();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
