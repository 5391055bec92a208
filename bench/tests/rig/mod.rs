//! The harness through its real binary: what it says, and what of it is still there.
//!
//! ```text
//!   bench(place, words) ─► Command ─► records          what it said
//!         │                   └─────► Running          until a line came; ended by its process id when its value is dropped
//!         └─► mark in the environment ─► processes_of  whatever a run started, in whichever namespace
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

/// For the end of processes that the kernel ends is looked this often, so many times.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS: u32 = 6_000;

/// In the environment of every process of a run, with a value of its own.
const MARK: &str = "BENCH_TEST";

/// A program of this build; without those of the workspace there is nothing to test.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name(name);
    assert!(
        path.is_file(),
        "{name} is not beside the harness: `cargo build -p tracker -p client` builds both"
    );
    path
}

/// A harness whose files go to `place`, by which its processes are known too.
pub(crate) fn bench(place: &Path, words: &[&str]) -> Command {
    for needed in ["tracker", "client"] {
        program(needed);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(words).arg("--dir").arg(place).env(MARK, place);
    command
}

/// What it said.
pub(crate) fn records(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).expect("records are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// Those of one sort.
pub(crate) fn of_record<'a>(lines: &'a [Value], record: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["record"] == record)
}

/// The values of one metric of one kind.
pub(crate) fn values(lines: &[Value], kind: &str, metric: &str) -> Vec<f64> {
    let wanted = |line: &&Value| line["kind"] == kind && line["metric"] == metric;
    of_record(lines, "sample").filter(wanted).map(|line| line["value"].as_f64().unwrap()).collect()
}

/// A harness that runs; it is ended when a test fails before it did.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }

    /// Reads on to a line with one of these words.
    pub(crate) fn wait_for(&mut self, words: &[&str]) -> String {
        let is_it = |line: &String| words.iter().any(|word| line.contains(word));
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        lines.find(is_it).unwrap_or_else(|| panic!("the run ended before it said {words:?}"))
    }

    /// Sends it a signal, and waits for its end.
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

/// Processes of a run, whatever namespace they are in; one that has ended has no environment.
pub(crate) fn processes_of(place: &Path) -> usize {
    let mark = format!("{MARK}={}", place.display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = all.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    environments.filter(|all| all.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())).count()
}

/// No process and no file: what was killed goes when the kernel comes to it.
pub(crate) fn assert_nothing_is_left(place: &Path) {
    assert_no_process_is_left(place);
    assert!(place.read_dir().unwrap().next().is_none(), "a file was left behind");
}

/// No process; where the harness itself was killed, its files stay.
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

/// A program of that name in `folder`, which runs `script`.
pub(crate) fn fake(folder: &Path, name: &str, script: &str) {
    let program = folder.join(name);
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder for `--bin`: the real tracker, and a client that does this first, for any of its words or for none.
pub(crate) fn client_that(does: &str) -> TempDir {
    let programs = tempfile::tempdir().unwrap();
    symlink(program("tracker"), programs.path().join("tracker")).unwrap();
    let script = format!("{does}\nexec '{}' \"$@\"", program("client").display());
    fake(programs.path(), "client", &script);
    programs
}
