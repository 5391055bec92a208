//! Runs the real harness, and finds what a run leaves behind.
//!
//! ```text
//!   bench(place, words) ─► Command ─► records          parsed output
//!         │                   └─────► Running          a run in the background; killed when its value is dropped
//!         └─► mark in the environment ─► processes_of  every process of a run, in any namespace
//! ```
#![allow(dead_code, reason = "each test file uses the part that it needs")]
#![allow(clippy::unwrap_used, reason = "a rig that cannot be set up is a failed test")]

use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Interval and number of checks for the end of killed processes.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS: u32 = 6_000;

/// An environment variable of every process of a run; its value is the run's folder.
const MARK: &str = "BENCH_TEST";

/// A program of this build; fails if the workspace has not built it.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name(name);
    assert!(
        path.is_file(),
        "{name} is not beside the harness: `cargo build -p tracker -p client` builds both"
    );
    path
}

/// The harness with its files in `place`, which also marks its processes.
pub(crate) fn bench(place: &Path, words: &[&str]) -> Command {
    for needed in ["tracker", "client"] {
        program(needed);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(words).arg("--dir").arg(place).env(MARK, place);
    command
}

/// Parses the records of its output.
pub(crate) fn records(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).expect("records are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// Records of one type.
pub(crate) fn of_record<'a>(lines: &'a [Value], record: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["record"] == record)
}

/// All values of a metric of a kind.
pub(crate) fn values(lines: &[Value], kind: &str, metric: &str) -> Vec<f64> {
    let wanted = |line: &&Value| line["kind"] == kind && line["metric"] == metric;
    of_record(lines, "sample").filter(wanted).map(|line| line["value"].as_f64().unwrap()).collect()
}

/// A running harness; it is killed when its value is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }

    /// Reads until a line contains one of these words.
    pub(crate) fn wait_for(&mut self, words: &[&str]) -> String {
        let is_it = |line: &String| words.iter().any(|word| line.contains(word));
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        lines.find(is_it).unwrap_or_else(|| panic!("the run ended before it said {words:?}"))
    }

    /// Sends a signal and waits for its end.
    pub(crate) fn end_by(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the processes of a run, in any namespace. A process that has exited has no environment.
pub(crate) fn processes_of(place: &Path) -> usize {
    let mark = format!("{MARK}={}", place.display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = all.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    environments.filter(|all| all.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())).count()
}

/// Asserts that no process and no file is left. Killed processes take a moment to disappear.
pub(crate) fn assert_nothing_is_left(place: &Path) {
    assert_no_process_is_left(place);
    assert!(place.read_dir().unwrap().next().is_none(), "a file was left behind");
}

/// Asserts that no process is left. If the harness was killed, its files stay.
pub(crate) fn assert_no_process_is_left(place: &Path) {
    let gone = (0..LOOKS).any(|_| {
        let gone = processes_of(place) == 0;
        if !gone {
            std::thread::park_timeout(LOOK_EVERY);
        }
        gone
    });
    assert!(gone, "{} processes outlived the harness", processes_of(place));
}

/// Creates a program of that name in `folder` that runs `script`.
pub(crate) fn fake(folder: &Path, name: &str, script: &str) {
    let program = folder.join(name);
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder for `--bin`: the real tracker, and a client that runs a shell command before anything else.
pub(crate) fn client_that(does: &str) -> TempDir {
    let programs = tempfile::tempdir().unwrap();
    symlink(program("tracker"), programs.path().join("tracker")).unwrap();
    let script = format!("{does}\nexec '{}' \"$@\"", program("client").display());
    fake(programs.path(), "client", &script);
    programs
}
