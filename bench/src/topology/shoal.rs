//! A tracker and nodes, run as the real programs on port 0, in a folder of their own.
//!
//! Invariant: every process ends when its value is dropped.

use std::io::BufRead as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::binaries::{ShoalBinaries, with_clean_environment};
use super::spawned::{self, ProgramExit, SpawnedProgram};
use crate::clock;

/// The password of every user: the tracker is reachable only during the run.
const PASSWORD: &str = "password";

/// The address of programs on a single host.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A running tracker, and what it takes to start nodes for it.
pub(crate) struct ShoalNet {
    binaries: ShoalBinaries,
    place: PathBuf,
    /// Options of every node.
    options: Vec<String>,
    tracker: SpawnedProgram,
}

/// A running node, logged in as a user.
pub(crate) struct ShoalNode {
    client: PathBuf,
    place: PathBuf,
    user: String,
    spawned: SpawnedProgram,
}

/// A running download command, and the thread that reads its output.
pub(crate) struct RunningDownload {
    command: SpawnedProgram,
    reader: JoinHandle<anyhow::Result<DownloadFigures>>,
}

impl RunningDownload {
    pub(crate) fn pid(&self) -> u32 {
        self.command.pid()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The command's failure, or output that cannot be read.
    pub(crate) fn finish(mut self) -> anyhow::Result<(DownloadFigures, ProgramExit)> {
        let figures =
            self.reader.join().map_err(|_| anyhow::anyhow!("the thread that reads a download panicked"))?;
        let ended = self.command.wait_for_success()?;
        Ok((figures?, ended))
    }
}

/// The figures of one download.
#[derive(Debug)]
pub(crate) struct DownloadFigures {
    /// From the start of the command until all pieces were verified and written.
    pub(crate) proven: Duration,
    /// From the start of the command until the file was durable.
    pub(crate) durable: Duration,
    /// Milliseconds since the start of the command, and bytes verified by then.
    pub(crate) progress: Vec<(f64, f64)>,
    /// The client's final JSON row.
    pub(crate) row: Value,
    /// From the start of the command until the node began the download.
    pub(crate) begun: Duration,
}

impl ShoalNet {
    /// Starts a tracker in `place`, on the loopback address.
    pub(crate) fn start(
        binaries: &ShoalBinaries,
        place: &Path,
        options: &[String],
    ) -> anyhow::Result<ShoalNet> {
        ShoalNet::start_at(LOOPBACK, binaries, place, options)
    }

    /// Starts a tracker at an address that other hosts reach.
    pub(crate) fn start_at(
        address: IpAddr,
        binaries: &ShoalBinaries,
        place: &Path,
        options: &[String],
    ) -> anyhow::Result<ShoalNet> {
        let place = spawned::create_empty_folder(place.to_owned())?;
        let founding = place.join("founding.txt");
        std::fs::write(&founding, format!("{address} 0\n"))?;
        let mut command = with_clean_environment(Command::new(&binaries.tracker));
        command.arg(&founding).arg("1").arg("--data").arg(place.join("tracker_data")).current_dir(&place);
        let (tracker, address) =
            SpawnedProgram::start_ready("tracker", &command, &place, "tracker listening on ")?;
        let address: SocketAddr = address.parse().context("the tracker did not print its address")?;
        std::fs::write(place.join("tracker_info.txt"), format!("{} {}\n", address.ip(), address.port()))?;
        Ok(ShoalNet { binaries: binaries.clone(), place, options: options.to_vec(), tracker })
    }

    pub(crate) fn tracker_pid(&self) -> u32 {
        self.tracker.pid()
    }

    /// Creates an account.
    pub(crate) fn create_user(&self, user: &str) -> anyhow::Result<()> {
        let state = self.place.join(format!("makes-{user}"));
        let mut command = client_command(Command::new(&self.binaries.client), &self.place, &state);
        run_client(&format!("create_user {user}"), command.args(["create_user", user, PASSWORD]))?;
        std::fs::remove_dir_all(state).context("a command leaves a state directory")
    }

    /// A new node with an empty state directory, logged in as an existing user.
    pub(crate) fn node(&self, user: &str) -> anyhow::Result<ShoalNode> {
        self.node_at(user, LOOPBACK, |program| Command::new(program))
    }

    /// A new node on a host with this address, where `call` makes the command of a program.
    pub(crate) fn node_at(
        &self,
        user: &str,
        address: IpAddr,
        call: impl FnOnce(&Path) -> Command,
    ) -> anyhow::Result<ShoalNode> {
        let state = spawned::create_empty_folder(self.place.join(user))?;
        let mut command = client_command(call(&self.binaries.client), &self.place, &state);
        command.args(["--listen", &address.to_string()]).args(&self.options).arg("serve");
        let prefix = r#"{"address":""#;
        let (spawned, _) = SpawnedProgram::start_ready(user, &command, &self.place, prefix)?;
        let (client, place, user) = (self.binaries.client.clone(), self.place.clone(), user.to_owned());
        let node = ShoalNode { client, place, user, spawned };
        node.run(&["login", &node.user, PASSWORD])?;
        Ok(node)
    }
}

impl ShoalNode {
    pub(crate) fn pid(&self) -> u32 {
        self.spawned.pid()
    }

    /// Ends the process. Its state directory stays, and the file is no longer mapped.
    pub(crate) fn stop(&mut self) {
        self.spawned.terminate();
    }

