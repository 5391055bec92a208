//! The command line of `bench`. Doc comments of commands and options are their help texts. Wrong arguments exit with
//! code 2.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::limits::NODES_MAX;
use crate::mix::RequestMix;
use crate::results::sink::RecordOutput;
use crate::size::ByteSize;

/// Measures Shoal against other programs on this machine
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct BenchCli {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Hashing: one stream, several pieces at once, pieces with their chain, a whole upload; compared with one pass of
    /// the sha1 crate
    Hash(HashArgs),
    /// A tracker under load: latency at a fixed rate, maximum rate, memory of idle connections
    Tracker(TrackerArgs),
    /// A file from seeders to leechers with the real programs, compared with a baseline and, with --rivals, with other
    /// programs
    Transfer(TransferArgs),
    /// The same transfer with two builds or two settings, in the same rounds
    Compare(CompareArgs),
    /// Part of the baseline: sends pieces
    #[command(hide = true)]
    PumpSend(PumpSendArgs),
    /// Part of the baseline: receives pieces
    #[command(hide = true)]
    PumpReceive(PumpReceiveArgs),
    /// Seeders and many leechers on separate hosts with limited uplinks, compared with the fluid limit: the
    /// shortest time that the uplinks allow
    Swarm(SwarmArgs),
    /// This machine and its limits, to be published with every result
    Host(HostArgs),
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RoundsArgs {
    /// Measured rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Warm-up rounds before them, which do not count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) warmup: u32,
}

#[derive(Debug, Args)]
pub(crate) struct BinArgs {
    /// The folder that contains the programs tracker and client [default: the folder of this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct HashArgs {
    /// Bytes that each workload hashes in a round; K, M, G and T are powers of 1024
    #[arg(long, default_value = "256M")]
    pub(crate) size: ByteSize,
    #[command(flatten)]
    pub(crate) rounds: RoundsArgs,
    /// Also measure mktorrent, openssl and sha1sum, where installed, over a file of the same bytes
    #[arg(long)]
    pub(crate) rivals: bool,
    /// The folder of that file [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of every command that runs transfers.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Length of the file in bytes; K, M, G and T are powers of 1024
    #[arg(long, default_value = "256M")]
    pub(crate) size: ByteSize,
    #[command(flatten)]
    pub(crate) rounds: RoundsArgs,
    /// The folder of all files, on a disk or on a tmpfs such as /dev/shm [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Drop the source from the page cache before each round
    #[arg(long)]
    pub(crate) cold: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    #[command(flatten)]
    pub(crate) setup: SetupArgs,
    /// Nodes that have the file; several numbers are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,3", value_parser = parse_node_count)]
    pub(crate) seeders: Vec<usize>,
    /// Nodes that download, all at once; several numbers are measured one after the other, each with each number of
    /// seeders
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = parse_node_count)]
    pub(crate) leechers: Vec<usize>,
    /// I/O back ends of Shoal's nodes; several are measured in the same rounds
    #[arg(long, value_delimiter = ',', default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    pub(crate) io: Vec<String>,
    /// Also measure other programs, where installed (scripts/bench-rivals.sh installs them)
    #[arg(long)]
    pub(crate) rivals: bool,
    #[command(flatten)]
    pub(crate) bin: BinArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A folder of programs, a revision of the repository, or options of the node such as '--io uring'
    #[arg(allow_hyphen_values = true)]
    pub(crate) a: String,
    /// The other side of the comparison, shown as a multiple of the first
    #[arg(allow_hyphen_values = true)]
    pub(crate) b: String,
    #[command(flatten)]
    pub(crate) setup: SetupArgs,
    /// Nodes that have the file
    #[arg(long, default_value_t = 1, value_parser = parse_node_count)]
    pub(crate) seeders: usize,
    /// Nodes that download, all at once
    #[arg(long, default_value_t = 1, value_parser = parse_node_count)]
    pub(crate) leechers: usize,
    /// Where the programs are, when `a` and `b` are options.
    #[command(flatten)]
    pub(crate) bin: BinArgs,
}

