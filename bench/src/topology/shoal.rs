//! A tracker and nodes, through the real programs: everything on port 0, in a folder of its own.
//!
//! Invariant: whatever is started is ended when its value is dropped.

use std::io::BufRead as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::binaries::{Binaries, undisturbed};
use super::spawned::{self, Ended, Spawned};
use crate::clock;

/// Every user's password: nobody else ever sees this tracker.
const PASSWORD: &str = "password";

/// Where programs listen that need no other host.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A tracker, and what it takes to start nodes beside it.
pub(crate) struct Shoal {
    binaries: Binaries,
    place: PathBuf,
    /// Options of every node.
    options: Vec<String>,
    tracker: Spawned,
}

/// A running node with a user who is logged in.
pub(crate) struct Node {
    client: PathBuf,
    place: PathBuf,
    user: String,
    spawned: Spawned,
}

/// A download under way: its command, and a thread that follows what it says.
pub(crate) struct Download {
    command: Spawned,
    follow: JoinHandle<anyhow::Result<Fetched>>,
}

impl Download {
    /// The command's process.
    pub(crate) fn pid(&self) -> u32 {
        self.command.pid()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not succeed, and why; the command says that best.
    pub(crate) fn finish(mut self) -> anyhow::Result<(Fetched, Ended)> {
        let told = self.follow.join().map_err(|_| anyhow::anyhow!("what follows a download panicked"))?;
        let ended = self.command.succeed()?;
        Ok((told?, ended))
    }
}

/// What one download told.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// From the start of the command until all was proven and written.
    pub(crate) proven: Duration,
    /// From the start of the command until it was durable.
    pub(crate) durable: Duration,
    /// Milliseconds since the start of the command, and bytes proven by then.
    pub(crate) progress: Vec<(f64, f64)>,
    /// The final row, as the client says it.
    pub(crate) row: Value,
    /// From the start of the command until the node took it up.
    pub(crate) begun: Duration,
}

impl Shoal {
    /// Starts a tracker in `place`, with this machine alone as its network.
    pub(crate) fn start(binaries: &Binaries, place: &Path, options: &[String]) -> anyhow::Result<Shoal> {
        Shoal::start_at(LOOPBACK, binaries, place, options)
    }

    /// The same at an address that other hosts reach.
    pub(crate) fn start_at(
        address: IpAddr,
        binaries: &Binaries,
        place: &Path,
        options: &[String],
    ) -> anyhow::Result<Shoal> {
        let place = spawned::folder(place.to_owned())?;
        let founding = place.join("founding.txt");
        std::fs::write(&founding, format!("{address} 0\n"))?;
        let mut command = undisturbed(Command::new(&binaries.tracker));
        command.arg(&founding).arg("1").arg("--data").arg(place.join("tracker_data")).current_dir(&place);
        let (tracker, address) = Spawned::start_ready("tracker", &command, &place, "tracker listening on ")?;
        let address: SocketAddr = address.parse().context("the tracker did not say where it listens")?;
        std::fs::write(place.join("tracker_info.txt"), format!("{} {}\n", address.ip(), address.port()))?;
        Ok(Shoal { binaries: binaries.clone(), place, options: options.to_vec(), tracker })
    }

    /// The tracker's process.
    pub(crate) fn tracker_pid(&self) -> u32 {
        self.tracker.pid()
    }

    /// Makes an account.
    pub(crate) fn create_user(&self, user: &str) -> anyhow::Result<()> {
        let state = self.place.join(format!("makes-{user}"));
        let mut command = client(Command::new(&self.binaries.client), &self.place, &state);
        run(&format!("create_user {user}"), command.args(["create_user", user, PASSWORD]))?;
        std::fs::remove_dir_all(state).context("a command leaves a state directory")
    }

    /// A new node for a user that there is, in a state directory as on the first day.
    pub(crate) fn node(&self, user: &str) -> anyhow::Result<Node> {
        self.node_at(user, LOOPBACK, |program| Command::new(program))
    }

    /// The same on a host with this address, where programs are called so.
    pub(crate) fn node_at(
        &self,
        user: &str,
        address: IpAddr,
        call: impl FnOnce(&Path) -> Command,
    ) -> anyhow::Result<Node> {
        let state = spawned::folder(self.place.join(user))?;
        let mut command = client(call(&self.binaries.client), &self.place, &state);
        command.args(["--listen", &address.to_string()]).args(&self.options).arg("serve");
        let prefix = r#"{"address":""#;
        let (spawned, _) = Spawned::start_ready(user, &command, &self.place, prefix)?;
        let (client, place, user) = (self.binaries.client.clone(), self.place.clone(), user.to_owned());
        let node = Node { client, place, user, spawned };
        node.run(&["login", &node.user, PASSWORD])?;
        Ok(node)
    }
}

