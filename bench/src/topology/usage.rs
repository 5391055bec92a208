//! What processes use: CPU time and memory, from /proc.
//!
//! Peaks come from looking often, never from `ru_maxrss`, which starts at the parent's. CPU time is what the kernel
//! accounts to a process, those of its children that it has waited for included; its unit is a clock tick (10 ms).

use std::fs;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Signal, pidfd_send_signal};

use super::descendants::{self, stat, tree, tree_now};
use super::limits::{LOOK_PAUSES, MEMORY_EVERY_MS};
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

fn seconds(ticks: u64) -> Cpu {
    Cpu(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Of one process and the children that it has waited for; it may have ended, if nobody has waited for it.
pub(crate) fn cpu_of(pid: u32) -> Option<Cpu> {
    Some(seconds(stat(pid)?.ticks))
}

/// Of these processes and all their descendants, those that are gone included where their parent has waited for them.
pub(crate) fn cpu_of_trees(roots: &[u32]) -> Cpu {
    roots.iter().flat_map(|root| tree(*root)).filter_map(cpu_of).sum()
}

/// Anonymous memory that a process holds now, in bytes.
pub(crate) fn anonymous(pid: u32) -> u64 {
    memory(pid).anonymous
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// `RssAnon`: a process's own.
    pub(crate) anonymous: u64,
    /// `RssFile` and `RssShmem`: mapped pages of files, which the page cache has anyway.
    pub(crate) mapped: u64,
}

fn memory(pid: u32) -> Memory {
    parse_memory(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
}

fn parse_memory(status: &str) -> Memory {
    let of = |name: &str| {
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.map_or(0, |kib| kib * 1_024)
    };
    Memory { anonymous: of("RssAnon:"), mapped: of("RssFile:") + of("RssShmem:") }
}

/// Who takes part in a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sides {
    /// Processes that send, without their descendants.
    pub(crate) sources: Vec<u32>,
    /// Processes that receive, likewise.
    pub(crate) receivers: Vec<u32>,
}

/// The most that was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Peaks {
    /// Of the sums of all sources and of all receivers.
    pub(crate) sides: [Memory; 2],
    /// How long it was looked, in all, which a CPU was busy with.
    pub(crate) looking: Duration,
}

impl Peaks {
    /// Of two stretches of time, one after the other.
    pub(crate) fn and(self, other: Peaks) -> Peaks {
        let most = |side: usize| Memory {
            anonymous: self.sides[side].anonymous.max(other.sides[side].anonymous),
            mapped: self.sides[side].mapped.max(other.sides[side].mapped),
        };
        Peaks { sides: [most(0), most(1)], looking: self.looking + other.looking }
    }

    fn look(sides: &Sides) -> Peaks {
        let (looking, sides) = clock::timed(|| {
            [&sides.sources, &sides.receivers].map(|side| {
                let all = side.iter().flat_map(|root| tree_now(*root)).map(memory);
                all.fold(Memory::default(), |sum, one| Memory {
                    anonymous: sum.anonymous + one.anonymous,
                    mapped: sum.mapped + one.mapped,
                })
            })
        });
        Peaks { sides, looking }
    }
}

/// Looks at the memory of both sides from now on, and ends receivers whose time is over.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    limit: Duration,
    deadline: Duration,
    thread: Option<JoinHandle<Peaks>>,
}

impl Watch {
    /// Starts. After `limit` the `victims` are killed, so that nobody waits for them for ever; they are children that
    /// nobody has waited for yet.
    pub(crate) fn start(sides: Sides, victims: &[u32], limit: Duration) -> anyhow::Result<Watch> {
        // Held by what they are, not by their numbers, which belong to others once they have been waited for.
        let victims: Vec<OwnedFd> =
            victims.iter().map(|pid| descendants::held(*pid)).collect::<std::io::Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let deadline = clock::now().saturating_add(limit);
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            let mut peaks = Peaks::default();
            loop {
                let look = Peaks::look(&sides);
                let pause = Duration::from_millis(MEMORY_EVERY_MS).max(look.looking * LOOK_PAUSES);
                peaks = peaks.and(look);
                if stopped.load(Ordering::Acquire) {
                    return peaks;
                }
                if clock::now() > deadline {
                    for victim in &victims {
                        // It may have ended meanwhile.
                        let _ = pidfd_send_signal(victim, Signal::KILL);
                    }
                }
                std::thread::park_timeout(pause);
            }
        })?;
        Ok(Watch { stop, limit, deadline, thread: Some(thread) })
    }

    /// Why receivers that have failed by now may have done so, if they were killed.
    pub(crate) fn told(&self) -> Option<String> {
        let over = clock::now() > self.deadline;
        over.then(|| format!("the time of a round, {:.1} s, was over", self.limit.as_secs_f64()))
    }

    /// What was seen.
    pub(crate) fn peaks(mut self) -> Peaks {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<Peaks> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_own_tree_and_has_memory() {
        let own = std::process::id();
        assert!(tree(own).contains(&own));
        assert!(anonymous(own) > 0);
        assert!(cpu_of(own).is_some());
        let sides = Sides { sources: vec![own], receivers: vec![] };
        let watch = Watch::start(sides, &[], Duration::from_secs(60)).unwrap();
        let peaks = watch.peaks();
        assert!(peaks.sides[0].anonymous > 0 && peaks.sides[1] == Memory::default(), "{peaks:?}");
    }

    #[test]
    fn memory_is_told_apart_by_what_it_is() {
        let status = "VmRSS:\t 9 kB\nRssAnon:\t     2 kB\nRssFile:\t   3 kB\nRssShmem:\t 4 kB\n";
        assert_eq!(parse_memory(status), Memory { anonymous: 2 << 10, mapped: 7 << 10 });
        assert_eq!(parse_memory(""), Memory::default());
    }

    #[test]
    fn whose_time_is_over_is_killed_and_nobody_else() {
        let mut late = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let watch = Watch::start(Sides::default(), &[late.id()], Duration::ZERO).unwrap();
        let status = late.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        watch.peaks();
    }
}
