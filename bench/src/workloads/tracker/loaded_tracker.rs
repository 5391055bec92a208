//! The tracker under load, started for the run or already running, and the CPUs of tracker and load.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::cli::TrackerArgs;
use crate::limits::FILES_EXTRA;
use crate::topology::binaries::{ShoalBinaries, with_clean_environment};
use crate::topology::spawned::{self, SpawnedProgram};
use crate::topology::usage;

/// A tracker under load.
pub(crate) struct LoadedTracker {
    pub(crate) address: SocketAddr,
    /// Its pid, if this run has started it.
    pub(crate) pid: Option<u32>,
    cpus: &'static str,
    _tracker: Option<SpawnedProgram>,
}

impl LoadedTracker {
    /// Starts a tracker in a folder below `folder`, unless the arguments name a running one.
    pub(crate) fn start(args: &TrackerArgs, folder: &Path, cpus: &RunCpus) -> anyhow::Result<LoadedTracker> {
        if let Some(address) = args.address {
            let cpus = "unknown for the tracker";
            return Ok(LoadedTracker { address, pid: None, cpus, _tracker: None });
        }
        let binaries = ShoalBinaries::find(args.bin.bin.as_deref())?;
        let folder = spawned::create_empty_folder(folder.join("shoal"))?;
        let file = folder.join("tracker_info.txt");
        std::fs::write(&file, "127.0.0.1 0\n")?;
        let mut command = with_clean_environment(Command::new(&binaries.tracker));
        command.arg(&file).arg("1").arg("--data").arg(folder.join("state"));
        let own = u64::from(args.connections) + FILES_EXTRA;
        command.arg("--connections-per-address").arg(own.to_string());
        command.current_dir(&folder);
        let ((tracker, address), cpus) = cpus.start_apart(|| {
            SpawnedProgram::start_ready("tracker", &command, &folder, "tracker listening on ")
        })?;
        let address = address.parse().context("the tracker did not print its address")?;
        Ok(LoadedTracker { address, pid: Some(tracker.pid()), cpus, _tracker: Some(tracker) })
    }

    /// A text about its CPUs for the report.
    pub(crate) fn cpus(&self) -> &'static str {
        self.cpus
    }

    /// CPU seconds that it has used.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        usage::cpu_of(self.pid?).map(|cpu| cpu.0)
    }
}

/// The CPUs of the harness at its start, before one was reserved for trackers.
pub(crate) struct RunCpus {
    all: Option<CpuSet>,
}

impl RunCpus {
    /// Must be called before [`start_apart`](Self::start_apart).
    pub(crate) fn read() -> RunCpus {
        RunCpus { all: sched_getaffinity(None).ok() }
    }

    /// The first CPU, and all others; `None` with a single CPU.
    fn split(&self) -> Option<(CpuSet, CpuSet)> {
        let all = self.all.filter(|all| all.count() >= 2)?;
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu))?;
        let (mut own, mut rest) = (CpuSet::new(), all);
        own.set(first);
        rest.unset(first);
        Some((own, rest))
    }

    /// Starts a program on the first CPU, which all such programs share, and leaves the other CPUs to this thread and
    /// its later children. With one CPU, or if the system refuses, they share all CPUs. Also gives a text about the
    /// CPUs.
    pub(crate) fn start_apart<T>(
        &self,
        start: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, &'static str)> {
        let Some((_, rest)) = self.split().filter(|(own, _)| sched_setaffinity(None, own).is_ok()) else {
            return Ok((start()?, "shared by tracker and load"));
        };
        let started = start();
        // A child keeps the affinity that its parent had at its start.
        sched_setaffinity(None, &rest).context("cannot move the load to other CPUs")?;
        Ok((started?, "one for the tracker, the others for the load"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_started_apart_share_one_cpu() {
        let cpus = RunCpus::read();
        if cpus.split().is_none() {
            println!("skipped: there is one CPU");
            return;
        }
        let now = || sched_getaffinity(None).unwrap();
        let started: Vec<CpuSet> = (0..2).map(|_| cpus.start_apart(|| Ok(now())).unwrap().0).collect();
        assert_eq!((started[0].count(), started[0]), (1, started[1]));
        assert_eq!(now().count(), cpus.all.unwrap().count() - 1);
        sched_setaffinity(None, &cpus.all.unwrap()).unwrap();
    }
}
