//! aria2 by BitTorrent.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::ports;
use super::rival::{Rival, number};
use super::torrent::Torrent;
use crate::contender::{Contender, Programs, Steps, Terms};
use crate::topology::spawned::{Spawned, first_line};

/// aria2 to aria2.
pub(super) struct Aria2;

impl Rival for Aria2 {
    fn name(&self) -> &'static str {
        "aria2, BitTorrent"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(number(&first_line("aria2c", &["--version"])?))
    }

    fn contender(&self, kind: &str, terms: &Terms) -> anyhow::Result<Box<dyn Contender>> {
        let torrent = Torrent::make(terms, "aria2")?;
        let folder = terms.content.path.parent().context("the file lies in a folder")?;
        let mut servers = Vec::new();
        for (number, port) in torrent.seeders.iter().enumerate() {
            let mut command = aria2(*port, folder, &torrent.file);
            command.args(["--seed-ratio=0.0", "--bt-seed-unverified=true", "--allow-overwrite=true"]);
            let mut server = Spawned::start(&format!("aria2-seeder-{number}"), &command, &terms.place)?;
            ports::listening(&mut server, *port)?;
            servers.push(server);
        }
        let name = terms.content.path.file_name().context("the file has a name")?.to_owned();
        let port = ports::free()?;
        let steps = move |into: &Path| {
            let mut command = aria2(port, into, &torrent.file);
            command.arg("--seed-time=0");
            Steps { commands: vec![command], copy: Some(into.join(&name)) }
        };
        Ok(Box::new(Programs {
            kind: kind.to_owned(),
            reference: false,
            servers,
            steps: Box::new(steps),
            terms: terms.clone(),
        }))
    }
}

fn aria2(port: u16, folder: &Path, torrent: &Path) -> Command {
    let mut command = Command::new("aria2c");
    command.args(["--no-conf", "--quiet", "--file-allocation=falloc", "--enable-dht=false"]);
    command.args(["--bt-enable-lpd=false", "--enable-peer-exchange=false"]);
    command.arg(format!("--listen-port={port}")).arg("--dir").arg(folder).arg(torrent);
    command
}
