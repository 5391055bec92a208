//! rqbit, a BitTorrent client in Rust, on one thread, which is its best on machines with few cores.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::ports;
use super::rival::{Rival, at_home, number};
use super::torrent::Torrent;
use crate::contender::{Contender, Terms};
use crate::topology::spawned::{first_line, folder, output};

/// rqbit to rqbit.
pub(super) struct Rqbit;

impl Rival for Rqbit {
    fn name(&self) -> &'static str {
        "rqbit"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(number(&first_line("rqbit", &["--version"])?))
    }

    fn contender(&self, kind: &str, terms: &Terms) -> anyhow::Result<Box<dyn Contender>> {
        let options = Options::of(&output("rqbit", Command::new("rqbit").arg("--help"))?);
        let http = ports::several(terms.receivers)?;
        let own = terms.clone();
        // It opens what it seeds for writing, which changes the file's times: others would rightly serve it no more.
        let source = folder(terms.place.join("source"))?;
        let name = terms.content.path.file_name().context("the file has a name")?;
        std::fs::copy(&terms.content.path, source.join(name)).context("rqbit needs a copy of its own")?;
        let seed = |torrent: &Torrent, _: &Path, port: u16| {
            let mut command = options.rqbit(terms, port, ports::free()?);
            command.args(["download", "--overwrite", "--output-folder"]).arg(&source).arg(&torrent.file);
            ports::serve("rqbit", &command, terms, port)
        };
        let wanted = options.clone();
        let fetch = move |torrent: &Torrent, number: usize, into: &Path| {
            let mut command = wanted.rqbit(&own, torrent.leechers[number], http[number]);
            command.args(["download", "--exit-on-finish", "--output-folder"]).arg(into).arg(&torrent.file);
            command
        };
        Ok(Box::new(Torrent::make(terms, "rqbit")?.swarm(kind, terms, seed, fetch)?))
    }
}

/// Options have changed their names between versions; the program's own help says which it has.
#[derive(Clone)]
struct Options {
    help: String,
}

impl Options {
    fn of(help: &str) -> Options {
        Options { help: help.to_owned() }
    }

    fn rqbit(&self, terms: &Terms, port: u16, http: u16) -> Command {
        let mut command = at_home("rqbit", terms);
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
