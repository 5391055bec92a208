//! rqbit, a BitTorrent client in Rust, on one thread, which is its best on machines with few cores.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::ports;
use super::rival::{Rival, at_home, number};
use super::torrent::Torrent;
use crate::contender::{Contender, Programs, Steps, Terms};
use crate::topology::spawned::{Spawned, first_line, output};

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
        let torrent = Torrent::make(terms, "rqbit")?;
        let folder = terms.content.path.parent().context("the file lies in a folder")?;
        let options = Options::of(&output("rqbit", Command::new("rqbit").arg("--help"))?);
        let mut servers = Vec::new();
        for port in &torrent.seeders {
            let mut command = options.rqbit(terms, *port, ports::free()?);
            command.args(["download", "--overwrite", "--output-folder"]).arg(folder).arg(&torrent.file);
            let mut server = Spawned::start(&format!("rqbit-{port}"), &command, &terms.place)?;
            ports::listening(&mut server, *port)?;
            servers.push(server);
        }
        let http = ports::several(terms.receivers)?;
        let own = terms.clone();
        let name = terms.content.path.file_name().context("the file has a name")?.to_owned();
        let steps = move |number: usize, into: &Path| {
            let mut command = options.rqbit(&own, torrent.leechers[number], http[number]);
            command.args(["download", "--exit-on-finish", "--output-folder"]).arg(into).arg(&torrent.file);
            Steps { commands: vec![command], copy: Some(into.join(&name)) }
        };
        Ok(Box::new(Programs {
            kind: kind.to_owned(),
            reference: false,
            swarm: true,
            servers,
            steps: Box::new(steps),
            terms: terms.clone(),
        }))
    }
}

/// Options have changed their names between versions; the program's own help says which it has.
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
