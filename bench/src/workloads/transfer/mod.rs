//! `bench transfer`: a file from one or several seeders to one or several leechers, through the real programs; in the same
//! rounds the floor, and with `--rivals` the field.
//!
//! ```text
//!   run ─► terms (the file, the network) ─► contenders: shoal, floor, rivals ─► rounds ─► sink
//! ```
//!
//! One workload for each number of seeders with each number of leechers. `throughput` counts from the start of the receiving
//! command to its exit, for all contenders. Shoal's command waits until the copy is durable and the others' do not, so
//! `complete` ends when Shoal's says that all is proven, and for others still at their exit; `durable` has everybody's sync
//! in it. `transfer itself` leaves out what a program tells that it spends on starting and ending.

pub(crate) mod rounds;
pub(crate) mod shoal;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::cli::{RoundsArgs, StageArgs, TransferArgs};
use crate::contender::Terms;
use crate::host::Host;
use crate::results::shape::Shape;
use crate::results::sink::Sink;
use crate::topology::binaries::Binaries;
use crate::topology::content::{self, Content};
use crate::topology::private_net::{self, Network};
use crate::topology::{ROUND_MAX_S, ROUND_SLOWEST_BYTES_PER_S, ending, spawned};
use crate::{floor, report, rivals};
use rounds::Rounds;
use shoal::ShoalContender;

/// Of the memory, the part at which the kernel begins to write back on its own (`vm.dirty_background_ratio`).
const WRITE_BACK_PART: u64 = 10;

/// Copies of the file that must fit beside the source and those of the leechers: one that is being made or removed, and the
/// one that a rival seeds from.
const SPARE_COPIES: u64 = 2;

/// Measures and reports.
pub(crate) fn run(args: &TransferArgs) -> anyhow::Result<()> {
    let stage = Stage::set(&args.stage, most(&args.leechers))?;
    let binaries = Binaries::find(args.bin.bin.as_deref())?;
    let mut settings = stage.settings();
    settings.push(("seeders", joined(&args.seeders)));
    settings.push(("leechers", joined(&args.leechers)));
    settings.push(("io", args.io.join(",")));
    let size = args.stage.size.bytes();
    let mut sink = Sink::begin(args.stage.output.wanted(), "transfer", Some(size), &settings)?;
    stage.warn();
    let mut failed = Vec::new();
    for seeders in &args.seeders {
        for leechers in &args.leechers {
            let shape = Shape { seeders: *seeders, leechers: *leechers };
            failed.extend(measure(args, &stage, shape, &binaries, &mut sink)?);
        }
    }
    report::conclude(sink)?;
    all_succeeded(&failed)
}

/// The rounds of one workload; gives the names of those of ours that failed.
fn measure(
    args: &TransferArgs,
    stage: &Stage,
    shape: Shape,
    binaries: &Binaries,
    sink: &mut Sink,
) -> anyhow::Result<Vec<String>> {
    let workload = shape.to_string();
    let terms = stage.terms(shape, &workload)?;
    let mut failed = Vec::new();
    let mut rounds = Rounds::new(&stage.rounds, &workload, &terms);
    let unequal = stage.unequal();
    for contender in floor::contenders(&terms, unequal.is_none())? {
        rounds.enter(contender);
    }
    // What rivals, and other ways to move bytes, are held against.
    let reference = args.rivals || args.io.len() > 1;
    for io in &args.io {
        let kind = if args.io.len() == 1 { "shoal".to_owned() } else { format!("shoal {io}") };
        let options = ["--io".to_owned(), io.clone()];
        match ShoalContender::start(&kind, reference, binaries, &options, &terms) {
            Ok(contender) => rounds.enter(Box::new(contender)),
            Err(fault) => {
                sink.failed([&workload, &kind], &format!("{fault:#}"))?;
                failed.push(kind);
            }
        }
    }
    if let (true, Some(why)) = (args.rivals, &unequal) {
        sink.skipped([&workload, "rivals"], why)?;
    } else if args.rivals {
        for rivals::Entry { name, start, contender } in rivals::contenders(&terms) {
            if let Some(start) = start {
                let of = [workload.as_str(), name, "start of its programs, which say their versions"];
                sink.sample(of, 0, start.as_secs_f64() * 1e3, "ms")?;
            }
            match contender {
                Ok(contender) => rounds.enter(contender),
                Err(absent) => absent.note(sink, [&workload, name])?,
            }
        }
    }
    failed.extend(rounds.run(sink)?);
    // Whoever served has ended with the rounds; what they kept needs the room of the next ones.
    drop(rounds);
    std::fs::remove_dir_all(&terms.place)
        .with_context(|| format!("cannot remove {}", terms.place.display()))?;
    Ok(failed)
}

fn most(counts: &[usize]) -> usize {
    counts.iter().copied().max().unwrap_or(1)
}