    /// Starts the process again with these options. Its user and shares are restored.
    pub(crate) fn restart(&mut self, options: &[String]) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args(["--listen", "127.0.0.1"]).args(options).arg("serve");
        let (spawned, _) = SpawnedProgram::start_ready(&self.user, &command, &self.place, r#"{"address":""#)?;
        self.spawned = spawned;
        Ok(())
    }

    /// How many other peers have the complete file, as the tracker reports to this node.
    pub(crate) fn seeders_of(&self, group: &str, file: &str) -> anyhow::Result<usize> {
        let answer = self.run(&["get_peers", group, file])?;
        let peers = answer["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(peers.iter().filter(|peer| peer["complete"] == true).count())
    }

    /// Runs a client command for this node and returns the last JSON line of its output.
    pub(crate) fn run(&self, words: &[&str]) -> anyhow::Result<Value> {
        let name = format!("{} of {}", words.first().unwrap_or(&""), self.user);
        run_client(&name, self.command().args(words))
    }

    fn command(&self) -> Command {
        client_command(Command::new(&self.client), &self.place, &self.place.join(&self.user))
    }

    /// Hashes and shares a file in a group.
    pub(crate) fn share(&self, group: &str, path: &Path) -> anyhow::Result<()> {
        self.run(&["upload_file", group, &path.to_string_lossy()]).map(drop)
    }

    /// Starts to download a file into a folder.
    pub(crate) fn start_download(
        &self,
        group: &str,
        file: &str,
        into: &Path,
    ) -> anyhow::Result<RunningDownload> {
        self.start_download_with(&[], group, file, into)
    }

    /// Starts a download with options of the client.
    pub(crate) fn start_download_with(
        &self,
        options: &[&str],
        group: &str,
        file: &str,
        into: &Path,
    ) -> anyhow::Result<RunningDownload> {
        let mut command = self.command();
        command.args(options).args(["download_file", group, file]).arg(into);
        let began = clock::now();
        let name = format!("download-{}", self.user);
        let (command, mut lines) = SpawnedProgram::start_piped(&name, &command, &self.place)?;
        let follow = move || {
            let mut progress = vec![(0.0, 0.0)];
            let mut line = String::new();
            while lines.read_line(&mut line)? > 0 {
                let at = clock::now().saturating_sub(began);
                let row: Value =
                    serde_json::from_str(&line).context("the client printed a line that is not JSON")?;
                if let Some(verified) = row.get("verified_bytes").and_then(Value::as_f64) {
                    progress.push((at.as_secs_f64() * 1e3, verified));
                }
                match row.get("result").and_then(Value::as_str) {
                    None => {}
                    Some("downloaded") => return parse_figures(at, progress, row),
                    Some(_) => bail!("the download ended with another result: {}", line.trim()),
                }
                line.clear();
            }
            bail!("the download ended without a result")
        };
        Ok(RunningDownload { command, reader: std::thread::Builder::new().name(name).spawn(follow)? })
    }

    /// Logs out, so that the tracker no longer lists this node, and ends it.
    pub(crate) fn log_out(self) -> anyhow::Result<()> {
        self.run(&["logout"]).map(drop)
    }
}

/// Reads the figures of a download's final row, printed `at` this time after the start of its command.
fn parse_figures(at: Duration, mut progress: Vec<(f64, f64)>, row: Value) -> anyhow::Result<DownloadFigures> {
    let span = |name: &str| {
        let micros = row.get("figures").and_then(|figures| figures.get(name)).and_then(Value::as_u64);
        let missing = || format!("the client's last line has no figures.{name}: it is an older version");
        micros.map(Duration::from_micros).with_context(missing)
    };
    let begun = at.saturating_sub(span("age_us")?);
    let (proven, durable) = (begun + span("proven_us")?, begun + span("durable_us")?);
    let total = row.get("total_bytes").and_then(Value::as_f64).unwrap_or(0.0);
    progress.retain(|(ms, bytes)| *ms < proven.as_secs_f64() * 1e3 && *bytes < total);
    progress.push((proven.as_secs_f64() * 1e3, total));
    Ok(DownloadFigures { proven, durable, progress, row, begun })
}

fn client_command(command: Command, place: &Path, state: &Path) -> Command {
    let mut command = with_clean_environment(command);
    command.current_dir(place).env("XDG_CONFIG_HOME", place.join("no-config"));
    command.arg("--json").arg("--state").arg(state).arg("--trackers").arg(place.join("tracker_info.txt"));
    command
}

fn run_client(name: &str, command: &mut Command) -> anyhow::Result<Value> {
    let text = spawned::run_program(name, command)?;
    let last = text.lines().last().with_context(|| format!("{name} printed nothing"))?;
    serde_json::from_str(last).with_context(|| format!("{name} printed {last:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_start_of_the_command() {
        let row = serde_json::json!({
            "total_bytes": 8, "figures": {"age_us": 900, "proven_us": 500, "durable_us": 700}
        });
        let fetched =
            parse_figures(Duration::from_micros(1_000), vec![(0.0, 0.0), (0.3, 4.0), (0.9, 8.0)], row)
                .unwrap();
        assert_eq!(fetched.begun, Duration::from_micros(100));
        assert_eq!(fetched.proven, Duration::from_micros(600));
        assert_eq!(fetched.durable, Duration::from_micros(800));
        assert_eq!(fetched.progress, [(0.0, 0.0), (0.3, 4.0), (0.6, 8.0)]);
    }

    #[test]
    fn a_client_without_figures_is_reported_as_older() {
        let fault = parse_figures(Duration::ZERO, vec![], serde_json::json!({})).unwrap_err();
        assert!(fault.to_string().contains("older version"), "{fault}");
    }
}
