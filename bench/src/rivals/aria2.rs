//! aria2: BitTorrent between aria2 seeders and aria2 leechers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::ports;
use super::rival::{Rival, isolated_command, program_version};
use super::torrent::TorrentSwarm;
use crate::contender::{ProgramContender, TransferTerms};
use crate::topology::test_file::is_tmpfs;

/// aria2 seeders and aria2 leechers.
pub(super) const ARIA2: Rival = Rival {
    name: "aria2, BitTorrent",
    version: || program_version("aria2c", &["--version"]),
    keeps_source_mapped: None,
    start: start_swarm,
};

fn start_swarm(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let leecher_terms = terms.clone();
    let seed = |torrent: &TorrentSwarm, folder: &Path, port: u16| {
        let mut command = aria2_command(terms, port, folder, torrent);
        command.args(["--quiet", "--seed-ratio=0.0", "--bt-seed-unverified=true", "--allow-overwrite=true"]);
        ports::start_server("aria2", &command, terms, port)
    };
    let fetch = move |torrent: &TorrentSwarm, number: usize, into: &Path| {
        let mut command = aria2_command(&leecher_terms, torrent.leechers[number], into, torrent);
        // Prints only the summary at the end, which contains the average speed.
        command.args(["--seed-time=0", "--show-console-readout=false", "--console-log-level=error"]);
        command.arg("--summary-interval=0");
        command
    };
    let swarm = TorrentSwarm::create(terms, "aria2")?.into_contender(kind, terms, seed, fetch)?;
    Ok(swarm.with_time_parser(parse_summary))
}

/// aria2's option for preallocation: as Shoal does it, except on tmpfs, where it would write zeros.
pub(super) fn allocation_option(terms: &TransferTerms) -> &'static str {
    if is_tmpfs(&terms.folder) { "--file-allocation=none" } else { "--file-allocation=falloc" }
}

fn aria2_command(terms: &TransferTerms, port: u16, folder: &Path, torrent: &TorrentSwarm) -> Command {
    let mut command = isolated_command("aria2c", terms);
    command.args(["--no-conf", allocation_option(terms), "--enable-dht=false", "--bt-enable-lpd=false"]);
    // --bt-max-peers=0 removes the default limit of 55 peers.
    command.args(["--enable-peer-exchange=false", "--bt-max-peers=0"]);
    command.arg(format!("--listen-port={port}")).arg("--dir").arg(folder).arg(&torrent.file);
    command
}

/// Computes the transfer time from the average speed in a line of the summary such as
/// `5cf51c|OK  |    55MiB/s|leech/content.bin`. This time includes the second before aria2 contacts peers, and excludes
/// the second in which it closes connections.
fn parse_summary(text: &str, bytes: u64) -> Option<Duration> {
    let speed = text.lines().rev().find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
        [_, "OK  ", speed, ..] => speed.trim().strip_suffix("B/s"),
        _ => None,
    })?;
    let unit_bytes = [("Gi", 1_u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("", 1)];
    let (number, unit) =
        unit_bytes.iter().find_map(|(name, unit)| Some((speed.strip_suffix(name)?, *unit)))?;
    Duration::try_from_secs_f64(bytes as f64 / (number.parse::<f64>().ok()? * unit as f64)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_gives_the_transfer_time() {
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
