//! `bench swarm`: how close a swarm comes to the fluid limit.
//!
//! Every byte must leave the seeders once, and all copies together must leave through all uplinks. The fluid limit is
//! the longer of these two times, given uplinks of u bytes a second and downlinks that are no bottleneck (Kumar and
//! Ross, "Peer-assisted file distribution: the minimum distribution time"). Finish times are multiples of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::cli::SwarmArgs;
use crate::clock;
use crate::limits::{DOWNLOAD_WAIT_S, ROUND_MAX_S, SWARM_LIMIT_FACTOR};
use crate::report;
use crate::results::sink::RecordSink;
use crate::topology::binaries::ShoalBinaries;
use crate::topology::netns::{
    MEMORY_FOLDER, NamespaceEntry, SwarmHost, create_bridge, enter_namespaces, mount_memory,
};
use crate::topology::other_load::OtherLoad;
use crate::topology::shoal::{RunningDownload, ShoalNet, ShoalNode};
use crate::topology::test_file::TestFile;
use crate::topology::usage::{RoundPids, RoundWatch};
use crate::topology::warm_up;

const WORKLOAD: &str = "swarm";

const GROUP: &str = "bench";

/// Runs `bench swarm` in namespaces. Where they are refused, the run is recorded as skipped.
pub(crate) fn run_swarm(args: &SwarmArgs) -> anyhow::Result<()> {
    let begin = || {
        let settings = [
            ("uplink", format!("{} bytes/s", args.uplink.bytes())),
            ("seeders", args.seeders.to_string()),
            ("leechers", args.leechers.to_string()),
            ("fluid limit", format!("{:.3} s", fluid_limit_s(args))),
            ("rounds", args.runs.to_string()),
        ];
        RecordSink::begin(args.output.record_output(), "swarm", Some(args.size.bytes()), &settings)
    };
    let binaries = ShoalBinaries::find(args.bin.bin.as_deref())?;
    // The run's own tmpfs would hide programs that lie on the machine's.
    let lie_in_memory =
        [&binaries.tracker, &binaries.client].iter().any(|program| program.starts_with(MEMORY_FOLDER));
    let hidden = lie_in_memory.then_some(Path::new(MEMORY_FOLDER));
    let given = match enter_namespaces(args.dir.as_deref().or(hidden))? {
        NamespaceEntry::Inside(given) => given,
        NamespaceEntry::Done(status) if status.success() => return Ok(()),
        NamespaceEntry::Done(status) => {
            bail!("the harness inside the namespaces ended with {status}")
        }
        NamespaceEntry::Refused(why) => {
            let mut sink = begin()?;
            sink.record_skipped([WORKLOAD, "shoal"], &why)?;
            return report::finish_run(sink);
        }
    };
    let mut sink = begin()?;
    let center = create_bridge()?;
    let dir = match given {
        Some(given) => given,
        None => mount_memory()?,
    };
    let folder = TempDir::with_prefix_in("shoal-swarm-", &dir)
        .with_context(|| format!("cannot create a folder in {}: choose another --dir", dir.display()))?;
    let content = TestFile::create(folder.path().join("swarm.bin"), args.size.bytes())?;
    let mut lost = 0;
    for round in 0..args.warmup + args.runs {
        warm_up::touch_memory(args.size.bytes().saturating_mul(u64::from(args.leechers)));
        let place = folder.path().join("round");
        let other_load = OtherLoad::start();
        let outcome =
            SwarmRound { args, binaries: &binaries, place: &place, content: &content, center }.run();
        let counted = round.checked_sub(args.warmup);
        match outcome {
            Ok(outcome) => {
                lost += outcome.record(&mut sink, counted, args)?;
                if counted.is_some() {
                    sink.add_other_load(other_load.busy_cpus());
                }
            }
            Err(fault) => {
                sink.record_failed([WORKLOAD, "shoal"], &format!("{fault:#}"))?;
                lost += 1;
                break;
            }
        }
    }
    report::finish_run(sink)?;
    if lost > 0 {
        bail!("{lost} downloads failed: see the `failed` lines");
    }
    Ok(())
}

