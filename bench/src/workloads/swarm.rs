//! `bench swarm`: how near a swarm comes to what is possible.
//!
//! Each byte has to leave some seeder once, and all copies together have to leave by all uplinks there are; so hosts that send
//! at most u bytes a second each cannot all have a file sooner than the longer of both takes (the fluid limit, where downlinks are
//! not the narrow place: Kumar and Ross, "Peer-assisted file distribution: the minimum distribution time"). Each finish is
//! given as a multiple of that.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::cli::SwarmArgs;
use crate::clock;
use crate::report;
use crate::results::sink::Sink;
use crate::topology::binaries::Binaries;
use crate::topology::content::Content;
use crate::topology::load::Load;
use crate::topology::netns::{Entered, Host, MEMORY, bridge, enter, own_memory};
use crate::topology::shoal::{Download, Node, Shoal};
use crate::topology::usage::{Sides, Watch};
use crate::topology::{ROUND_MAX_S, warm};

/// The workload's name in records.
const WORKLOAD: &str = "swarm";

/// The group of the file.
const GROUP: &str = "bench";

/// Downloads may take this many times the fluid limit, where nothing else was said, and what any round may take besides.
const LIMIT: f64 = 20.0;

/// A download that makes no progress this long, in seconds, has failed.
const WAIT_S: &str = "60";

/// Measures and reports, in namespaces; without them it says why not.
pub(crate) fn run(args: &SwarmArgs) -> anyhow::Result<()> {
    let begin = || {
        let settings = [
            ("uplink", format!("{} bytes/s", args.uplink.bytes())),
            ("seeders", args.seeders.to_string()),
            ("leechers", args.leechers.to_string()),
            ("fluid limit", format!("{:.3} s", fluid_s(args))),
            ("rounds", args.runs.to_string()),
        ];
        Sink::begin(args.output.wanted(), "swarm", Some(args.size.bytes()), &settings)
    };
    let binaries = Binaries::find(args.bin.bin.as_deref())?;
    // Memory of the run's own would hide the programs that lie in the machine's.
    let lie_in_memory =
        [&binaries.tracker, &binaries.client].iter().any(|program| program.starts_with(MEMORY));
    let hidden = lie_in_memory.then_some(Path::new(MEMORY));
    let given = match enter(args.dir.as_deref().or(hidden))? {
        Entered::Inside(given) => given,
        Entered::Done(status) if status.success() => return Ok(()),
        Entered::Done(status) => {
            bail!("the part that ran in namespaces of its own ended with {status}")
        }
        Entered::Refused(why) => {
            let mut sink = begin()?;
            sink.skipped([WORKLOAD, "shoal"], &why)?;
            return report::conclude(sink);
        }
    };
    let mut sink = begin()?;
    let center = bridge()?;
    let dir = match given {
        Some(given) => given,
        None => own_memory()?,
    };
    let folder = TempDir::with_prefix_in("shoal-swarm-", &dir)
        .with_context(|| format!("there is no place in {}: choose another --dir", dir.display()))?;
    let content = Content::make(folder.path().join("swarm.bin"), args.size.bytes())?;
    let mut lost = 0;
    for round in 0..args.warmup + args.runs {
        warm::touch(args.size.bytes().saturating_mul(u64::from(args.leechers)));
        let place = folder.path().join("round");
        let others = Load::start();
        let outcome = Round { args, binaries: &binaries, place: &place, content: &content, center }.run();
        let counted = round.checked_sub(args.warmup);
        match outcome {
            Ok(outcome) => {
                lost += outcome.note(&mut sink, counted, args)?;
                if counted.is_some() {
                    sink.other_load(others.others());
                }
            }
            Err(fault) => {
                sink.failed([WORKLOAD, "shoal"], &format!("{fault:#}"))?;
                lost += 1;
                break;
            }
        }
    }
    report::conclude(sink)?;
    if lost > 0 {
        bail!("{lost} downloads failed: the lines `failed` say why");
    }
    Ok(())
}