fn parse_node_count(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(count) if (1..=NODES_MAX).contains(&count) => Ok(count),
        _ => Err(format!("a whole number from 1 to {NODES_MAX}")),
    }
}

#[derive(Debug, Args)]
pub(crate) struct PumpSendArgs {
    /// The file to send
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PumpReceiveArgs {
    /// Addresses of the senders
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) from: Vec<SocketAddr>,
    /// Sockets to each sender
    #[arg(long)]
    pub(crate) each: usize,
    /// Length of the file
    #[arg(long)]
    pub(crate) bytes: u64,
    /// Path of the copy
    pub(crate) destination: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Print one JSON object a line as results arrive, instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Also keep the results in this folder (JSON lines, .hlog), and draw report.html of all its runs
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl OutputArgs {
    /// The destinations of records that these options choose.
    pub(crate) fn record_output(&self) -> RecordOutput {
        RecordOutput { json: self.json, folder: self.out.clone() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TrackerArgs {
    /// Connections in all; those without load are idle
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) connections: u32,
    /// Connections that carry the load
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) active: u32,
    /// Requests a second, independent of the answers
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,
    /// Duration of the fixed rate; each search for a maximum takes a fifth of it
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Weights of the kinds of requests
    #[arg(long, default_value = "ping=500,get_peers=240,update_pieces=240,upload_file=19,login=1")]
    pub(crate) mix: RequestMix,
    /// Length of the files that upload_file describes; only the digests of their pieces are sent
    #[arg(long, default_value = "512K")]
    pub(crate) size: ByteSize,
    /// Measured rounds, each at the fixed rate and then at the maximum
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Warm-up rounds before them, which do not count
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) warmup: u32,
    /// Leave out the searches for maximum rates
    #[arg(long)]
    pub(crate) no_maximum: bool,
    /// A running tracker to use instead of starting one, with a large --connections-per-address; accounts and files
    /// stay on it
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) address: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) bin: BinArgs,
    /// The folder of the started tracker's state [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Also measure opentracker, where installed
    #[arg(long)]
    pub(crate) rivals: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmArgs {
    /// Length of the file in bytes; K, M, G and T are powers of 1024
    #[arg(long, default_value = "128M")]
    pub(crate) size: ByteSize,
    /// Bytes a second that each host can send
    #[arg(long, default_value = "16M")]
    pub(crate) uplink: ByteSize,
    /// Nodes that have the file from the start
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) seeders: u8,
    /// Nodes that download, all at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) leechers: u8,
    /// End downloads that take longer than this multiple of the fluid limit [default: 20, plus a minute]
    #[arg(long, value_name = "MULTIPLE", value_parser = parse_multiple)]
    pub(crate) limit: Option<f64>,
    /// Measured rounds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Warm-up rounds before them, which do not count
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) warmup: u32,
    #[command(flatten)]
    pub(crate) bin: BinArgs,
    /// The folder of all copies [default: a tmpfs of the run's own, which ends with the run]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Parses a multiple of the fluid limit.
fn parse_multiple(text: &str) -> Result<f64, String> {
    let multiple: f64 = text.parse().map_err(|_| format!("`{text}` is not a number such as 20 or 1.5"))?;
    if (1.0..=1e6).contains(&multiple) { Ok(multiple) } else { Err("a number from 1 to 1000000".to_owned()) }
}

/// Parses a duration in seconds.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if (0.1..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 3600 seconds".to_owned()) }
}

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Print one JSON object instead of lines of text
    #[arg(long)]
    pub(crate) json: bool,
    /// The folder whose filesystem is described [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Also keep the description in this folder, and draw report.html of all its runs
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        BenchCli::command().debug_assert();
    }

    #[test]
    fn rounds_have_limits() {
        assert!(BenchCli::try_parse_from(["bench", "hash", "--runs", "0"]).is_err());
        assert!(BenchCli::try_parse_from(["bench", "hash", "--runs", "1001"]).is_err());
        assert!(BenchCli::try_parse_from(["bench", "hash", "--runs", "1", "--warmup", "0"]).is_ok());
    }
}
