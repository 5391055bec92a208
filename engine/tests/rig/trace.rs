//! What a program asks of its disk, seen from outside: its system calls, by `strace`. So a sync that is missing is missed, wherever in the
//! program it should have been.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// The calls that make things durable, and those that have to come after them.
const CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat";

/// The trace of a program that has ended may lack its last line for so many looks …
const LOOKS_MAX: u32 = 6_000;

/// … with so much between two.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The trace of one program.
pub(crate) struct Trace {
    file: PathBuf,
    /// What is traced, and what is to fail, as `strace` has it.
    expressions: Vec<String>,
}

impl Trace {
    /// One that is written to this file; `None`, and a word about it, where nobody may trace.
    pub(crate) fn to(file: PathBuf) -> Option<Trace> {
        let tried =
            Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("skipped: strace is not installed, or tracing is forbidden here");
            return None;
        }
        Some(Trace { file, expressions: vec![format!("trace={CALLS}")] })
    }

    /// Traces another call, too.
    #[must_use]
    pub(crate) fn with(mut self, call: &str) -> Trace {
        self.expressions[0] = format!("trace={CALLS},{call}");
        self
    }

    /// Lets the call of this number, from 1, fail with an I/O error, and do nothing.
    #[must_use]
    pub(crate) fn failing(mut self, call: &str, number: u32) -> Trace {
        self.expressions.push(format!("inject={call}:error=EIO:when={number}"));
        self
    }

    /// The program, to be run so that it is traced. It is the child itself: the tracer is a process beside it that ends with it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-y", "-q"]);
        for expression in &self.expressions {
            command.args(["-e", expression]);
        }
        command.arg("-o").arg(&self.file).arg(program);
        command
    }

    /// The calls so far, a line each, as they began.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().filter(|line| !line.contains(" resumed>")).map(str::to_owned).collect()
    }

    /// All calls of a program that has ended, once the tracer has written that it did.
    pub(crate) fn all_calls(&self, pid: u32) -> Vec<String> {
        let ending = format!("{pid} ");
        let (_alive, nothing) = sync_channel::<()>(0);
        for _ in 0..LOOKS_MAX {
            let calls = self.calls();
            if calls.iter().any(|call| call.starts_with(&ending) && call.contains(" +++ ")) {
                return calls;
            }
            let _ = nothing.recv_timeout(LOOK_EVERY);
        }
        panic!("the tracer does not end: {:#?}", self.calls());
    }
}

/// The path of a directory or file as a trace shows it behind a descriptor.
pub(crate) fn shown(path: &Path) -> String {
    format!("<{}>", path.canonicalize().unwrap().display())
}

/// Where the next call is, from `from` on, that has all these parts.
///
/// # Panics
/// When there is none.
pub(crate) fn next(calls: &[String], from: usize, parts: &[&str]) -> usize {
    let has_all = |call: &String| parts.iter().all(|part| call.contains(part));
    let found = calls[from..].iter().position(has_all);
    from + found.unwrap_or_else(|| panic!("nothing like {parts:?} after call {from} of {calls:#?}"))
}
