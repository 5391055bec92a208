//! `bench swarm`: how near a swarm comes to what is possible.
//!
//! Hosts that send at most u bytes a second each cannot all have a file sooner than size / u: somebody has to send each byte
//! for the first time, and the first seeder can do no faster (the fluid limit, for one seeder and downlinks that are
//! not the narrow place). Each finish is given as a multiple of that.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::cli::SwarmArgs;
use crate::clock;
use crate::report;
use crate::results::sink::Sink;
use crate::topology::binaries::Binaries;
use crate::topology::content::Content;
use crate::topology::load::Load;
use crate::topology::netns::{Entered, Host, MEMORY, bridge, enter, own_memory};
use crate::topology::spawned::{self, Spawned};

/// The workload's name in records.
const WORKLOAD: &str = "swarm";

/// Everybody's password.
const PASSWORD: &str = "password";

/// The group of the file.
const GROUP: &str = "bench";

/// A download that makes no progress this long, in seconds, has failed.
const WAIT_S: &str = "60";

/// Measures and reports, in namespaces; without them it says why not.
pub(crate) fn run(args: &SwarmArgs) -> anyhow::Result<()> {
    let begin = || {
        let settings = [
            ("uplink", format!("{} bytes/s", args.uplink.bytes())),
            ("seeders", args.seeders.to_string()),
            ("leechers", args.leechers.to_string()),
            ("rounds", args.runs.to_string()),
        ];
        Sink::begin(args.output.wanted(), "swarm", Some(args.size.bytes()), &settings)
    };
    let binaries = Binaries::find(args.bin.as_deref())?;
    // Memory of the run's own would hide the programs that lie in the machine's.
    let hidden = binaries.tracker.starts_with(MEMORY).then_some(Path::new(MEMORY));
    let given = match enter(args.dir.as_deref().or(hidden))? {
        Entered::Inside(given) => given,
        Entered::Done(status) if status.success() => return Ok(()),
        Entered::Done(status) => {
            anyhow::bail!("the part that ran in namespaces of its own ended with {status}")
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
    for round in 0..args.warmup + args.runs {
        let place = spawned::folder(folder.path().join("round"))?;
        let others = Load::start();
        let round_of = Round { args, binaries: &binaries, place: &place, content: &content, center };
        let outcome = round_of.run()?;
        if let Some(counted) = round.checked_sub(args.warmup) {
            sink.other_load(others.others());
            outcome.note(&mut sink, counted, args)?;
        }
    }
    report::conclude(sink)
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
    /// From the start of all to the end of each, in the order of the hosts.
    finished: Vec<Duration>,
    /// Bytes that left each seeder.
    seeders_sent: Vec<u64>,
    /// Bytes that left all leechers.
    leechers_sent: u64,
}

/// A node on a host.
struct Node {
    host: Host,
    state: PathBuf,
    _running: Spawned,
}

impl Round<'_> {
    fn run(&self) -> anyhow::Result<Outcome> {
        let file = self.place.join("founding.txt");
        fs::write(&file, format!("{} 0\n", self.center))?;
        let mut command = Command::new(&self.binaries.tracker);
        command.arg(&file).arg("1").arg("--data").arg(self.place.join("tracker")).current_dir(self.place);
        let (_tracker, address) =
            Spawned::start_ready("tracker", &command, self.place, "tracker listening on ")?;
        let (ip, port) = address.rsplit_once(':').context("the tracker did not say where it listens")?;
        fs::write(self.place.join("tracker_info.txt"), format!("{ip} {port}\n"))?;
        let count = self.args.seeders + self.args.leechers;
        let nodes = (0..count).map(|number| self.node(number)).collect::<anyhow::Result<Vec<_>>>()?;
        let (seeders, leechers) = nodes.split_at(usize::from(self.args.seeders));
        for (at, seeder) in seeders.iter().enumerate() {
            self.tell(seeder, &[if at == 0 { "create_group" } else { "join_group" }, GROUP])?;
            self.tell(seeder, &["upload_file", GROUP, &self.content.path.to_string_lossy()])?;
        }
        for leecher in leechers {
            self.tell(leecher, &["join_group", GROUP])?;
        }
        let before = sent(&nodes)?;
        let finished = self.fetch(leechers)?;
        let mut sent: Vec<u64> =
            sent(&nodes)?.iter().zip(before).map(|(after, before)| after - before).collect();
        let leechers_sent = sent.split_off(seeders.len()).iter().sum();
        for (at, _) in leechers.iter().enumerate() {
            self.content.check(&self.copy(at))?;
        }
        Ok(Outcome { finished, seeders_sent: sent, leechers_sent })
    }

    fn node(&self, number: u8) -> anyhow::Result<Node> {
        let host = Host::new(number, self.args.uplink.bytes())?;
        let user = format!("user{number}");
        let state = spawned::folder(self.place.join(&user))?;
        let mut command = host.command(&self.binaries.client);
        self.options(&mut command, &state).args(["--listen", &host.address.to_string(), "serve"]);
        let (running, _) = Spawned::start_ready(&user, &command, self.place, "{\"address\":\"")?;
        let node = Node { host, state, _running: running };
        self.tell(&node, &["create_user", &user, PASSWORD])?;
        self.tell(&node, &["login", &user, PASSWORD])?;
        Ok(node)
    }

    fn options<'c>(&self, command: &'c mut Command, state: &Path) -> &'c mut Command {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("SHOAL_")) {
                command.env_remove(name);
            }
        }
        command.current_dir(self.place).env("XDG_CONFIG_HOME", self.place.join("no-config"));
        command
            .arg("--json")
            .arg("--state")
            .arg(state)
            .arg("--trackers")
            .arg(self.place.join("tracker_info.txt"))
    }

    /// A command beside a node. It speaks to the node by its socket, so it needs no host.
    fn tell(&self, node: &Node, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binaries.client);
        self.options(&mut command, &node.state).args(words);
        spawned::output(words[0], &mut command).map(drop)
    }

    fn copy(&self, leecher: usize) -> PathBuf {
        self.place.join(format!("copy{leecher}"))
    }

    /// All leechers at once; how long each took until its file was durable.
    fn fetch(&self, leechers: &[Node]) -> anyhow::Result<Vec<Duration>> {
        let name =
            self.content.path.file_name().context("the file has a name")?.to_string_lossy().into_owned();
        let began = clock::now();
        let mut running = Vec::new();
        for (at, leecher) in leechers.iter().enumerate() {
            let mut command = Command::new(&self.binaries.client);
            self.options(&mut command, &leecher.state).args([
                "--wait",
                WAIT_S,
                "download_file",
                GROUP,
                &name,
            ]);
            command.arg(self.copy(at));
            running.push(Spawned::start(&format!("download{at}"), &command, self.place)?);
        }
        let waits: Vec<_> = running
            .into_iter()
            .map(|mut download| {
                std::thread::spawn(move || download.succeed().map(|_| clock::now().saturating_sub(began)))
            })
            .collect();
        waits
            .into_iter()
            .map(|wait| {
                wait.join().map_err(|_| anyhow::anyhow!("a thread that waits for a download ended"))?
            })
            .collect()
    }
}

