//! libtorrent through its Python bindings. Most BitTorrent clients use this library; it is tuned as its manual
//! recommends.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::rival::Rival;
use super::torrent::TorrentSwarm;
use crate::contender::{ProgramContender, TransferTerms};
use crate::topology::spawned::{SpawnedProgram, run_program};

/// The script of seeders and leechers.
const SCRIPT: &str = include_str!("torrent_node.py");

/// Python interpreters that may have the bindings: the first on the path, then the distribution's.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// libtorrent seeders and libtorrent leechers.
pub(super) const LIBTORRENT: Rival = Rival {
    name: "libtorrent",
    version: || Ok(find_python()?.1),
    keeps_source_mapped: Some("libtorrent 2 keeps the file mapped"),
    start: start_swarm,
};

fn start_swarm(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let (python, _) = find_python()?;
    let script = terms.folder.join("torrent_node.py");
    std::fs::write(&script, SCRIPT)?;
    let call = move |mode: &str, folder: &Path, torrent: &TorrentSwarm, port: u16| {
        let mut command = Command::new(python);
        command.arg(&script).arg(mode).arg(folder).arg(&torrent.file).arg(port.to_string());
        command
    };
    let call_leecher = call.clone();
    let seed = |torrent: &TorrentSwarm, folder: &Path, port: u16| {
        let command = call("seed", folder, torrent, port);
        let started =
            SpawnedProgram::start_ready(&format!("libtorrent-{port}"), &command, &terms.folder, "ready");
        Ok(started?.0)
    };
    let fetch = move |torrent: &TorrentSwarm, number: usize, into: &Path| {
        let mut command = call_leecher("fetch", into, torrent, torrent.leechers[number]);
        command.args(torrent.seeders.iter().map(u16::to_string));
        command
    };
    TorrentSwarm::create(terms, "libtorrent")?.into_contender(kind, terms, seed, fetch)
}

/// A Python with the bindings, and the version of the library.
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
