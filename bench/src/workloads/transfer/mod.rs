//! `bench transfer`: transfers a file from seeders to leechers with the real programs, and with the baseline and, with
//! `--rivals`, other programs in the same rounds.
//!
//! ```text
//!   run_transfer ─► terms (the file, the network) ─► contenders: shoal, baseline, rivals ─► rounds ─► sink
//! ```
//!
//! There is one workload for each pair of numbers of seeders and leechers. `throughput` runs from the start of the
//! receiving command to its exit. Shoal's command waits until the copy is durable; the others do not. So `complete`
//! ends for Shoal when all pieces are verified, and for the others at the exit. `durable` includes a sync for every
//! contender. `transfer itself` excludes the start and the end of a program, where it reports that.

pub(crate) mod rounds;
pub(crate) mod shoal;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::cli::{RoundsArgs, SetupArgs, TransferArgs};
use crate::contender::TransferTerms;
use crate::host::HostDescription;
use crate::limits::{ROUND_MAX_S, ROUND_SLOWEST_BYTES_PER_S, SPARE_COPIES, WRITE_BACK_DIVISOR};
use crate::results::node_counts::NodeCounts;
use crate::results::sink::RecordSink;
use crate::topology::binaries::ShoalBinaries;
use crate::topology::private_net::{self, RunNetwork};
use crate::topology::test_file::{self, TestFile};
use crate::topology::{shutdown, spawned};
use crate::{baseline, report, rivals};
use rounds::TransferRounds;
use shoal::ShoalContender;

/// Runs `bench transfer`.
pub(crate) fn run_transfer(args: &TransferArgs) -> anyhow::Result<()> {
    let stage = TransferSetup::prepare(&args.setup, largest_count(&args.leechers))?;
    let binaries = ShoalBinaries::find(args.bin.bin.as_deref())?;
    let mut settings = stage.settings();
    settings.push(("seeders", join_counts(&args.seeders)));
    settings.push(("leechers", join_counts(&args.leechers)));
    settings.push(("io", args.io.join(",")));
    let size = args.setup.size.bytes();
    let mut sink = RecordSink::begin(args.setup.output.record_output(), "transfer", Some(size), &settings)?;
    stage.warn();
    let mut failed = Vec::new();
    for seeders in &args.seeders {
        for leechers in &args.leechers {
            let shape = NodeCounts { seeders: *seeders, leechers: *leechers };
            failed.extend(measure_workload(args, &stage, shape, &binaries, &mut sink)?);
        }
    }
    report::finish_run(sink)?;
    fail_if_any(&failed)
}

/// Runs the rounds of one workload; gives the failed contenders that are Shoal.
fn measure_workload(
    args: &TransferArgs,
    stage: &TransferSetup,
    shape: NodeCounts,
    binaries: &ShoalBinaries,
    sink: &mut RecordSink,
) -> anyhow::Result<Vec<String>> {
    let workload = shape.to_string();
    let terms = stage.terms(shape, &workload)?;
    let mut failed = Vec::new();
    let mut rounds = TransferRounds::new(&stage.rounds, &workload, &terms);
    let unequal = stage.socket_inequality();
    for contender in baseline::baseline_contenders(&terms, unequal.is_none())? {
        rounds.add_contender(contender);
    }
    // Shoal is a reference for rivals, and for other I/O back ends.
    let reference = args.rivals || args.io.len() > 1;
    for io in &args.io {
        let kind = if args.io.len() == 1 { "shoal".to_owned() } else { format!("shoal {io}") };
        let options = ["--io".to_owned(), io.clone()];
        match ShoalContender::start(&kind, reference, binaries, &options, &terms) {
            Ok(contender) => rounds.add_contender(Box::new(contender)),
            Err(fault) => {
                sink.record_failed([&workload, &kind], &format!("{fault:#}"))?;
                failed.push(kind);
            }
        }
    }
    if let (true, Some(why)) = (args.rivals, &unequal) {
        sink.record_skipped([&workload, "rivals"], why)?;
    } else if args.rivals {
        for rivals::RivalEntry { name, start, contender } in rivals::start_rivals(&terms) {
            if let Some(start) = start {
                let of = [workload.as_str(), name, "start of its programs, which say their versions"];
                sink.record_sample(of, 0, start.as_secs_f64() * 1e3, "ms")?;
            }
            match contender {
                Ok(contender) => rounds.add_contender(Box::new(contender)),
                Err(absent) => absent.record(sink, [&workload, name])?,
            }
        }
    }
    failed.extend(rounds.run(sink)?);
    // Ends the servers; their files would take disk space from the next workload.
    drop(rounds);
    std::fs::remove_dir_all(&terms.folder)
        .with_context(|| format!("cannot remove {}", terms.folder.display()))?;
    Ok(failed)
}

fn largest_count(counts: &[usize]) -> usize {
    counts.iter().copied().max().unwrap_or(1)
}

/// Fails the command if contenders failed, after all results were written.
pub(crate) fn fail_if_any(failed: &[String]) -> anyhow::Result<()> {
    if !failed.is_empty() {
        bail!("failed: {}; see the FAILED lines or the `failed` records", failed.join(", "));
    }
    Ok(())
}