/// What was measured is written; now what failed may end the command.
pub(crate) fn all_succeeded(failed: &[String]) -> anyhow::Result<()> {
    if !failed.is_empty() {
        bail!("failed: {}; the lines FAILED, or the records `failed`, say why", failed.join(", "));
    }
    Ok(())
}

fn joined(values: &[usize]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Everything that is the same for all contenders.
pub(crate) struct Stage {
    network: Network,
    content: Content,
    /// How the rounds go.
    pub(crate) rounds: rounds::Plan,
    // Goes last: everything else lies in it.
    place: TempDir,
}

impl Stage {
    /// Makes the file, in a network of the run's own where that may be; there is room for so many leechers' copies.
    pub(crate) fn set(args: &StageArgs, leechers: usize) -> anyhow::Result<Stage> {
        let network = private_net::enter();
        let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let place =
            tempfile::Builder::new().prefix("shoal-bench-").tempdir_in(&folder).with_context(|| {
                format!("cannot make a folder in {}: name another by --dir", folder.display())
            })?;
        ending::clean_up_on_signal(place.path().to_owned())?;
        if args.cold && content::is_tmpfs(place.path()) {
            bail!(
                "{} lies in memory, so that nothing in it is ever cold: leave out --cold, or name a folder on a disk by --dir",
                folder.display()
            );
        }
        let bytes = args.size.bytes();
        let needed = bytes.saturating_mul(1 + leechers as u64 + SPARE_COPIES);
        let room = content::room(place.path())?;
        if room < needed {
            bail!(
                "{needed} bytes are needed in {}, {room} are free: use a smaller --size, fewer --leechers or another --dir",
                folder.display()
            );
        }
        let content = Content::make(place.path().join("content.bin"), bytes)?;
        let counts_wire = network == Network::Private;
        let RoundsArgs { warmup, runs } = args.rounds;
        let rounds = rounds::Plan { warmup, runs, cold: args.cold, counts_wire };
        Ok(Stage { network, content, rounds, place })
    }

    /// What one workload is given.
    pub(crate) fn terms(&self, shape: Shape, name: &str) -> anyhow::Result<Terms> {
        let place = spawned::folder(self.place.path().join(name.replace(' ', "-")))?;
        let bytes = self.content.bytes.saturating_mul(shape.leechers as u64);
        let limit = Duration::from_secs(ROUND_MAX_S + bytes / ROUND_SLOWEST_BYTES_PER_S);
        let (content, cold) = (self.content.clone(), self.rounds.cold);
        Ok(Terms { content, sources: shape.seeders, receivers: shape.leechers, place, limit, cold })
    }

    /// Why sockets of different programs would not be alike here.
    fn unequal(&self) -> Option<String> {
        unequal(&self.network, &private_net::congestion_control())
    }

    /// What a report has to say of it.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let network = match &self.network {
            Network::Private => "a namespace of the run's own".to_owned(),
            Network::Shared(why) => format!("the machine's: {why}"),
        };
        let disk = if content::is_tmpfs(self.place.path()) {
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
            ("file's SHA-1, checked in every copy", self.content.sha1_hex()),
            ("network", network),
            ("congestion control", private_net::congestion_control()),
            ("memory", memory_remark(self.content.bytes, self.place.path())),
        ]
    }

    /// Says what readers of the numbers should know before anything else.
    pub(crate) fn warn(&self) {
        let remark = memory_remark(self.content.bytes, self.place.path());
        if remark.starts_with("larger") {
            eprintln!("bench: the file is {remark}");
        }
        if let Network::Shared(why) = &self.network {
            eprintln!(
                "bench: this run uses the machine's own network ({why}); bytes on the wire are not counted"
            );
        }
    }
}

/// Shoal's nodes leave bbr for reno inside one machine, as [`engine`] does by itself; other programs take what they find.
fn unequal(network: &Network, congestion: &str) -> Option<String> {
    let shared = matches!(network, Network::Shared(_));
    (shared && congestion.starts_with("bbr")).then(|| {
        format!(
            "the machine's own network gives {congestion} to others, and Shoal takes reno: they are only alike in a network of the \
             run's own (`apt install util-linux iproute2`), or after `sysctl -w net.ipv4.tcp_congestion_control=reno`"
        )
    })
}

fn memory_remark(bytes: u64, place: &Path) -> String {
    let memory = Host::read().memory_bytes.unwrap_or(u64::MAX);
    if content::is_tmpfs(place) {
        "files in memory: nothing is written back".to_owned()
    } else if bytes > memory / WRITE_BACK_PART {
        "larger than a tenth of memory: write-back begins meanwhile, and the disk is measured too".to_owned()
    } else {
        "smaller than a tenth of memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_are_not_alike_are_not_compared() {
        let shared = Network::Shared("because".to_owned());
        assert!(unequal(&shared, "bbr").is_some_and(|why| why.contains("sysctl")));
        assert_eq!(unequal(&shared, "cubic"), None);
        assert_eq!(unequal(&Network::Private, "bbr"), None);
    }
}
