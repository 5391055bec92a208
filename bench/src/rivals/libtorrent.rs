//! libtorrent, by its Python form: the library of most BitTorrent clients, tuned as its manual says.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::rival::Rival;
use super::torrent::TorrentSwarm;
use crate::contender::{Contender, TransferTerms};
use crate::topology::spawned::{SpawnedProgram, run_program};

/// What runs it, at both ends.
const SCRIPT: &str = include_str!("torrent_node.py");

/// Where a Python may be that has it: the first on the path, then the distribution's.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// libtorrent to libtorrent.
pub(super) struct LibtorrentRival;

impl Rival for LibtorrentRival {
    fn name(&self) -> &'static str {
        "libtorrent"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(find_python()?.1)
    }

    fn keeps_source_mapped(&self) -> Option<&'static str> {
        Some("libtorrent 2 reads the file by mappings that it keeps")
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let (python, _) = find_python()?;
        let script = terms.place.join("torrent_node.py");
        std::fs::write(&script, SCRIPT)?;
        let call = move |mode: &str, folder: &Path, torrent: &TorrentSwarm, port: u16| {
            let mut command = Command::new(python);
            command.arg(&script).arg(mode).arg(folder).arg(&torrent.file).arg(port.to_string());
            command
        };
        let fetches = call.clone();
        let seed = |torrent: &TorrentSwarm, folder: &Path, port: u16| {
            let command = call("seed", folder, torrent, port);
            let started =
                SpawnedProgram::start_ready(&format!("libtorrent-{port}"), &command, &terms.place, "ready");
            Ok(started?.0)
        };
        let fetch = move |torrent: &TorrentSwarm, number: usize, into: &Path| {
            let mut command = fetches("fetch", into, torrent, torrent.leechers[number]);
            command.args(torrent.seeders.iter().map(u16::to_string));
            command
        };
        Ok(Box::new(TorrentSwarm::create(terms, "libtorrent")?.into_contender(kind, terms, seed, fetch)?))
    }
}

/// A Python that has the library, and the library's version.
fn find_python() -> anyhow::Result<(&'static str, String)> {
    let version = |python: &'static str| {
        let mut command = Command::new(python);
        command.args(["-c", "import libtorrent; print(libtorrent.__version__)"]);
        let text = run_program(python, &mut command).ok()?;
        Some((python, text.trim().to_owned()))
    };
    PYTHONS
        .into_iter()
        .find_map(version)
        .context("no python3 has the module libtorrent: scripts/bench-rivals.sh installs it")
}
