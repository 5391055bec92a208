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

mod baseline;
mod cli;
mod clock;
mod contender;
mod host;
mod interleave;
mod mix;
mod report;
mod results;
mod rivals;
mod size;
mod topology;
mod workloads;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::BenchCli::parse();
    let result = match &cli.command {
        cli::BenchCommand::Hash(args) => workloads::hash::run_hash(args),
        cli::BenchCommand::Tracker(args) => workloads::tracker::run_tracker(args),
        cli::BenchCommand::Transfer(args) => workloads::transfer::run_transfer(args),
        cli::BenchCommand::Compare(args) => workloads::compare::run_compare(args),
        cli::BenchCommand::PumpSend(args) => baseline::pump::run_sender(args),
        cli::BenchCommand::PumpReceive(args) => baseline::pump::run_receiver(args),
        cli::BenchCommand::Swarm(args) => workloads::swarm::run_swarm(args),
        cli::BenchCommand::Host(args) => workloads::host::run_host(args),
    };
    // What a signal interrupted has failed, and that is no news.
    topology::shutdown::wait_for_signal_exit();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
