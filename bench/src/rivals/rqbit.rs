//! rqbit, a BitTorrent client in Rust, on one thread, which is its best on machines with few cores.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::ports;
use super::rival::{Rival, isolated_command, version_number};
use super::torrent::TorrentSwarm;
use crate::contender::{Contender, TransferTerms};
use crate::topology::spawned::{empty_folder, first_line, run_program};

/// rqbit to rqbit.
pub(super) struct RqbitRival;

impl Rival for RqbitRival {
    fn name(&self) -> &'static str {
        "rqbit"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(version_number(&first_line("rqbit", &["--version"])?))
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let options = RqbitOptions::from_help(&run_program("rqbit", Command::new("rqbit").arg("--help"))?);
        let http = ports::free_ports(terms.receivers)?;
        let own = terms.clone();
        // It opens what it seeds for writing, which changes the file's times: others would rightly serve it no more.
        let source = empty_folder(terms.place.join("source"))?;
        let name = terms.content.path.file_name().context("the file has a name")?;
        std::fs::copy(&terms.content.path, source.join(name)).context("rqbit needs a copy of its own")?;
        let seed = |torrent: &TorrentSwarm, _: &Path, port: u16| {
            let mut command = options.command(terms, port, ports::free_port()?);
            command.args(["download", "--overwrite", "--output-folder"]).arg(&source).arg(&torrent.file);
            ports::start_server("rqbit", &command, terms, port)
        };
        let wanted = options.clone();
        let fetch = move |torrent: &TorrentSwarm, number: usize, into: &Path| {
            let mut command = wanted.command(&own, torrent.leechers[number], http[number]);
            command.args(["download", "--exit-on-finish", "--output-folder"]).arg(into).arg(&torrent.file);
            command
        };
        Ok(Box::new(TorrentSwarm::create(terms, "rqbit")?.into_contender(kind, terms, seed, fetch)?))
    }
}

/// Options have changed their names between versions; the program's own help says which it has.
#[derive(Clone)]
struct RqbitOptions {
    help: String,
}

impl RqbitOptions {
    fn from_help(help: &str) -> RqbitOptions {
        RqbitOptions { help: help.to_owned() }
    }

    fn command(&self, terms: &TransferTerms, port: u16, http: u16) -> Command {
        let mut command = isolated_command("rqbit", terms);
        command.args(["--single-thread-runtime", "--disable-dht"]);
        command.arg("--http-api-listen-addr").arg(format!("127.0.0.1:{http}"));
        if self.help.contains("--listen-port") {
            command.arg("--listen-port").arg(port.to_string());
        } else {
            let beyond = port.saturating_add(1);
            command.args(["--tcp-min-port", &port.to_string(), "--tcp-max-port", &beyond.to_string()]);
        }
        for option in ["--disable-lsd", "--disable-upnp-port-forward"] {
            if self.help.contains(option) {
                command.arg(option);
            }
        }
        command
    }
}