/// The minimum time in which all leechers can have the file, in seconds.
fn fluid_limit_s(args: &SwarmArgs) -> f64 {
    let (size, uplink) = (args.size.bytes() as f64, args.uplink.bytes() as f64);
    let (seeders, leechers) = (f64::from(args.seeders), f64::from(args.leechers));
    let first_copy_s = size / (seeders * uplink);
    let all_copies_s = leechers * size / ((seeders + leechers) * uplink);
    first_copy_s.max(all_copies_s)
}

/// The time limit of a round's downloads.
fn round_limit(args: &SwarmArgs) -> Duration {
    let seconds = match args.limit {
        Some(multiple) => multiple * fluid_limit_s(args),
        None => ROUND_MAX_S as f64 + SWARM_LIMIT_FACTOR * fluid_limit_s(args),
    };
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

struct SwarmRound<'a> {
    args: &'a SwarmArgs,
    binaries: &'a ShoalBinaries,
    place: &'a Path,
    content: &'a TestFile,
    center: Ipv4Addr,
}

/// The measurements of a round.
struct SwarmOutcome {
    /// For each leecher, from the start of the round to its durable copy, or its failure.
    finished: Vec<anyhow::Result<Duration>>,
    /// Bytes that each seeder has sent.
    seeders_sent: Vec<u64>,
    /// Bytes that all leechers have sent.
    leechers_sent: u64,
}

