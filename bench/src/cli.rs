//! What can be typed, and which benchmark it means. Wrong words end here, with exit code 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::results::sink::Wanted;
use crate::size::Size;

/// Measures Shoal against its rivals on this machine.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The benchmark.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A benchmark.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hashing: one stream, pieces in lanes, both states of pieces, a whole upload; beside one pass of the sha1 crate
    Hash(HashArgs),
    /// What this machine is and allows, as every report should say beside its numbers
    Host(HostArgs),
}

/// How to measure hashing.
#[derive(Debug, Args)]
pub(crate) struct HashArgs {
    /// How much is hashed by each workload in each round: bytes, or with K, M, G or T (powers of 1024)
    #[arg(long, default_value = "256M")]
    pub(crate) size: Size,
    /// Rounds that count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Rounds before them that do not count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) warmup: u32,
    /// Where the numbers go
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where the numbers go.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// One JSON object a line on standard output, as things are measured, instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep everything in this folder too (JSON lines, .hlog), and draw report.html of all runs in it
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl OutputArgs {
    /// What the sink of records is told.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { json: self.json, folder: self.out.clone() }
    }
}

/// How to describe the machine.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// One JSON object instead of lines for people
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rounds_have_limits() {
        assert!(Cli::try_parse_from(["bench", "hash", "--runs", "0"]).is_err());
        assert!(Cli::try_parse_from(["bench", "hash", "--runs", "1001"]).is_err());
        assert!(Cli::try_parse_from(["bench", "hash", "--runs", "1", "--warmup", "0"]).is_ok());
    }
}
