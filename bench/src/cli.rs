//! What can be typed, and which benchmark it means. Wrong words end here, with exit code 2.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::mix::RequestMix;
use crate::results::sink::RecordOutput;
use crate::size::ByteSize;

/// Measures Shoal against its rivals on this machine.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct BenchCli {
    /// The benchmark.
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

/// A benchmark.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Hashing: one stream, pieces in lanes, both states of pieces, a whole upload; beside one pass of the sha1 crate
    Hash(HashArgs),
    /// A tracker under load: latency at a fixed rate, the most it answers, its memory for idle connections
    Tracker(TrackerArgs),
    /// A file from seeders to leechers by the real programs, beside the floor and, with --rivals, the field
    Transfer(TransferArgs),
    /// The same transfer by two builds or with two settings, in the same rounds
    Compare(CompareArgs),
    /// Part of the floor: sends pieces
    #[command(hide = true)]
    PumpSend(PumpSendArgs),
    /// Part of the floor: receives pieces
    #[command(hide = true)]
    PumpReceive(PumpReceiveArgs),
    /// One seeder and many leechers on hosts of their own, each with a limited uplink, beside what is possible at best
    Swarm(SwarmArgs),
    /// What this machine is and allows, as every report should say beside its numbers
    Host(HostArgs),
}

/// How often everything is measured.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RoundsArgs {
    /// Rounds that count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Rounds before them that do not count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) warmup: u32,
}

/// Which build is measured.
#[derive(Debug, Args)]
pub(crate) struct BinArgs {
    /// The folder of tracker and client [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin: Option<PathBuf>,
}

/// How to measure hashing.
#[derive(Debug, Args)]
pub(crate) struct HashArgs {
    /// How much is hashed by each workload in each round: bytes, or with K, M, G or T (powers of 1024)
    #[arg(long, default_value = "256M")]
    pub(crate) size: ByteSize,
    /// How often
    #[command(flatten)]
    pub(crate) rounds: RoundsArgs,
    /// Measure other programs too, over a file of the same bytes: mktorrent, openssl and sha1sum, where they are installed
    #[arg(long)]
    pub(crate) rivals: bool,
    /// Where that file lies [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where the numbers go
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What every measurement with real transfers is told.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Length of the file: bytes, or with K, M, G or T (powers of 1024)
    #[arg(long, default_value = "256M")]
    pub(crate) size: ByteSize,
    /// How often
    #[command(flatten)]
    pub(crate) rounds: RoundsArgs,
    /// Where files are: a folder on a disk, or on a tmpfs such as /dev/shm [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Drop the source from the page cache before each round
    #[arg(long)]
    pub(crate) cold: bool,
    /// Where the numbers go
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How to measure transfers.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// What all of them are told
    #[command(flatten)]
    pub(crate) setup: SetupArgs,
    /// Nodes that have the file; several numbers are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,3", value_parser = count)]
    pub(crate) seeders: Vec<usize>,
    /// Nodes that fetch, all at once; several numbers are measured one after the other, each with each number of seeders
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = count)]
    pub(crate) leechers: Vec<usize>,
    /// What moves bytes in Shoal's nodes; several are measured in the same rounds
    #[arg(long, value_delimiter = ',', default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    pub(crate) io: Vec<String>,
    /// Measure other programs too, where they are installed (scripts/bench-rivals.sh installs them)
    #[arg(long)]
    pub(crate) rivals: bool,
    /// Which programs
    #[command(flatten)]
    pub(crate) bin: BinArgs,
}

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A folder of programs, a revision of the repository, or options of the node such as '--io uring'
    #[arg(allow_hyphen_values = true)]
    pub(crate) a: String,
    /// The other one, which is told as a multiple of the first
    #[arg(allow_hyphen_values = true)]
    pub(crate) b: String,
    /// What both are told
    #[command(flatten)]
    pub(crate) setup: SetupArgs,
    /// Nodes that have the file
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(crate) seeders: usize,
    /// Nodes that fetch, all at once
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(crate) leechers: usize,
    /// Which programs, where options are compared
    #[command(flatten)]
    pub(crate) bin: BinArgs,
}

/// Nodes of one kind: each is a process, and all run on this machine.
const NODES_MAX: usize = 64;