impl SwarmRound<'_> {
    fn run(&self) -> anyhow::Result<SwarmOutcome> {
        let shoal = ShoalNet::start_at(IpAddr::V4(self.center), self.binaries, self.place, &[])?;
        let count = self.args.seeders + self.args.leechers;
        let hosts = (0..count)
            .map(|number| SwarmHost::new(number, self.args.uplink.bytes()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (seeding, leeching) = hosts.split_at(usize::from(self.args.seeders));
        let mut seeders = Vec::new();
        for (at, host) in seeding.iter().enumerate() {
            let node = start_member(&shoal, host, if at == 0 { "create_group" } else { "join_group" })?;
            node.share(GROUP, &self.content.path)?;
            seeders.push(node);
        }
        // From here on a failure costs one leecher its copy, not the round.
        let leechers: Vec<_> = leeching.iter().map(|host| start_member(&shoal, host, "join_group")).collect();
        let before = read_sent_bytes(&hosts)?;
        let finished = self.run_downloads(leechers)?;
        let mut sent: Vec<u64> =
            read_sent_bytes(&hosts)?.iter().zip(before).map(|(after, before)| after - before).collect();
        let leechers_sent = sent.split_off(seeders.len()).iter().sum();
        let check = |(at, took): (usize, anyhow::Result<Duration>)| {
            took.and_then(|took| self.content.check_copy(&self.copy_path(at)).map(|()| took))
        };
        let finished = finished.into_iter().enumerate().map(check).collect();
        Ok(SwarmOutcome { finished, seeders_sent: sent, leechers_sent })
    }

    fn copy_path(&self, leecher: usize) -> PathBuf {
        self.place.join(format!("copy{}", leecher + 1))
    }

    /// Downloads by all leechers at once; the time of each until its file was durable. Nodes serve until the last one
    /// is done.
    fn run_downloads(
        &self,
        leechers: Vec<anyhow::Result<ShoalNode>>,
    ) -> anyhow::Result<Vec<anyhow::Result<Duration>>> {
        let name = self.content.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let began = clock::now();
        let (mut nodes, mut downloads) = (Vec::new(), Vec::new());
        for (at, node) in leechers.into_iter().enumerate() {
            downloads.push(node.and_then(|node| {
                let since = clock::now().saturating_sub(began);
                let download = node.start_download_with(
                    &["--wait", DOWNLOAD_WAIT_S],
                    GROUP,
                    &name,
                    &self.copy_path(at),
                )?;
                nodes.push(node);
                Ok((since, download))
            }));
        }
        let download_pids: Vec<u32> =
            downloads.iter().flatten().map(|(_, download)| download.pid()).collect();
        let watch = RoundWatch::start(RoundPids::default(), &download_pids, round_limit(self.args))?;
        let finished = |(since, download): (Duration, RunningDownload)| {
            let (figures, _) = download.finish().map_err(|fault| explain_timeout(fault, &watch))?;
            Ok(since + figures.durable)
        };
        Ok(downloads.into_iter().map(|download| download.and_then(finished)).collect())
    }
}

/// A node on a host, logged in and a member of the group.
fn start_member(shoal: &ShoalNet, host: &SwarmHost, joins: &str) -> anyhow::Result<ShoalNode> {
    let user = format!("user{}", host.number);
    shoal.create_user(&user)?;
    let node = shoal.node_at(&user, IpAddr::V4(host.address), |program| host.command(program))?;
    node.run(&[joins, GROUP])?;
    Ok(node)
}

/// Adds the time limit to a failure if it is over by now.
fn explain_timeout(fault: anyhow::Error, watch: &RoundWatch) -> anyhow::Error {
    match watch.timeout_reason() {
        Some(reason) => anyhow::anyhow!("{fault:#}; {reason}: raise it with --limit"),
        None => fault,
    }
}

fn read_sent_bytes(hosts: &[SwarmHost]) -> anyhow::Result<Vec<u64>> {
    hosts.iter().map(SwarmHost::sent_bytes).collect()
}

impl SwarmOutcome {
    /// Records a measured round, and the failures of any round. Gives the number of failures.
    fn record(&self, sink: &mut RecordSink, round: Option<u32>, args: &SwarmArgs) -> anyhow::Result<usize> {
        let (size, limit_s, unit) = (args.size.bytes() as f64, fluid_limit_s(args), "x fluid limit");
        let mut last: f64 = 0.0;
        for (at, took) in self.finished.iter().enumerate() {
            let leecher = format!("leecher {:02}", at + 1);
            match (took, round) {
                (Err(fault), _) => sink.record_failed([WORKLOAD, &leecher], &format!("{fault:#}"))?,
                (Ok(took), Some(round)) => {
                    let multiple = took.as_secs_f64() / limit_s;
                    last = last.max(multiple);
                    sink.record_sample([WORKLOAD, &leecher, "finish"], round, multiple, unit)?;
                }
                (Ok(_), None) => {}
            }
        }
        let lost = self.finished.iter().filter(|took| took.is_err()).count();
        let Some(round) = round else { return Ok(lost) };
        // Without every leecher, the last finish would not be the swarm's.
        if lost == 0 {
            sink.record_sample([WORKLOAD, "shoal", "last finish"], round, last, unit)?;
        }
        for (at, sent) in self.seeders_sent.iter().enumerate() {
            let kind = format!("seeder {}", at + 1);
            sink.record_sample([WORKLOAD, &kind, "copies sent"], round, *sent as f64 / size, "copies")?;
        }
        let each = self.leechers_sent as f64 / size / f64::from(args.leechers);
        sink.record_sample([WORKLOAD, "leechers, each on average", "copies sent"], round, each, "copies")?;
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{BenchCli, BenchCommand};

    fn limit_s(words: &str) -> f64 {
        fluid_limit_s(&args(words))
    }

    fn args(words: &str) -> SwarmArgs {
        let words = ["bench", "swarm", "--size", "64M", "--uplink", "1M"].into_iter().chain(words.split(' '));
        let BenchCommand::Swarm(args) = BenchCli::parse_from(words).command else {
            panic!("another command")
        };
        args
    }

    #[test]
    fn the_fluid_limit_is_the_longer_of_first_copy_and_all_copies() {
        let is = |words, expected: f64| assert!((limit_s(words) - expected).abs() < 1e-9, "{words}");
        // One seeder: the first copy, with any number of leechers.
        is("--seeders 1 --leechers 1", 64.0);
        is("--seeders 1 --leechers 16", 64.0);
        // Several: each sends its part once, then all uplinks carry the rest.
        is("--seeders 4 --leechers 1", 16.0);
        is("--seeders 3 --leechers 13", 13.0 * 64.0 / 16.0);
    }

    #[test]
    fn the_time_limit_follows_the_options() {
        let allowed = |words: &str| round_limit(&args(words)).as_secs_f64();
        assert!((allowed("--seeders 1 --leechers 1") - (60.0 + 20.0 * 64.0)).abs() < 1e-6);
        assert!((allowed("--seeders 4 --leechers 1 --limit 1.5") - 24.0).abs() < 1e-6);
    }
}