fn join_counts(values: &[usize]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What all contenders of a run share.
pub(crate) struct TransferSetup {
    network: RunNetwork,
    file: TestFile,
    pub(crate) rounds: rounds::RoundsPlan,
    // Declared last, so it is removed last: all files lie in it.
    place: TempDir,
}

impl TransferSetup {
    /// Creates the file, in a network of the run's own if possible, after checking the disk space for that many
    /// leechers.
    pub(crate) fn prepare(args: &SetupArgs, leechers: usize) -> anyhow::Result<TransferSetup> {
        let network = private_net::enter_private_net();
        let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let place =
            tempfile::Builder::new().prefix("shoal-bench-").tempdir_in(&folder).with_context(|| {
                format!("cannot create a folder in {}: choose another --dir", folder.display())
            })?;
        shutdown::clean_up_on_signal(place.path().to_owned())?;
        if args.cold && test_file::is_tmpfs(place.path()) {
            bail!(
                "{} lies in memory and is never cold: leave out --cold, or choose a folder on a disk with --dir",
                folder.display()
            );
        }
        let bytes = args.size.bytes();
        let needed = bytes.saturating_mul(1 + leechers as u64 + SPARE_COPIES);
        let room = test_file::free_bytes(place.path())?;
        if room < needed {
            bail!(
                "{} has {room} bytes free and needs {needed}: use a smaller --size, fewer --leechers or another --dir",
                folder.display()
            );
        }
        let file = TestFile::create(place.path().join("content.bin"), bytes)?;
        let counts_wire = network == RunNetwork::Private;
        let RoundsArgs { warmup, runs } = args.rounds;
        let rounds = rounds::RoundsPlan { warmup, runs, cold: args.cold, counts_wire };
        Ok(TransferSetup { network, file, rounds, place })
    }

    /// The terms of one workload.
    pub(crate) fn terms(&self, shape: NodeCounts, name: &str) -> anyhow::Result<TransferTerms> {
        let place = spawned::create_empty_folder(self.place.path().join(name.replace(' ', "-")))?;
        let bytes = self.file.bytes.saturating_mul(shape.leechers as u64);
        let limit = Duration::from_secs(ROUND_MAX_S + bytes / ROUND_SLOWEST_BYTES_PER_S);
        let (file, cold) = (self.file.clone(), self.rounds.cold);
        Ok(TransferTerms {
            file,
            seeders: shape.seeders,
            leechers: shape.leechers,
            folder: place,
            round_limit: limit,
            is_source_cold: cold,
        })
    }

    /// Why sockets of different programs would differ here.
    fn socket_inequality(&self) -> Option<String> {
        socket_inequality(&self.network, &private_net::congestion_control())
    }

    /// The settings for the run's record.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let network = match &self.network {
            RunNetwork::Private => "a namespace of the run's own".to_owned(),
            RunNetwork::Shared(why) => format!("the machine's: {why}"),
        };
        let disk = if test_file::is_tmpfs(self.place.path()) {
            "tmpfs, where a sync makes nothing durable"
        } else {
            "disk; a sync is of the file and of its folder, for all"
        };
        vec![
            ("rounds", self.rounds.runs.to_string()),
            ("warm-up rounds", self.rounds.warmup.to_string()),
            ("files on", disk.to_owned()),
            ("order", "each round begins with the next contender".to_owned()),
            ("source", if self.rounds.cold { "cold" } else { "cached" }.to_owned()),
            ("file's SHA-1, checked in every copy", self.file.sha1_hex()),
            ("network", network),
            ("congestion control", private_net::congestion_control()),
            ("memory", memory_remark(self.file.bytes, self.place.path())),
        ]
    }

    /// Prints warnings about the file's size and the network.
    pub(crate) fn warn(&self) {
        let remark = memory_remark(self.file.bytes, self.place.path());
        if remark.starts_with("larger") {
            eprintln!("bench: the file is {remark}");
        }
        if let RunNetwork::Shared(why) = &self.network {
            eprintln!(
                "bench: this run uses the machine's network ({why}); bytes on the wire are not counted"
            );
        }
    }
}

/// Within one machine Shoal replaces bbr by reno; other programs keep the system's default.
fn socket_inequality(network: &RunNetwork, congestion: &str) -> Option<String> {
    let shared = matches!(network, RunNetwork::Shared(_));
    (shared && congestion.starts_with("bbr")).then(|| {
        format!(
            "this machine's network uses {congestion} for other programs while Shoal chooses reno. To compare them, run in a network \
             namespace (`apt install util-linux iproute2`) or set `sysctl -w net.ipv4.tcp_congestion_control=reno`"
        )
    })
}

fn memory_remark(bytes: u64, place: &Path) -> String {
    let memory = HostDescription::describe().memory_bytes.unwrap_or(u64::MAX);
    if test_file::is_tmpfs(place) {
        "files in memory: nothing is written back".to_owned()
    } else if bytes > memory / WRITE_BACK_DIVISOR {
        "larger than a tenth of memory: write-back begins meanwhile, and the disk is measured too".to_owned()
    } else {
        "smaller than a tenth of memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_different_congestion_control_are_not_compared() {
        let shared = RunNetwork::Shared("because".to_owned());
        assert!(socket_inequality(&shared, "bbr").is_some_and(|why| why.contains("sysctl")));
        assert_eq!(socket_inequality(&shared, "cubic"), None);
        assert_eq!(socket_inequality(&RunNetwork::Private, "bbr"), None);
    }
}
