//! The tracker's binary: reads the cluster file, opens or founds the log, and serves one of the file's
//! addresses.

mod cli;
mod start_wait;
mod status;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGXFSZ};
use tracing_subscriber::EnvFilter;
use tracker::api::cluster_file;
use tracker::replica::{
    self, FoundingOptions, LogDirectory, PreparedLog, Replica, ReplicaFault, ReplicaOptions,
};
use tracker::server::{BindError, LogLines, Server, bind_listener, check_address};

use cli::{TrackerCli, TrackerSubcommand};
use start_wait::StartWait;
use status::ClusterHealth;

/// Log filter without `RUST_LOG`. The consensus library logs every step at level `info`.
const LOG_FILTER: &str = "info,openraft=warn";

/// Exit code of `tracker status` when no tracker answers.
const EXIT_NO_TRACKER: u8 = 7;

/// Exit code of `tracker status` when the trackers that answer refuse changes.
const EXIT_REFUSES_CHANGES: u8 = 9;

fn main() -> ExitCode {
    let cli = TrackerCli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let colors = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(LogLines::new()).with_ansi(colors).init();
    let done = match &cli.action {
        Some(TrackerSubcommand::Status { file }) => print_status(file.as_deref().or(cli.trackers.as_deref())),
        Some(TrackerSubcommand::Inspect { data }) => print_logs(data),
        None => run_server(&cli).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        // There is no other place to report a failure to write to stderr.
        _ = writeln!(io::stderr(), "tracker: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_status(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (_, trackers) = read_cluster(file)?;
    Ok(match status::print_trackers(&trackers, &mut io::stdout().lock())? {
        ClusterHealth::Good => ExitCode::SUCCESS,
        ClusterHealth::RefusesChanges => ExitCode::from(EXIT_REFUSES_CHANGES),
        ClusterHealth::NoAnswer => ExitCode::from(EXIT_NO_TRACKER),
    })
}

fn run_server(cli: &TrackerCli) -> anyhow::Result<()> {
    let (path, trackers) = read_cluster(cli.file.as_deref().or(cli.trackers.as_deref()))?;
    ignore_signals()?;
    raise_descriptor_limit();
    let mut wait = StartWait::new(cli.wait);
    let chosen = cli.number.map(|number| nth_address(&path, &trackers, number)).transpose()?;
    let candidates = chosen.as_ref().map_or(&trackers[..], std::slice::from_ref);
    let found = wait.retry(|| first_free_address(candidates), |refusals| describe_temporary(refusals));
    let own = found.map_err(|refusals| match (chosen, refusals.first()) {
        (Some(_), Some(refusal)) => bind_failure(refusal),
        _ => no_address_failure(&path, &refusals),
    })?;
    let founding =
        FoundingOptions { root: &cli.data, lines: &trackers, own_line: own, found_anyway: cli.found };
    let PreparedLog { key, dir } = replica::prepare_log(&founding)?;
    let options = ReplicaOptions::at(&own.to_string(), &key.cluster);
    let replica = wait.retry(
        || Replica::start(LogDirectory(dir.clone()), options.clone()),
        |fault| matches!(fault, ReplicaFault::InUse { .. }).then(|| fault.to_string()),
    )?;
    // Only now: a client that can connect must be answered.
    let listener =
        wait.retry(|| bind_listener(own), |refusal| describe_temporary(std::slice::from_ref(refusal)));
    let listener = listener.map_err(|error| bind_failure(&error))?;
    let server =
        Server::new(listener, replica, &key.root, cli.connections_per_address.map(NonZeroUsize::get))
            .context("the server cannot start")?;
    tracing::info!(file = %path.display(), log = %dir.display(), cluster = %key.cluster, "serving clients");
    announce_address(server.address()?);
    server.run().context("the server cannot go on")
}

/// Prints the log of every tracker under a data root.
fn print_logs(data: &Path) -> anyhow::Result<ExitCode> {
    let reading = || format!("cannot read {}: name the directory with --data", data.display());
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(data).with_context(reading)? {
        let dir = entry.with_context(reading)?.path();
        if dir.join(replica::LOG_FILE).is_file() {
            dirs.push(dir);
        }
    }
    anyhow::ensure!(!dirs.is_empty(), "no tracker has a log under {}: name its --data", data.display());
    dirs.sort();
    let mut out = io::BufWriter::new(io::stdout().lock());
    for dir in dirs {
        replica::print_log(&dir, &mut out)?;
    }
    out.flush().context("cannot write the lines")?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the cluster file: its path, and the addresses in it.
fn read_cluster(given: Option<&Path>) -> anyhow::Result<(PathBuf, Vec<SocketAddr>)> {
    let variable = std::env::var_os(cluster_file::TRACKERS_VARIABLE).map(PathBuf::from);
    let path =
        cluster_file::find_cluster_file(given, variable.as_deref(), Path::is_file).with_context(|| {
            format!(
                "write one tracker a line, such as `127.0.0.1 8000`, to {}, or name the file: tracker FILE",
                cluster_file::FILE_NAME
            )
        })?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let trackers = cluster_file::parse_cluster_file(&text).with_context(|| path.display().to_string())?;
    Ok((path, trackers))
}

fn nth_address(path: &Path, trackers: &[SocketAddr], number: usize) -> anyhow::Result<SocketAddr> {
    let found = number.checked_sub(1).and_then(|index| trackers.get(index));
    found.copied().with_context(|| {
        let count = trackers.len();
        format!("there is no address {number} in {}: give a number from 1 to {count}", path.display())
    })
}

/// The first of these addresses that can be served here, or why none can.
fn first_free_address(addresses: &[SocketAddr]) -> Result<SocketAddr, Vec<BindError>> {
    let mut refusals = Vec::new();
    for address in addresses {
        match check_address(*address) {
            Ok(()) => return Ok(*address),
            Err(error) => refusals.push(error),
        }
    }
    Err(refusals)
}

/// What is in the way of listening, if it may pass: the network is starting, or a predecessor is ending.
fn describe_temporary(refusals: &[BindError]) -> Option<String> {
    let may_pass = |error: &BindError| matches!(error, BindError::Taken(_) | BindError::NotOurs(_));
    refusals.iter().any(may_pass).then(|| join_refusals(refusals))
}

fn join_refusals(refusals: &[BindError]) -> String {
    refusals.iter().map(BindError::to_string).collect::<Vec<_>>().join("; ")
}

fn no_address_failure(path: &Path, refusals: &[BindError]) -> anyhow::Error {
    let one_is_taken = refusals.iter().any(|error| matches!(error, BindError::Taken(_)));
    let end = if one_is_taken { "End the program that has it, or add" } else { "Add" };
    anyhow::anyhow!(
        "no address in {} can be served here: {}. {end} a line with an address of this machine",
        path.display(),
        join_refusals(refusals)
    )
}

fn bind_failure(error: &BindError) -> anyhow::Error {
    let fix = match error {
        BindError::Taken(_) => "end that program, or choose another address: tracker FILE N",
        BindError::NotOurs(_) => {
            "run this on the machine that has it, or choose another address: tracker FILE N"
        }
        BindError::Other { .. } => "choose another address: tracker FILE N",
    };
    anyhow::anyhow!("{error}; {fix}")
}

/// Prints the one line on standard output, from which scripts read the port. The tracker also serves when the
/// line cannot be written.
fn announce_address(address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "tracker listening on {address}").and_then(|()| stdout.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "cannot write to standard output");
    }
}

/// Ignores the signals that end a program by default though it can go on: SIGHUP, which comes with the end of a terminal,
/// and SIGXFSZ, which a write past `ulimit -f` raises beside its error.
fn ignore_signals() -> anyhow::Result<()> {
    for signal in [SIGHUP, SIGXFSZ] {
        signal_hook::flag::register(signal, Arc::default()).context("cannot handle signals")?;
    }
    Ok(())
}

/// Raises the soft limit of descriptors to the hard limit. Each connection takes one, and the usual soft
/// limit is 1,024.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files; it also limits the number of connections");
    }
}
