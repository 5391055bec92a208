//! Shoal's benchmark harness. It measures contenders side by side, in one run on one machine, and reports ratios.
//!
//! ```text
//!   main ─► workloads ─► interleave (rounds)
//!     │         └──────► results (records: standard output, folder) ─► report (table, text plot, report.html)
//!     └──► host  the machine and its limits ────────────────────────────┘
//!   cli: the command line    size, mix: argument types    clock: the only clock    limits: every number
//! ```
//!
//! Every workload runs once a round next to its reference, and ratios are taken within the round: an absolute number
//! says little without its rival and its spread.

mod baseline;
mod cli;
mod clock;
mod contender;
mod host;
mod interleave;
mod limits;
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
        cli::BenchCommand::Host(args) => workloads::run_host(args),
    };
    // After a signal the run has failed, which needs no message.
    topology::shutdown::wait_for_signal_exit();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
