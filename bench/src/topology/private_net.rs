//! A network namespace for the run, with only a loopback device: every program gets the same congestion control, there
//! is no other traffic, and the kernel counts every byte.
//!
//! The harness executes itself again inside, by `unshare`. The namespace ends with its last process. If it cannot be
//! created, the run uses the machine's network and reports that.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

/// Set to `private` inside the namespace, or to the reason for not trying.
const INSIDE_VARIABLE: &str = "SHOAL_BENCH_NET";

/// Congestion control of every socket in the namespace. Pacing and probing have no use within one machine.
const PRIVATE_CONGESTION: &str = "reno";

/// The network of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunNetwork {
    /// A namespace of its own.
    Private,
    /// The machine's network, and why.
    Shared(String),
}

/// Enters the namespace if possible. On success this call does not return: the new process calls it again.
pub(crate) fn enter_private_net() -> RunNetwork {
    match std::env::var(INSIDE_VARIABLE).as_deref() {
        Ok("private") => return set_up_loopback(),
        Ok(why) => return RunNetwork::Shared(why.to_owned()),
        Err(_) => {}
    }
    let mut flags = vec!["--net"];
    if !geteuid().is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }
    // Tries everything that is needed inside first, since exec cannot be undone.
    let probe = Command::new("unshare")
        .args(&flags)
        .args(["ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return RunNetwork::Shared(format!("a network namespace was refused: {why}"));
        }
        Err(error) => return RunNetwork::Shared(format!("unshare of util-linux cannot be run: {error}")),
    }
    let Ok(own) = std::env::current_exe() else {
        return RunNetwork::Shared("cannot find the harness's own program".to_owned());
    };
    let args = std::env::args_os().skip(1);
    let failed = Command::new("unshare")
        .args(&flags)
        .arg("--")
        .arg(own)
        .args(args)
        .env(INSIDE_VARIABLE, "private")
        .exec();
    RunNetwork::Shared(format!("unshare of util-linux cannot be run: {failed}"))
}

fn set_up_loopback() -> RunNetwork {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).stdin(Stdio::null()).output();
    if !up.is_ok_and(|output| output.status.success()) {
        return RunNetwork::Shared("the loopback device of the new namespace did not come up".to_owned());
    }
    // If this is refused, the setting stays, and the report states it.
    let _ = fs::write("/proc/sys/net/ipv4/tcp_congestion_control", PRIVATE_CONGESTION);
    RunNetwork::Private
}

/// The congestion control of new sockets.
pub(crate) fn congestion_control() -> String {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    if text.trim().is_empty() { "unknown".to_owned() } else { text.trim().to_owned() }
}

/// Bytes that the loopback device has carried, including all headers.
pub(crate) fn loopback_bytes() -> u64 {
    received_bytes(&fs::read_to_string("/proc/self/net/dev").unwrap_or_default(), "lo")
}

fn received_bytes(text: &str, device: &str) -> u64 {
    let of_device = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        (name.trim() == device).then(|| counts.split_ascii_whitespace().next()?.parse().ok())?
    };
    text.lines().find_map(of_device).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_device() {
        let text = "Inter-|   Receive\n face |bytes packets\n  eth0: 5 1 0\n    lo: 1234 7 0 0\n";
        assert_eq!(received_bytes(text, "lo"), 1_234);
        assert_eq!(received_bytes(text, "wlan0"), 0);
    }
}
