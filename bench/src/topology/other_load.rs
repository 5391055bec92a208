//! CPU time of everything outside the run, while it is measured.
//!
//! Interrupts are not counted, since the run's own packets cause some of them. Time stolen by the hypervisor is
//! counted: no process here could use it.

use std::fs;
use std::time::Duration;

use super::usage;
use crate::clock;

/// The start of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct OtherLoad {
    /// Processes of the harness that take no part in the round.
    idle: Vec<u32>,
    busy_s: f64,
    ours_s: f64,
    at: Duration,
}

impl OtherLoad {
    /// Starts measuring.
    pub(crate) fn start() -> OtherLoad {
        OtherLoad::start_beside(Vec::new())
    }

    /// Starts measuring; CPU time of these idle processes of the harness counts as other load.
    pub(crate) fn start_beside(idle: Vec<u32>) -> OtherLoad {
        let ours_s = ours_s(&idle);
        OtherLoad { idle, busy_s: busy_s(), ours_s, at: clock::now() }
    }

    /// CPUs kept busy by other processes since the start, on average.
    pub(crate) fn busy_cpus(&self) -> f64 {
        mean_other_cpus(busy_s() - self.busy_s, ours_s(&self.idle) - self.ours_s, clock::now() - self.at)
    }
}

fn mean_other_cpus(busy_s: f64, ours_s: f64, elapsed: Duration) -> f64 {
    (busy_s - ours_s).max(0.0) / elapsed.as_secs_f64().max(1e-3)
}

fn ours_s(idle: &[u32]) -> f64 {
    usage::cpu_of_trees(&[std::process::id()]).0 - usage::cpu_of_trees(idle).0
}

/// CPU time of user, nice, system and steal, over all CPUs.
fn busy_s() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_busy_ticks(&text) as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn parse_busy_ticks(text: &str) -> u64 {
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let fields: Vec<u64> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 7].iter().filter_map(|at| fields.get(*at)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_and_interrupts_do_not_count() {
        assert_eq!(parse_busy_ticks("cpu  1 2 4 1000 1000 1000 1000 8 16 32\ncpu0 9 9 9 9\n"), 15);
        assert_eq!(parse_busy_ticks(""), 0);
    }

    #[test]
    fn the_run_s_own_time_is_subtracted() {
        let load = mean_other_cpus(5.0, 3.0, Duration::from_secs(4));
        assert!((load - 0.5).abs() < 1e-9, "{load}");
        assert!(mean_other_cpus(1.0, 2.0, Duration::from_secs(1)).abs() < 1e-9);
    }
}