impl Node {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.spawned.pid()
    }

    /// Ends its process; what it knows stays, and nothing is mapped any more.
    pub(crate) fn sleep(&mut self) {
        self.spawned.end();
    }

    /// Starts its process again with these options, where it has its user and its shares at once.
    pub(crate) fn wake(&mut self, options: &[String]) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args(["--listen", "127.0.0.1"]).args(options).arg("serve");
        let (spawned, _) = Spawned::start_ready(&self.user, &command, &self.place, r#"{"address":""#)?;
        self.spawned = spawned;
        Ok(())
    }

    /// How many others have all of a file, as the tracker tells this node.
    pub(crate) fn seeders_of(&self, group: &str, file: &str) -> anyhow::Result<usize> {
        let told = self.run(&["get_peers", group, file])?;
        let peers = told["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(peers.iter().filter(|peer| peer["complete"] == true).count())
    }

    /// Runs a command beside it; gives the last line that it says.
    pub(crate) fn run(&self, words: &[&str]) -> anyhow::Result<Value> {
        let name = format!("{} of {}", words.first().unwrap_or(&""), self.user);
        run(&name, self.command().args(words))
    }

    fn command(&self) -> Command {
        client(Command::new(&self.client), &self.place, &self.place.join(&self.user))
    }

    /// Hashes and shares a file in a group.
    pub(crate) fn share(&self, group: &str, path: &Path) -> anyhow::Result<()> {
        self.run(&["upload_file", group, &path.to_string_lossy()]).map(drop)
    }

    /// Starts to fetch a file into a folder.
    pub(crate) fn fetch(&self, group: &str, file: &str, into: &Path) -> anyhow::Result<Download> {
        self.fetch_by(&[], group, file, into)
    }

    /// The same with options of the client.
    pub(crate) fn fetch_by(
        &self,
        options: &[&str],
        group: &str,
        file: &str,
        into: &Path,
    ) -> anyhow::Result<Download> {
        let mut command = self.command();
        command.args(options).args(["download_file", group, file]).arg(into);
        let began = clock::now();
        let name = format!("download-{}", self.user);
        let (command, mut lines) = Spawned::start_read(&name, &command, &self.place)?;
        let follow = move || {
            let mut progress = vec![(0.0, 0.0)];
            let mut line = String::new();
            while lines.read_line(&mut line)? > 0 {
                let at = clock::now().saturating_sub(began);
                let said: Value =
                    serde_json::from_str(&line).context("the client said something else than JSON")?;
                if let Some(verified) = said.get("verified_bytes").and_then(Value::as_f64) {
                    progress.push((at.as_secs_f64() * 1e3, verified));
                }
                match said.get("result").and_then(Value::as_str) {
                    None => {}
                    Some("downloaded") => return fetched(at, progress, said),
                    Some(_) => bail!("the download ended otherwise: {}", line.trim()),
                }
                line.clear();
            }
            bail!("the download ended without a result")
        };
        Ok(Download { command, follow: std::thread::Builder::new().name(name).spawn(follow)? })
    }

    /// Logs out, so that nobody is sent here any more, and ends it.
    pub(crate) fn leave(self) -> anyhow::Result<()> {
        self.run(&["logout"]).map(drop)
    }
}

/// Reads the figures of a download's last line, which came `at` this time after the start of its command.
fn fetched(at: Duration, mut progress: Vec<(f64, f64)>, row: Value) -> anyhow::Result<Fetched> {
    let span = |name: &str| {
        let micros = row.get("figures").and_then(|figures| figures.get(name)).and_then(Value::as_u64);
        let missing = || format!("the client's last line has no figures.{name}: it is of an older version");
        micros.map(Duration::from_micros).with_context(missing)
    };
    let begun = at.saturating_sub(span("age_us")?);
    let (proven, durable) = (begun + span("proven_us")?, begun + span("durable_us")?);
    let total = row.get("total_bytes").and_then(Value::as_f64).unwrap_or(0.0);
    progress.retain(|(ms, bytes)| *ms < proven.as_secs_f64() * 1e3 && *bytes < total);
    progress.push((proven.as_secs_f64() * 1e3, total));
    Ok(Fetched { proven, durable, progress, row, begun })
}

fn client(command: Command, place: &Path, state: &Path) -> Command {
    let mut command = undisturbed(command);
    command.current_dir(place).env("XDG_CONFIG_HOME", place.join("no-config"));
    command.arg("--json").arg("--state").arg(state).arg("--trackers").arg(place.join("tracker_info.txt"));
    command
}

fn run(name: &str, command: &mut Command) -> anyhow::Result<Value> {
    let text = spawned::output(name, command)?;
    let last = text.lines().last().with_context(|| format!("{name} said nothing"))?;
    serde_json::from_str(last).with_context(|| format!("{name} said {last:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_placed_on_the_clock_of_the_command() {
        let row = serde_json::json!({
            "total_bytes": 8, "figures": {"age_us": 900, "proven_us": 500, "durable_us": 700}
        });
        let fetched =
            fetched(Duration::from_micros(1_000), vec![(0.0, 0.0), (0.3, 4.0), (0.9, 8.0)], row).unwrap();
        assert_eq!(fetched.begun, Duration::from_micros(100));
        assert_eq!(fetched.proven, Duration::from_micros(600));
        assert_eq!(fetched.durable, Duration::from_micros(800));
        assert_eq!(fetched.progress, [(0.0, 0.0), (0.3, 4.0), (0.6, 8.0)]);
    }

    #[test]
    fn a_client_without_figures_is_told_apart() {
        let fault = fetched(Duration::ZERO, vec![], serde_json::json!({})).unwrap_err();
        assert!(fault.to_string().contains("older version"), "{fault}");
    }
}