/// The least time in which all leechers can have the file, in seconds.
fn fluid_s(args: &SwarmArgs) -> f64 {
    let (size, uplink) = (args.size.bytes() as f64, args.uplink.bytes() as f64);
    let (seeders, leechers) = (f64::from(args.seeders), f64::from(args.leechers));
    let first_copy_s = size / (seeders * uplink);
    let all_copies_s = leechers * size / ((seeders + leechers) * uplink);
    first_copy_s.max(all_copies_s)
}

/// The longest that all downloads of a round may take.
fn limit(args: &SwarmArgs) -> Duration {
    let seconds = match args.limit {
        Some(multiple) => multiple * fluid_s(args),
        None => ROUND_MAX_S as f64 + LIMIT * fluid_s(args),
    };
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// What a round is made of.
struct Round<'a> {
    args: &'a SwarmArgs,
    binaries: &'a Binaries,
    place: &'a Path,
    content: &'a Content,
    center: Ipv4Addr,
}

/// What became of a round.
struct Outcome {
    /// From the start of all to the durable copy of each, in the order of the hosts; or why there is none.
    finished: Vec<anyhow::Result<Duration>>,
    /// Bytes that left each seeder.
    seeders_sent: Vec<u64>,
    /// Bytes that left all leechers.
    leechers_sent: u64,
}

