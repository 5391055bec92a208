//! CPU time and memory of processes, from /proc.
//!
//! Peaks come from frequent samples: `ru_maxrss` would start with the parent's peak. CPU time includes that of
//! children that were waited for, and is counted in clock ticks (10 ms).

use std::fs;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Signal, pidfd_send_signal};

use super::descendants::{self, find_tree, list_tree, read_stat};
use crate::clock;
use crate::limits::{MEMORY_SAMPLE_MS, SAMPLE_PAUSE_FACTOR};

/// CPU time in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuSeconds(pub(crate) f64);

impl Sub for CpuSeconds {
    type Output = CpuSeconds;

    fn sub(self, earlier: CpuSeconds) -> CpuSeconds {
        CpuSeconds((self.0 - earlier.0).max(0.0))
    }
}

impl std::iter::Sum for CpuSeconds {
    fn sum<I: Iterator<Item = CpuSeconds>>(each: I) -> CpuSeconds {
        CpuSeconds(each.map(|cpu| cpu.0).sum())
    }
}

fn ticks_to_seconds(ticks: u64) -> CpuSeconds {
    CpuSeconds(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU time of a process and of the children that it has waited for. The process may have exited, but must not be
/// reaped.
pub(crate) fn cpu_of(pid: u32) -> Option<CpuSeconds> {
    Some(ticks_to_seconds(read_stat(pid)?.ticks))
}

/// CPU time of these processes and all their descendants. Exited descendants count if their parent has waited for
/// them.
pub(crate) fn cpu_of_trees(roots: &[u32]) -> CpuSeconds {
    roots.iter().flat_map(|root| find_tree(*root)).filter_map(cpu_of).sum()
}

/// Anonymous memory of a process, in bytes.
pub(crate) fn anonymous_bytes(pid: u32) -> u64 {
    read_memory(pid).anonymous
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// `RssAnon`: memory of the process's own.
    pub(crate) anonymous: u64,
    /// `RssFile` and `RssShmem`: mapped pages of files, which are in the page cache anyway.
    pub(crate) mapped: u64,
}

fn read_memory(pid: u32) -> MemoryUse {
    parse_memory(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
}

fn parse_memory(status: &str) -> MemoryUse {
    let of = |name: &str| {
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.map_or(0, |kib| kib * 1_024)
    };
    MemoryUse { anonymous: of("RssAnon:"), mapped: of("RssFile:") + of("RssShmem:") }
}

/// The processes of a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoundPids {
    /// Seeders, without their descendants.
    pub(crate) sources: Vec<u32>,
    /// Leechers, without their descendants.
    pub(crate) receivers: Vec<u32>,
}

/// Peak memory of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct MemoryPeaks {
    /// Peaks of the sums over all seeders and over all leechers.
    pub(crate) sides: [MemoryUse; 2],
    /// CPU time that the samples took.
    pub(crate) sampling: Duration,
}

impl MemoryPeaks {
    /// The peaks of two successive periods.
    pub(crate) fn merge(self, other: MemoryPeaks) -> MemoryPeaks {
        let most = |side: usize| MemoryUse {
            anonymous: self.sides[side].anonymous.max(other.sides[side].anonymous),
            mapped: self.sides[side].mapped.max(other.sides[side].mapped),
        };
        MemoryPeaks { sides: [most(0), most(1)], sampling: self.sampling + other.sampling }
    }

    fn sample(round_pids: &RoundPids) -> MemoryPeaks {
        let (sampling, sides) = clock::time_work(|| {
            [&round_pids.sources, &round_pids.receivers].map(|side| {
                let all = side.iter().flat_map(|root| list_tree(*root)).map(read_memory);
                all.fold(MemoryUse::default(), |sum, one| MemoryUse {
                    anonymous: sum.anonymous + one.anonymous,
                    mapped: sum.mapped + one.mapped,
                })
            })
        });
        MemoryPeaks { sides, sampling }
    }
}

/// Samples the memory of both sides in a thread, and kills receivers that exceed the time limit.
pub(crate) struct RoundWatch {
    stop: Arc<AtomicBool>,
    limit: Duration,
    deadline: Duration,
    thread: Option<JoinHandle<MemoryPeaks>>,
}

impl RoundWatch {
    /// Starts sampling. After `limit` the `victims` are killed: children that have not been waited for.
    pub(crate) fn start(
        round_pids: RoundPids,
        kill_at_limit: &[u32],
        limit: Duration,
    ) -> anyhow::Result<RoundWatch> {
        // By pidfds: a pid may be reused after its process was waited for.
        let victims: Vec<OwnedFd> =
            kill_at_limit.iter().map(|pid| descendants::open_pidfd(*pid)).collect::<std::io::Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let deadline = clock::now().saturating_add(limit);
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            let mut peaks = MemoryPeaks::default();
            loop {
                let sample = MemoryPeaks::sample(&round_pids);
                let pause =
                    Duration::from_millis(MEMORY_SAMPLE_MS).max(sample.sampling * SAMPLE_PAUSE_FACTOR);
                peaks = peaks.merge(sample);
                if stopped.load(Ordering::Acquire) {
                    return peaks;
                }
                if clock::now() > deadline {
                    for victim in &victims {
                        // The process may have ended meanwhile.
                        let _ = pidfd_send_signal(victim, Signal::KILL);
                    }
                }
                std::thread::park_timeout(pause);
            }
        })?;
        Ok(RoundWatch { stop, limit, deadline, thread: Some(thread) })
    }

    /// The reason to add to a receiver's failure if the time limit is over by now.
    pub(crate) fn timeout_reason(&self) -> Option<String> {
        let over = clock::now() > self.deadline;
        over.then(|| format!("the time limit of the round, {:.1} s, was over", self.limit.as_secs_f64()))
    }

    /// Ends the sampling; gives the peaks.
    pub(crate) fn peaks(mut self) -> MemoryPeaks {
        self.stop_thread().unwrap_or_default()
    }

    fn stop_thread(&mut self) -> Option<MemoryPeaks> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        thread.join().ok()
    }
}

impl Drop for RoundWatch {
    fn drop(&mut self) {
        self.stop_thread();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_own_tree_and_has_memory() {
        let own = std::process::id();
        assert!(find_tree(own).contains(&own));
        assert!(anonymous_bytes(own) > 0);
        assert!(cpu_of(own).is_some());
        let round_pids = RoundPids { sources: vec![own], receivers: vec![] };
        let watch = RoundWatch::start(round_pids, &[], Duration::from_secs(60)).unwrap();
        let peaks = watch.peaks();
        assert!(peaks.sides[0].anonymous > 0 && peaks.sides[1] == MemoryUse::default(), "{peaks:?}");
    }

    #[test]
    fn anonymous_and_mapped_memory_are_separate() {
        let status = "VmRSS:\t 9 kB\nRssAnon:\t     2 kB\nRssFile:\t   3 kB\nRssShmem:\t 4 kB\n";
        assert_eq!(parse_memory(status), MemoryUse { anonymous: 2 << 10, mapped: 7 << 10 });
        assert_eq!(parse_memory(""), MemoryUse::default());
    }

    #[test]
    fn receivers_are_killed_after_the_limit() {
        let mut late = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let watch = RoundWatch::start(RoundPids::default(), &[late.id()], Duration::ZERO).unwrap();
        let status = late.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        watch.peaks();
    }
}
