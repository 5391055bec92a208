//! The tracker under load: one of the run's own, or one that runs already; and which CPUs it has.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use crate::cli::TrackerArgs;
use crate::topology::binaries::Binaries;
use crate::topology::spawned::Spawned;
use crate::topology::{ending, usage};

/// A tracker under load.
pub(crate) struct Place {
    /// Where it answers.
    pub(crate) address: SocketAddr,
    /// Its process, when it is ours.
    pub(crate) pid: Option<u32>,
    cpus: &'static str,
    /// Ended before its folder is removed.
    _tracker: Option<Spawned>,
    _folder: Option<TempDir>,
}

impl Place {
    /// Starts a tracker, unless one is named.
    pub(crate) fn start(args: &TrackerArgs) -> anyhow::Result<Place> {
        if let Some(address) = args.address {
            let cpus = "those of the tracker are not known";
            return Ok(Place { address, pid: None, cpus, _tracker: None, _folder: None });
        }
        let binaries = Binaries::find(args.bin.as_deref())?;
        let folder = match &args.dir {
            Some(dir) => TempDir::with_prefix_in("shoal-bench-", dir),
            None => TempDir::with_prefix("shoal-bench-"),
        };
        let folder = folder.context("there is no place for the tracker's state: choose another --dir")?;
        ending::clean_up_on_signal(folder.path().to_owned())?;
        let file = folder.path().join("tracker_info.txt");
        std::fs::write(&file, "127.0.0.1 0\n")?;
        let mut command = Command::new(&binaries.tracker);
        command.arg(&file).arg("1").arg("--data").arg(folder.path().join("state"));
        command.current_dir(folder.path()).env_remove("SHOAL_TRACKERS").env_remove("RUST_LOG");
        let ((tracker, address), cpus) =
            apart(|| Spawned::start_ready("tracker", &command, folder.path(), "tracker listening on "))?;
        let address = address.parse().context("the tracker did not say where it listens")?;
        Ok(Place { address, pid: Some(tracker.pid()), cpus, _tracker: Some(tracker), _folder: Some(folder) })
    }

    /// Which CPUs it has, in words.
    pub(crate) fn cpus(&self) -> &'static str {
        self.cpus
    }

    /// CPU seconds that it has used.
    pub(crate) fn cpu(&self) -> Option<f64> {
        usage::cpu_of(self.pid?).map(|cpu| cpu.0)
    }
}

/// Starts a program on one CPU, and leaves all others to this thread and those that it starts from now on. With one CPU, or
/// where the system does not allow it, they share.
pub(crate) fn apart<T>(start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, &'static str)> {
    let shared = "shared by tracker and load";
    let Ok(all) = sched_getaffinity(None) else { return Ok((start()?, shared)) };
    let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)) else {
        return Ok((start()?, shared));
    };
    let (mut own, mut rest) = (CpuSet::new(), all);
    own.set(first);
    rest.unset(first);
    if all.count() < 2 || sched_setaffinity(None, &own).is_err() {
        return Ok((start()?, shared));
    }
    let started = start();
    // A child keeps what its parent had when it was started.
    sched_setaffinity(None, &rest).context("the load could not be moved to other CPUs")?;
    Ok((started?, "one for the tracker, the others for the load"))
}
