//! `bench transfer`: a file from one or several seeders to one or several leechers, through the real programs; in the same
//! rounds the floor, and with `--rivals` the field.
//!
//! ```text
//!   run ─► terms (the file, the network) ─► contenders: shoal, floor, rivals ─► rounds ─► sink
//! ```
//!
//! One workload for each number of seeders. Throughput counts from the start of the receiving command to the complete
//! file, proven where the program proves; `durable` adds what it takes to survive a loss of power.

pub(crate) mod rounds;
pub(crate) mod shoal;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::cli::{StageArgs, TransferArgs};
use crate::contender::Terms;
use crate::host::Host;
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

/// Copies of the file that must fit beside the source: that of each leecher, and one more that is being made or removed.
const SPARE_COPIES: u64 = 1;

/// Measures and reports.
pub(crate) fn run(args: &TransferArgs) -> anyhow::Result<()> {
    let stage = Stage::set(&args.stage)?;
    let binaries = Binaries::find(args.bin.as_deref())?;
    let mut settings = stage.settings();
    settings.push(("seeders", joined(&args.seeders)));
    settings.push(("io", args.io.join(",")));
    let size = args.stage.size.bytes();
    let mut sink = Sink::begin(args.stage.output.wanted(), "transfer", Some(size), &settings)?;
    stage.warn();
    for seeders in &args.seeders {
        let workload = workload(*seeders, args.stage.leechers);
        let terms = stage.terms(*seeders, &workload)?;
        let mut rounds = Rounds::new(&stage.rounds, &workload, &terms);
        for contender in floor::contenders(&terms)? {
            rounds.enter(contender);
        }
        for io in &args.io {
            let kind = if args.io.len() == 1 { "shoal".to_owned() } else { format!("shoal {io}") };
            let options = ["--io".to_owned(), io.clone()];
            rounds.enter(Box::new(ShoalContender::start(&kind, false, &binaries, &options, &terms)?));
        }
        if args.rivals {
            for (name, entry) in rivals::contenders(&terms) {
                match entry {
                    Ok(contender) => rounds.enter(contender),
                    Err(absent) => absent.note(&mut sink, [&workload, name])?,
                }
            }
        }
        rounds.run(&mut sink)?;
    }
    report::conclude(sink)
}

fn workload(seeders: usize, leechers: usize) -> String {
    let of =
        |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    format!("{} to {}", of(seeders, "seeder"), of(leechers, "leecher"))
}

fn joined(values: &[usize]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Everything that is the same for all contenders.
pub(crate) struct Stage {
    network: Network,
    content: Content,
    leechers: usize,
    /// How the rounds go.
    pub(crate) rounds: rounds::Plan,
    // Goes last: everything else lies in it.
    place: TempDir,
}

impl Stage {
    /// Makes the file, in a network of the run's own where that may be.
    pub(crate) fn set(args: &StageArgs) -> anyhow::Result<Stage> {
        let network = private_net::enter();
        let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let place =
            tempfile::Builder::new().prefix("shoal-bench-").tempdir_in(&folder).with_context(|| {
                format!("cannot make a folder in {}: name another by --dir", folder.display())
            })?;
        ending::clean_up_on_signal(place.path().to_owned())?;
        let bytes = args.size.bytes();
        let needed = bytes.saturating_mul(1 + args.leechers as u64 + SPARE_COPIES);
        let room = content::room(place.path())?;
        if room < needed {
            bail!(
                "{needed} bytes are needed in {}, {room} are free: use a smaller --size or another --dir",
                folder.display()
            );
        }
        let content = Content::make(place.path().join("content.bin"), bytes)?;
        let counts_wire = network == Network::Private;
        let rounds = rounds::Plan { warmup: args.warmup, runs: args.runs, cold: args.cold, counts_wire };
        Ok(Stage { network, content, leechers: args.leechers, rounds, place })
    }

    /// What one workload is given.
    pub(crate) fn terms(&self, sources: usize, name: &str) -> anyhow::Result<Terms> {
        let place = spawned::folder(self.place.path().join(name.replace(' ', "-")))?;
        let bytes = self.content.bytes.saturating_mul(self.leechers as u64);
        let limit = Duration::from_secs(ROUND_MAX_S + bytes / ROUND_SLOWEST_BYTES_PER_S);
        Ok(Terms { content: self.content.clone(), sources, receivers: self.leechers, place, limit })
    }

    /// What a report has to say of it.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let network = match &self.network {
            Network::Private => "a namespace of the run's own".to_owned(),
            Network::Shared(why) => format!("the machine's: {why}"),
        };
        let disk = if content::is_tmpfs(self.place.path()) { "tmpfs" } else { "disk" };
        vec![
            ("rounds", self.rounds.runs.to_string()),
            ("warm-up rounds", self.rounds.warmup.to_string()),
            ("leechers", self.leechers.to_string()),
            ("files on", disk.to_owned()),
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
