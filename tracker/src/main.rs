//! The tracker's binary: finds its address in the cluster file and serves it.

mod cli;
mod status;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;
use tracker::api::cluster_file;
use tracker::server::{BindError, Server, bind};

use cli::{Action, Cli};

/// `tracker status` reached none of the trackers.
const EXIT_NO_TRACKER: u8 = 7;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let done = match &cli.action {
        Some(Action::Status { file }) => print_status(file.as_deref().or(cli.trackers.as_deref())),
        None => serve(&cli).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tracker: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_status(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (_, trackers) = read_cluster(file)?;
    Ok(if status::print(&trackers) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NO_TRACKER) })
}

fn serve(cli: &Cli) -> anyhow::Result<()> {
    let (path, trackers) = read_cluster(cli.file.as_deref().or(cli.trackers.as_deref()))?;
    raise_descriptor_limit();
    let listener = match cli.number {
        Some(number) => bind(nth(&path, &trackers, number)?).map_err(|error| explained(&error))?,
        None => first_free(&path, &trackers)?,
    };
    let server = Server::new(listener).context("the server cannot start")?;
    tracing::info!(
        file = %path.display(),
        data = %cli.data.display(),
        "users, groups and files are kept in memory: they end with this tracker"
    );
    announce(server.address()?);
    server.run().context("the server cannot go on")
}

/// The cluster file's path and addresses.
fn read_cluster(given: Option<&Path>) -> anyhow::Result<(PathBuf, Vec<SocketAddr>)> {
    let variable = std::env::var_os(cluster_file::VARIABLE).map(PathBuf::from);
    let path = cluster_file::find(given, variable.as_deref(), Path::is_file).with_context(|| {
        format!(
            "write one tracker a line, such as `127.0.0.1 8000`, to {}, or name the file: tracker FILE",
            cluster_file::FILE_NAME
        )
    })?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let trackers = cluster_file::parse(&text).with_context(|| path.display().to_string())?;
    Ok((path, trackers))
}

fn nth(path: &Path, trackers: &[SocketAddr], number: usize) -> anyhow::Result<SocketAddr> {
    let found = number.checked_sub(1).and_then(|index| trackers.get(index));
    found.copied().with_context(|| {
        let count = trackers.len();
        format!("there is no address {number} in {}: give a number from 1 to {count}", path.display())
    })
}

/// The first address that can be served here.
fn first_free(path: &Path, trackers: &[SocketAddr]) -> anyhow::Result<mio::net::TcpListener> {
    let mut refusals = Vec::new();
    for address in trackers {
        match bind(*address) {
            Ok(listener) => return Ok(listener),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    anyhow::bail!(
        "no address in {} can be served here: {}. End the program that has it, or add a line with an address of this machine",
        path.display(),
        refusals.join("; ")
    )
}

fn explained(error: &BindError) -> anyhow::Error {
    let fix = match error {
        BindError::Taken(_) => "end that program, or choose another address: tracker FILE N",
        BindError::NotOurs(_) => {
            "run this on the machine that has it, or choose another address: tracker FILE N"
        }
        BindError::Other { .. } => "choose another address: tracker FILE N",
    };
    anyhow::anyhow!("{error}; {fix}")
}

/// The one line on standard output, from which scripts read the port. That nobody reads it is no reason to end.
fn announce(address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "tracker listening on {address}").and_then(|()| stdout.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "nobody reads standard output");
    }
}

/// Every connection takes a descriptor; the usual soft limit of 1,024 is far below what the machine allows.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open connections stays as it is");
    }
}
