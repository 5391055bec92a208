//! aria2 by BitTorrent.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::ports;
use super::rival::{Rival, isolated_command, version_number};
use super::torrent::TorrentSwarm;
use crate::contender::{Contender, TransferTerms};
use crate::topology::spawned::first_line;
use crate::topology::test_file::is_tmpfs;

/// aria2 to aria2.
pub(super) struct Aria2Rival;

impl Rival for Aria2Rival {
    fn name(&self) -> &'static str {
        "aria2, BitTorrent"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(version_number(&first_line("aria2c", &["--version"])?))
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let own = terms.clone();
        let seed = |torrent: &TorrentSwarm, folder: &Path, port: u16| {
            let mut command = aria2_command(terms, port, folder, torrent);
            command.args([
                "--quiet",
                "--seed-ratio=0.0",
                "--bt-seed-unverified=true",
                "--allow-overwrite=true",
            ]);
            ports::start_server("aria2", &command, terms, port)
        };
        let fetch = move |torrent: &TorrentSwarm, number: usize, into: &Path| {
            let mut command = aria2_command(&own, torrent.leechers[number], into, torrent);
            // Its summary at the end tells how fast it was.
            command.args(["--seed-time=0", "--show-console-readout=false", "--console-log-level=error"]);
            command.arg("--summary-interval=0");
            command
        };
        let swarm = TorrentSwarm::create(terms, "aria2")?.into_contender(kind, terms, seed, fetch)?;
        Ok(Box::new(swarm.with_time_parser(parse_summary)))
    }
}

/// How it takes room for a file: as Shoal does, which is not at all where room in advance means writing zeros.
pub(super) fn allocation_option(terms: &TransferTerms) -> &'static str {
    if is_tmpfs(&terms.place) { "--file-allocation=none" } else { "--file-allocation=falloc" }
}

fn aria2_command(terms: &TransferTerms, port: u16, folder: &Path, torrent: &TorrentSwarm) -> Command {
    let mut command = isolated_command("aria2c", terms);
    command.args(["--no-conf", allocation_option(terms), "--enable-dht=false", "--bt-enable-lpd=false"]);
    // As many peers as there are; it would take 55 at most.
    command.args(["--enable-peer-exchange=false", "--bt-max-peers=0"]);
    command.arg(format!("--listen-port={port}")).arg("--dir").arg(folder).arg(&torrent.file);
    command
}

/// A line of its summary, such as `5cf51c|OK  |    55MiB/s|leech/content.bin`: the average from its start to the last piece,
/// with the second that it waits before it looks for peers, and without the one that it takes to say goodbye.
fn parse_summary(words: &str, bytes: u64) -> Option<Duration> {
    let speed = words.lines().rev().find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
        [_, "OK  ", speed, ..] => speed.trim().strip_suffix("B/s"),
        _ => None,
    })?;
    let units = [("Gi", 1_u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("", 1)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((speed.strip_suffix(name)?, *unit)))?;
    Duration::try_from_secs_f64(bytes as f64 / (number.parse::<f64>().ok()? * unit as f64)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_summary_is_read() {
        let line = |speed: &str| {
            format!(
                "gid   |stat|avg speed  |path/URI\n======+====\n5cf51c|OK  |{speed:>11}|a/b\n\n(OK):done\n"
            )
        };
        let took = |speed: &str, bytes: u64| parse_summary(&line(speed), bytes).unwrap().as_secs_f64();
        assert!((took("64MiB/s", 256 << 20) - 4.0).abs() < 1e-9);
        assert!((took("1.5GiB/s", 3 << 30) - 2.0).abs() < 1e-9);
        assert!((took("512B/s", 1 << 10) - 2.0).abs() < 1e-9);
        assert_eq!(parse_summary(&line("n/a"), 5), None);
        assert_eq!(parse_summary("", 5), None);
    }
}
