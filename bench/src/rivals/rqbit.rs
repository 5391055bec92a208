//! rqbit: BitTorrent between rqbit seeders and rqbit leechers. Each runs on one thread, the fastest mode with few cores.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::ports;
use super::rival::{Rival, isolated_command, program_version};
use super::torrent::TorrentSwarm;
use crate::contender::{ProgramContender, TransferTerms};
use crate::topology::spawned::{create_empty_folder, run_program};

/// rqbit seeders and rqbit leechers.
pub(super) const RQBIT: Rival = Rival {
    name: "rqbit",
    version: || program_version("rqbit", &["--version"]),
    keeps_source_mapped: None,
    start: start_swarm,
};

fn start_swarm(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let help = run_program("rqbit", Command::new("rqbit").arg("--help"))?;
    let http = ports::free_ports(terms.leechers)?;
    let fetch_terms = terms.clone();
    // rqbit opens the seeded file for writing and changes its timestamps. Shoal's seeders stop serving a changed file, so
    // rqbit seeds a copy.
    let source = create_empty_folder(terms.folder.join("source"))?;
    let name = terms.file.path.file_name().context("the file has a name")?;
    std::fs::copy(&terms.file.path, source.join(name)).context("cannot copy the file for rqbit")?;
    let seed = |torrent: &TorrentSwarm, _: &Path, port: u16| {
        let mut command = rqbit_command(&help, terms, port, ports::free_port()?);
        command.args(["download", "--overwrite", "--output-folder"]).arg(&source).arg(&torrent.file);
        ports::start_server("rqbit", &command, terms, port)
    };
    let fetch_help = help.clone();
    let fetch = move |torrent: &TorrentSwarm, number: usize, into: &Path| {
        let mut command = rqbit_command(&fetch_help, &fetch_terms, torrent.leechers[number], http[number]);
        command.args(["download", "--exit-on-finish", "--output-folder"]).arg(into).arg(&torrent.file);
        command
    };
    TorrentSwarm::create(terms, "rqbit")?.into_contender(kind, terms, seed, fetch)
}

/// The command of one rqbit peer. Option names differ between versions, so only options in the text of `help` are used.
fn rqbit_command(help: &str, terms: &TransferTerms, port: u16, http_port: u16) -> Command {
    let mut command = isolated_command("rqbit", terms);
    command.args(["--single-thread-runtime", "--disable-dht"]);
    command.arg("--http-api-listen-addr").arg(format!("127.0.0.1:{http_port}"));
    if help.contains("--listen-port") {
        command.arg("--listen-port").arg(port.to_string());
    } else {
        let end = port.saturating_add(1);
        command.args(["--tcp-min-port", &port.to_string(), "--tcp-max-port", &end.to_string()]);
    }
    for option in ["--disable-lsd", "--disable-upnp-port-forward"] {
        if help.contains(option) {
            command.arg(option);
        }
    }
    command
}