fn count(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(count) if (1..=NODES_MAX).contains(&count) => Ok(count),
        _ => Err(format!("a whole number from 1 to {NODES_MAX}")),
    }
}

/// What a sender of the pump is told.
#[derive(Debug, Args)]
pub(crate) struct PumpSendArgs {
    /// What it sends
    pub(crate) file: PathBuf,
}

/// What a receiver of the pump is told.
#[derive(Debug, Args)]
pub(crate) struct PumpReceiveArgs {
    /// Its senders
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) from: Vec<SocketAddr>,
    /// Sockets to each
    #[arg(long)]
    pub(crate) each: usize,
    /// Length of the file
    #[arg(long)]
    pub(crate) bytes: u64,
    /// Where it goes
    pub(crate) destination: PathBuf,
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
    pub(crate) fn record_output(&self) -> RecordOutput {
        RecordOutput { json: self.json, folder: self.out.clone() }
    }
}

/// How to load a tracker.
#[derive(Debug, Args)]
pub(crate) struct TrackerArgs {
    /// Connections in all; those that carry no load are idle
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) connections: u32,
    /// Connections that carry the load
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) active: u32,
    /// Requests a second, whatever becomes of those before
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,
    /// How long the fixed rate is kept; each maximum is looked for in a fifth of it
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Parts of each kind of request
    #[arg(long, default_value = "ping=500,get_peers=240,update_pieces=240,upload_file=19,login=1")]
    pub(crate) mix: RequestMix,
    /// Length of the files that upload_file describes, of which only the pieces' digests are sent
    #[arg(long, default_value = "512K")]
    pub(crate) size: ByteSize,
    /// Rounds that count, each at the fixed rate and then at its most
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Rounds before them that do not count
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) warmup: u32,
    /// Leave out the search for the most that is answered
    #[arg(long)]
    pub(crate) no_maximum: bool,
    /// A tracker that runs already, in place of one that is started for the run; its accounts and files stay
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) address: Option<SocketAddr>,
    /// Which programs
    #[command(flatten)]
    pub(crate) bin: BinArgs,
    /// Where the started tracker keeps its state, in place of the folder for temporary files
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Measure opentracker too, where it is installed
    #[arg(long)]
    pub(crate) rivals: bool,
    /// Where the numbers go
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How to run a swarm.
#[derive(Debug, Args)]
pub(crate) struct SwarmArgs {
    /// The file: bytes, or with K, M, G or T (powers of 1024)
    #[arg(long, default_value = "128M")]
    pub(crate) size: ByteSize,
    /// Bytes a second that each host can send
    #[arg(long, default_value = "16M")]
    pub(crate) uplink: ByteSize,
    /// Who has the file from the start
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) seeders: u8,
    /// Who fetches it, all at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) leechers: u8,
    /// Downloads that take longer than this many times the fluid limit are ended [default: 20, and a minute]
    #[arg(long, value_name = "MULTIPLE", value_parser = multiple)]
    pub(crate) limit: Option<f64>,
    /// Rounds that count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Rounds before them that do not count
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) warmup: u32,
    /// Which programs
    #[command(flatten)]
    pub(crate) bin: BinArgs,
    /// Where all copies lie, in place of a memory filesystem of the run's own, which goes with the run
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where the numbers go
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Of the least time that is possible, how much more it may take.
fn multiple(text: &str) -> Result<f64, String> {
    let multiple: f64 = text.parse().map_err(|_| format!("`{text}` is no number, such as 20 or 1.5"))?;
    if (1.0..=1e6).contains(&multiple) { Ok(multiple) } else { Err("a number from 1 to 1000000".to_owned()) }
}

/// A time that a run can take.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    if (0.1..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 3600 seconds".to_owned()) }
}

/// How to describe the machine.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// One JSON object instead of lines for people
    #[arg(long)]
    pub(crate) json: bool,
    /// The folder whose filesystem is told [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Keep the description in this folder too, and draw report.html of all runs in it
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        BenchCli::command().debug_assert();
    }

    #[test]
    fn rounds_have_limits() {
        assert!(BenchCli::try_parse_from(["bench", "hash", "--runs", "0"]).is_err());
        assert!(BenchCli::try_parse_from(["bench", "hash", "--runs", "1001"]).is_err());
        assert!(BenchCli::try_parse_from(["bench", "hash", "--runs", "1", "--warmup", "0"]).is_ok());
    }
}
