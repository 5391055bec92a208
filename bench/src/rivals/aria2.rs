//! aria2 by BitTorrent.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::ports;
use super::rival::{Rival, at_home, number};
use super::torrent::Torrent;
use crate::contender::{Contender, Programs, Steps, Terms};
use crate::topology::content::is_tmpfs;
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
            let mut command = aria2(terms, *port, folder, &torrent.file);
            command.args(["--seed-ratio=0.0", "--bt-seed-unverified=true", "--allow-overwrite=true"]);
            let mut server = Spawned::start(&format!("aria2-seeder-{number}"), &command, &terms.place)?;
            ports::listening(&mut server, *port)?;
            servers.push(server);
        }
        let name = terms.content.path.file_name().context("the file has a name")?.to_owned();
        let own = terms.clone();
        let steps = move |number: usize, into: &Path| {
            let mut command = aria2(&own, torrent.leechers[number], into, &torrent.file);
            command.arg("--seed-time=0");
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

/// How it takes room for a file: as Shoal does, which is not at all where room in advance means writing zeros.
pub(super) fn allocation(terms: &Terms) -> &'static str {
    if is_tmpfs(&terms.place) { "--file-allocation=none" } else { "--file-allocation=falloc" }
}

fn aria2(terms: &Terms, port: u16, folder: &Path, torrent: &Path) -> Command {
    let mut command = at_home("aria2c", terms);
    command.args(["--no-conf", "--quiet", allocation(terms), "--enable-dht=false"]);
    command.args(["--bt-enable-lpd=false", "--enable-peer-exchange=false"]);
    command.arg(format!("--listen-port={port}")).arg("--dir").arg(folder).arg(torrent);
    command
}
