//! Finds the descendants of a process and signals them.
//!
//! Invariant: a signal reaches only a descendant. A process id read from /proc may be reused at any time, so a pidfd
//! is opened first (pidfd_open(2)) and the process tree is read again before the signal is sent.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::limits::DESCENDANTS_MAX;

/// Signals all current descendants. A process started meanwhile may be missed.
pub(crate) fn signal_descendants(root: u32, signal: Signal) {
    send_signal(root, signal, |pid| pid != root);
}

/// Signals the process, which must not have been waited for, and all its descendants.
pub(crate) fn signal_tree(root: u32, signal: Signal) {
    send_signal(root, signal, |_| true);
}

fn send_signal(root: u32, signal: Signal, wanted: impl Fn(u32) -> bool) {
    let hold = |pid: u32| Some((pid, open_pidfd(pid).ok()?));
    let all: Vec<(u32, OwnedFd)> =
        find_tree(root).into_iter().filter(|pid| wanted(*pid)).filter_map(hold).collect();
    // A pid that is still in the tree has belonged to the same process since its pidfd was opened.
    let still = find_tree(root);
    for (_, process) in all.iter().filter(|(pid, _)| still.contains(pid)) {
        // The process may have ended meanwhile.
        let _ = pidfd_send_signal(process, signal);
    }
}

/// A handle that stays valid when the pid is reused.
pub(super) fn open_pidfd(pid: u32) -> std::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A process and all its descendants.
pub(super) fn find_tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(stat) = read_stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() && found.len() < DESCENDANTS_MAX {
        found.extend(children.remove(&found[at]).unwrap_or_default());
        at += 1;
    }
    found
}

/// As [`find_tree`], from the kernel's lists of children (proc_pid_children(5)). It does not read every process of the
/// machine, and may miss one that starts or ends meanwhile, which is good enough for frequent samples.
pub(super) fn list_tree(root: u32) -> Vec<u32> {
    static LISTED: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/thread-self/children").exists());
    if !*LISTED {
        return find_tree(root);
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() && found.len() < DESCENDANTS_MAX {
        let threads = fs::read_dir(format!("/proc/{}/task", found[at])).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

/// Fields of `/proc/PID/stat`.
pub(super) struct PidStat {
    parent: u32,
    /// CPU time of the process and of the children that it has waited for, in clock ticks.
    pub(super) ticks: u64,
}

pub(super) fn read_stat(pid: u32) -> Option<PidStat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses the format of proc_pid_stat(5). The program name may contain anything, so fields are counted from its last
/// bracket.
fn parse_stat(text: &str) -> Option<PidStat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    // utime, stime, cutime, cstime.
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(PidStat { parent, ticks })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_shifts_no_field() {
        let text = "7 (a ) b (c) S 3 7 7 0 -1 0 0 0 0 0 10 20 30 40 20 0 1 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 100));
        assert!(parse_stat("7 (a").is_none());
    }

    #[test]
    fn children_are_found_by_both_ways() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let own = std::process::id();
        let found = [find_tree(own), list_tree(own)].map(|all| all.contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [true; 2]);
    }

    #[test]
    fn signals_reach_descendants_and_the_root_only_if_asked() {
        // The grandchild ends by the signal. Then the root prints a line, which shows that it got no signal.
        let script = "sh -c 'sleep 1000 & echo up; wait'; echo spared; exec sleep 1000";
        let mut root = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(root.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("up"));
        signal_descendants(root.id(), Signal::TERM);
        assert_eq!(lines.next().as_deref(), Some("spared"));
        signal_tree(root.id(), Signal::TERM);
        assert_eq!(root.wait().unwrap().signal(), Some(15));
        // The pipe closes when all of them have ended.
        assert_eq!(lines.next(), None);
    }
}
