//! Hosts of a swarm: a network namespace for each, on one bridge, with a limited uplink.
//!
//! ```text
//!   outer harness ─► setpriv ─► unshare (network, pids, mounts) ─► inner harness, process 1 of its namespace
//!        │                                                           │  bridge 10.77.0.1, the tracker
//!        └ its end, by any signal, ends all of them ────────────────►└─► hosts 10.77.0.2 …, one veth pair each
//! ```
//!
//! Invariant: the namespaces have no names outside and end with their first process. The kernel cleans up even if the
//! harness is killed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use rustix::process::geteuid;
use tempfile::TempDir;

use super::parent_death::end_with_parent;
use super::shutdown;
use crate::limits::{BURST_BYTES, QUEUE_MS};

/// Set for the inner harness. Its value is the folder for all copies.
const INSIDE_VARIABLE: &str = "SHOAL_BENCH_SWARM";

/// The bridge's name inside the namespace.
const BRIDGE: &str = "swarm";

/// The result of [`enter_namespaces`].
pub(crate) enum NamespaceEntry {
    /// This is the inner harness. The outer one has created this folder for all copies and removes it at the end.
    Inside(Option<PathBuf>),
    /// This is the outer harness, and the inner one has exited.
    Done(ExitStatus),
    /// Namespaces cannot be created; the reason.
    Refused(String),
}

/// Runs the harness again inside new namespaces, or reports that it is inside already. Copies lie in a folder below
/// `dir`, if one is given.
pub(crate) fn enter_namespaces(dir: Option<&Path>) -> anyhow::Result<NamespaceEntry> {
    if let Some(place) = std::env::var_os(INSIDE_VARIABLE) {
        return Ok(NamespaceEntry::Inside((!place.is_empty()).then(|| PathBuf::from(place))));
    }
    for tool in ["setpriv", "unshare", "nsenter", "ip", "tc"] {
        if Command::new(tool).arg("--version").stdin(Stdio::null()).output().is_err() {
            let package = if matches!(tool, "ip" | "tc") { "iproute2" } else { "util-linux" };
            return Ok(NamespaceEntry::Refused(format!("{tool} is not installed: `apt install {package}`")));
        }
    }
    let mut flags = vec!["--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
    if !geteuid().is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }
    let probe = Command::new("unshare")
        .args(&flags)
        .args(["sh", "-c", PROBE_SCRIPT])
        .stdin(Stdio::null())
        .output()?;
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
        return Ok(NamespaceEntry::Refused(format!(
            "this system refuses namespaces with limited links: {why}"
        )));
    }
    let place = dir.map(|dir| {
        TempDir::with_prefix_in("shoal-swarm-", dir)
            .with_context(|| format!("cannot create a folder in {}: choose another --dir", dir.display()))
    });
    let place = place.transpose()?;
    // The first process of a pid namespace ignores signals without a handler, so the outer harness handles them.
    let folder = place.as_ref().map(|place| place.path().to_owned()).unwrap_or_default();
    shutdown::clean_up_on_signal(folder.clone())?;
    let mut command = Command::new("unshare");
    command.args(&flags).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    let status = end_with_parent(command.env(INSIDE_VARIABLE, folder)).status()?;
    // The signal has ended the inner harness too, which is not a failure of its own.
    shutdown::wait_for_signal_exit();
    Ok(NamespaceEntry::Done(status))
}

/// Tries every operation that hosts need.
const PROBE_SCRIPT: &str = "ip link add probe type bridge && ip link add probe0 type veth peer name probe1 && \
    tc qdisc add dev probe0 root tbf rate 1mbit burst 64k latency 50ms";

/// Mounts a tmpfs of the run's own over [`MEMORY_FOLDER`]. Processes outside the mount namespace do not see it.
pub(crate) fn mount_memory() -> anyhow::Result<PathBuf> {
    run_tool("mount", &["-t", "tmpfs", "-o", "size=80%", "swarm", MEMORY_FOLDER])?;
    Ok(PathBuf::from(MEMORY_FOLDER))
}

/// The mount point of the run's own tmpfs.
pub(crate) const MEMORY_FOLDER: &str = "/dev/shm";

pub(crate) struct SwarmHost {
    /// Its number, from 0.
    pub(crate) number: u8,
    pub(crate) address: Ipv4Addr,
    holder: Child,
    /// The holder process exits when this pipe closes.
    _holder_stdin: Option<ChildStdin>,
}

/// Creates the bridge, and gives its address, on which the tracker listens.
pub(crate) fn create_bridge() -> anyhow::Result<Ipv4Addr> {
    let address = Ipv4Addr::new(10, 77, 0, 1);
    run_tool("ip", &["link", "set", "lo", "up"])?;
    // A fixed MAC address: otherwise the bridge takes over that of a host, and changes it with each new host, while
    // its neighbours still use the last one.
    run_tool("ip", &["link", "add", BRIDGE, "address", "02:00:0a:4d:00:01", "type", "bridge"])?;
    run_tool("ip", &["addr", "add", &format!("{address}/16"), "dev", BRIDGE])?;
    run_tool("ip", &["link", "set", BRIDGE, "up"])?;
    Ok(address)
}

impl SwarmHost {
    /// Creates the host of a number, from 0, whose uplink carries at most `uplink` bytes a second.
    pub(crate) fn new(number: u8, uplink: u64) -> anyhow::Result<SwarmHost> {
        let address = Ipv4Addr::new(10, 77, 1, number + 1);
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare cannot be run")?;
        let open = holder.stdin.take();
        let mut line = String::new();
        let output = holder.stdout.take().context("the holder's output is piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let host = SwarmHost { number, address, holder, _holder_stdin: open };
        if line.trim() != "ready" {
            bail!("the network namespace of host {number} was refused");
        }
        let (outside, pid) = (format!("host{number}"), host.holder.id().to_string());
        run_tool("ip", &["link", "add", &outside, "type", "veth", "peer", "name", "up0", "netns", &pid])?;
        run_tool("ip", &["link", "set", &outside, "master", BRIDGE, "up"])?;
        let inside = format!(
            "ip link set lo up && ip addr add {address}/16 dev up0 && ip link set up0 up && \
             tc qdisc add dev up0 root tbf rate {uplink}bps burst {BURST_BYTES} latency {QUEUE_MS}ms"
        );
        run_tool("nsenter", &["--target", &pid, "--net", "sh", "-c", &inside])?;
        Ok(host)
    }

    /// A command that runs a program on this host.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--"]).arg(program);
        command
    }

    /// Bytes that the host has sent, including all headers.
    pub(crate) fn sent_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/net/dev", self.holder.id());
        parse_sent_bytes(&fs::read_to_string(&path)?).with_context(|| format!("{path} has no line for up0"))
    }
}

impl Drop for SwarmHost {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The ninth number of the device's line.
fn parse_sent_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("up0:"))?;
    line.split_ascii_whitespace().nth(8)?.parse().ok()
}

fn run_tool(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_bytes_are_the_ninth_number() {
        let text = "Inter-| Receive | Transmit\n face |bytes\n    lo: 1 0 0 0 0 0 0 0 1 0\n   up0: 5 1 0 0 0 0 0 0 77 3\n";
        assert_eq!(parse_sent_bytes(text), Some(77));
        assert_eq!(parse_sent_bytes("lo: 1"), None);
    }
}
