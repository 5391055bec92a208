//! What processes use: CPU time and anonymous memory, from /proc.
//!
//! Peaks come from looking often, never from `ru_maxrss`, which starts at the parent's. CPU time is what the kernel
//! accounts to a process, those of its children that it has waited for included; its unit is a clock tick (10 ms).

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::limits::{DESCENDANTS_MAX, MEMORY_EVERY_MS};
use crate::clock;

/// CPU time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu(pub(crate) f64);

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, earlier: Cpu) -> Cpu {
        Cpu((self.0 - earlier.0).max(0.0))
    }
}

impl std::iter::Sum for Cpu {
    fn sum<I: Iterator<Item = Cpu>>(each: I) -> Cpu {
        Cpu(each.map(|cpu| cpu.0).sum())
    }
}

/// The fields of `/proc/PID/stat` that matter.
struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5): the name may hold anything, so fields are counted from behind its bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    // utime, stime, cutime, cstime.
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent, ticks })
}

fn seconds(ticks: u64) -> Cpu {
    Cpu(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Of one process and the children that it has waited for; it may have ended, if nobody has waited for it.
pub(crate) fn cpu_of(pid: u32) -> Option<Cpu> {
    Some(seconds(stat(pid)?.ticks))
}

/// A process and all its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(stat) = stat(pid) {
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

/// Of these processes and all their descendants, those that are gone included where their parent has waited for them.
pub(crate) fn cpu_of_trees(roots: &[u32]) -> Cpu {
    roots.iter().flat_map(|root| tree(*root)).filter_map(cpu_of).sum()
}

/// Anonymous memory that a process holds now, in bytes.
pub(crate) fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1_024)
}

/// Who takes part in a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sides {
    /// Processes that send, without their descendants.
    pub(crate) sources: Vec<u32>,
    /// Processes that receive, likewise.
    pub(crate) receivers: Vec<u32>,
}

/// Looks at the memory of both sides from now on, and ends receivers whose time is over.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<[u64; 2]>>,
}

impl Watch {
    /// Starts. After `limit` the `victims` are killed, so that nobody waits for them for ever.
    pub(crate) fn start(sides: Sides, victims: Vec<u32>, limit: Duration) -> anyhow::Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let deadline = clock::now() + limit;
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            let mut peaks = [0; 2];
            loop {
                for (peak, side) in peaks.iter_mut().zip([&sides.sources, &sides.receivers]) {
                    let now: u64 = side.iter().flat_map(|root| tree(*root)).map(anonymous).sum();
                    *peak = now.max(*peak);
                }
                if stopped.load(Ordering::Acquire) {
                    return peaks;
                }
                if clock::now() > deadline {
                    victims.iter().for_each(|pid| kill(*pid));
                }
                std::thread::park_timeout(Duration::from_millis(MEMORY_EVERY_MS));
            }
        })?;
        Ok(Watch { stop, thread: Some(thread) })
    }

    /// The peaks of the sources' and the receivers' sums, in bytes.
    pub(crate) fn peaks(mut self) -> [u64; 2] {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<[u64; 2]> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        thread.join().ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile; nobody has waited for it yet, so the number is still its own.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_moves_no_field() {
        let text = "7 (a ) b (c) S 3 7 7 0 -1 0 0 0 0 0 10 20 30 40 20 0 1 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 100));
        assert!(parse_stat("7 (a").is_none());
    }

    #[test]
    fn a_process_is_its_own_tree_and_has_memory() {
        let own = std::process::id();
        assert!(tree(own).contains(&own));
        assert!(anonymous(own) > 0);
        assert!(cpu_of(own).is_some());
        let sides = Sides { sources: vec![own], receivers: vec![] };
        let watch = Watch::start(sides, vec![], Duration::from_secs(60)).unwrap();
        let peaks = watch.peaks();
        assert!(peaks[0] > 0 && peaks[1] == 0, "{peaks:?}");
    }
}