fn sent(nodes: &[Node]) -> anyhow::Result<Vec<u64>> {
    nodes.iter().map(|node| node.host.sent_bytes()).collect()
}

impl Outcome {
    fn note(&self, sink: &mut Sink, round: u32, args: &SwarmArgs) -> anyhow::Result<()> {
        let size = args.size.bytes() as f64;
        let limit_s = size / args.uplink.bytes() as f64;
        let multiples: Vec<f64> = self.finished.iter().map(|took| took.as_secs_f64() / limit_s).collect();
        for (at, multiple) in multiples.iter().enumerate() {
            sink.sample(
                [WORKLOAD, &format!("leecher {:02}", at + 1), "finish"],
                round,
                *multiple,
                "x size/uplink",
            )?;
        }
        let last = multiples.iter().copied().fold(0.0, f64::max);
        sink.sample([WORKLOAD, "shoal", "last finish"], round, last, "x size/uplink")?;
        for (at, sent) in self.seeders_sent.iter().enumerate() {
            let kind = format!("seeder {}", at + 1);
            sink.sample([WORKLOAD, &kind, "copies sent"], round, *sent as f64 / size, "copies")?;
        }
        let each = self.leechers_sent as f64 / size / f64::from(args.leechers);
        sink.sample([WORKLOAD, "leechers, each on average", "copies sent"], round, each, "copies")
    }
}
