//! libtorrent, by its Python form: the library of most BitTorrent clients, tuned as its manual says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::rival::Rival;
use super::torrent::Torrent;
use crate::contender::{Contender, Programs, Steps, Terms};
use crate::topology::spawned::{Spawned, output};

/// What runs it, at both ends.
const SCRIPT: &str = include_str!("torrent_node.py");

/// Where a Python may be that has it: the first on the path, then the distribution's.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// libtorrent to libtorrent.
pub(super) struct Libtorrent;

impl Rival for Libtorrent {
    fn name(&self) -> &'static str {
        "libtorrent"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(python()?.1)
    }

    fn keeps_mapped(&self) -> Option<&'static str> {
        Some("libtorrent 2 reads the file by mappings that it keeps")
    }

    fn contender(&self, kind: &str, terms: &Terms) -> anyhow::Result<Box<dyn Contender>> {
        let (python, _) = python()?;
        let script = terms.place.join("torrent_node.py");
        std::fs::write(&script, SCRIPT)?;
        let torrent = Torrent::make(terms, "libtorrent")?;
        let folder = terms.content.path.parent().context("the file lies in a folder")?;
        let call = move |mode: &str, folder: &Path, torrent: &Path, port: u16| {
            let mut command = Command::new(python);
            command.arg(&script).arg(mode).arg(folder).arg(torrent).arg(port.to_string());
            command
        };
        let mut servers = Vec::new();
        for port in &torrent.seeders {
            let name = format!("libtorrent-{port}");
            let command = call("seed", folder, &torrent.file, *port);
            servers.push(Spawned::start_ready(&name, &command, &terms.place, "ready")?.0);
        }
        let name: PathBuf = terms.content.path.file_name().context("the file has a name")?.into();
        let steps = move |number: usize, into: &Path| {
            let mut command = call("fetch", into, &torrent.file, torrent.leechers[number]);
            command.args(torrent.seeders.iter().map(u16::to_string));
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

/// A Python that has the library, and the library's version.
fn python() -> anyhow::Result<(&'static str, String)> {
    let version = |python: &'static str| {
        let mut command = Command::new(python);
        command.args(["-c", "import libtorrent; print(libtorrent.__version__)"]);
        let text = output(python, &mut command).ok()?;
        Some((python, text.trim().to_owned()))
    };
    PYTHONS
        .into_iter()
        .find_map(version)
        .context("no python3 has the module libtorrent: scripts/bench-rivals.sh installs it")
}