impl Round<'_> {
    fn run(&self) -> anyhow::Result<Outcome> {
        let shoal = Shoal::start_at(IpAddr::V4(self.center), self.binaries, self.place, &[])?;
        let count = self.args.seeders + self.args.leechers;
        let hosts = (0..count)
            .map(|number| Host::new(number, self.args.uplink.bytes()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (seeding, leeching) = hosts.split_at(usize::from(self.args.seeders));
        let mut seeders = Vec::new();
        for (at, host) in seeding.iter().enumerate() {
            let node = member(&shoal, host, if at == 0 { "create_group" } else { "join_group" })?;
            node.share(GROUP, &self.content.path)?;
            seeders.push(node);
        }
        // Whoever fails from here on loses its own copy, and no other's.
        let leechers: Vec<_> = leeching.iter().map(|host| member(&shoal, host, "join_group")).collect();
        let before = sent(&hosts)?;
        let finished = self.fetch(leechers)?;
        let mut sent: Vec<u64> =
            sent(&hosts)?.iter().zip(before).map(|(after, before)| after - before).collect();
        let leechers_sent = sent.split_off(seeders.len()).iter().sum();
        let check = |(at, took): (usize, anyhow::Result<Duration>)| {
            took.and_then(|took| self.content.check(&self.copy(at)).map(|()| took))
        };
        let finished = finished.into_iter().enumerate().map(check).collect();
        Ok(Outcome { finished, seeders_sent: sent, leechers_sent })
    }

    fn copy(&self, leecher: usize) -> PathBuf {
        self.place.join(format!("copy{}", leecher + 1))
    }

    /// All leechers at once; how long each took until its file was durable. Nodes run until the last one is done.
    fn fetch(&self, leechers: Vec<anyhow::Result<Node>>) -> anyhow::Result<Vec<anyhow::Result<Duration>>> {
        let name = self.content.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let began = clock::now();
        let (mut nodes, mut downloads) = (Vec::new(), Vec::new());
        for (at, node) in leechers.into_iter().enumerate() {
            downloads.push(node.and_then(|node| {
                let since = clock::now().saturating_sub(began);
                let download = node.fetch_by(&["--wait", WAIT_S], GROUP, &name, &self.copy(at))?;
                nodes.push(node);
                Ok((since, download))
            }));
        }
        let victims: Vec<u32> = downloads.iter().flatten().map(|(_, download)| download.pid()).collect();
        let watch = Watch::start(Sides::default(), &victims, limit(self.args))?;
        let finished = |(since, download): (Duration, Download)| {
            let (told, _) = download.finish().map_err(|fault| late(fault, &watch))?;
            Ok(since + told.durable)
        };
        Ok(downloads.into_iter().map(|download| download.and_then(finished)).collect())
    }
}

/// A node on a host, logged in and a member of the group.
fn member(shoal: &Shoal, host: &Host, joins: &str) -> anyhow::Result<Node> {
    let user = format!("user{}", host.number);
    shoal.create_user(&user)?;
    let node = shoal.node_at(&user, IpAddr::V4(host.address), |program| host.command(program))?;
    node.run(&[joins, GROUP])?;
    Ok(node)
}

/// A failure, with the limit where that was over by then.
fn late(fault: anyhow::Error, watch: &Watch) -> anyhow::Error {
    match watch.told() {
        Some(told) => anyhow::anyhow!("{fault:#}; {told}: --limit gives more"),
        None => fault,
    }
}

fn sent(hosts: &[Host]) -> anyhow::Result<Vec<u64>> {
    hosts.iter().map(Host::sent_bytes).collect()
}

impl Outcome {
    /// Puts a round that counts into the sink; failures of every round. Gives how many there were.
    fn note(&self, sink: &mut Sink, round: Option<u32>, args: &SwarmArgs) -> anyhow::Result<usize> {
        let (size, limit_s, unit) = (args.size.bytes() as f64, fluid_s(args), "x fluid limit");
        let mut last: f64 = 0.0;
        for (at, took) in self.finished.iter().enumerate() {
            let leecher = format!("leecher {:02}", at + 1);
            match (took, round) {
                (Err(fault), _) => sink.failed([WORKLOAD, &leecher], &format!("{fault:#}"))?,
                (Ok(took), Some(round)) => {
                    let multiple = took.as_secs_f64() / limit_s;
                    last = last.max(multiple);
                    sink.sample([WORKLOAD, &leecher, "finish"], round, multiple, unit)?;
                }
                (Ok(_), None) => {}
            }
        }
        let lost = self.finished.iter().filter(|took| took.is_err()).count();
        let Some(round) = round else { return Ok(lost) };
        // The last of those who came through would be no finish of the swarm.
        if lost == 0 {
            sink.sample([WORKLOAD, "shoal", "last finish"], round, last, unit)?;
        }
        for (at, sent) in self.seeders_sent.iter().enumerate() {
            let kind = format!("seeder {}", at + 1);
            sink.sample([WORKLOAD, &kind, "copies sent"], round, *sent as f64 / size, "copies")?;
        }
        let each = self.leechers_sent as f64 / size / f64::from(args.leechers);
        sink.sample([WORKLOAD, "leechers, each on average", "copies sent"], round, each, "copies")?;
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn limit_s(words: &str) -> f64 {
        fluid_s(&args(words))
    }

    fn args(words: &str) -> SwarmArgs {
        let words = ["bench", "swarm", "--size", "64M", "--uplink", "1M"].into_iter().chain(words.split(' '));
        let Command::Swarm(args) = Cli::parse_from(words).command else { panic!("another command") };
        args
    }

    #[test]
    fn what_is_possible_is_bounded_by_the_first_copy_and_by_all_copies() {
        let is = |words, expected: f64| assert!((limit_s(words) - expected).abs() < 1e-9, "{words}");
        // One seeder: the first copy, however many leechers.
        is("--seeders 1 --leechers 1", 64.0);
        is("--seeders 1 --leechers 16", 64.0);
        // Several: each sends its part once, and then all uplinks carry what is left.
        is("--seeders 4 --leechers 1", 16.0);
        is("--seeders 3 --leechers 13", 13.0 * 64.0 / 16.0);
    }

    #[test]
    fn downloads_have_a_limit_that_can_be_told() {
        let allowed = |words: &str| limit(&args(words)).as_secs_f64();
        assert!((allowed("--seeders 1 --leechers 1") - (60.0 + 20.0 * 64.0)).abs() < 1e-6);
        assert!((allowed("--seeders 4 --leechers 1 --limit 1.5") - 24.0).abs() < 1e-6);
    }
}
