//! The system calls by which a program makes files durable, traced by `strace` from outside, so that a missing sync shows
//! wherever in the program it is missing.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::rig::try_spawn;

/// System calls that make files durable, and those that have to come after them.
const CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat";

/// Trace from a separate process, with all threads, and with the paths of descriptors.
const FLAGS: [&str; 4] = ["-D", "-f", "-y", "-q"];

/// How often the trace of an ended program is read until it has its last line …
const LOOKS_MAX: u32 = 6_000;

/// … and the time between two reads.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The trace of one program.
pub(crate) struct Trace {
    file: PathBuf,
    /// Arguments of `strace -e`: what to trace and what to fail.
    expressions: Vec<String>,
}

impl Trace {
    /// A trace that is written to this file; `None` with a message where tracing is not possible.
    pub(crate) fn to(file: PathBuf) -> Option<Trace> {
        let tried = try_spawn(
            Command::new("strace")
                .args(FLAGS)
                .args(["-e", &format!("trace={CALLS}"), "-e", "inject=fdatasync:error=EIO:when=1"])
                .args(["-o", "/dev/null", "true"])
                .stderr(Stdio::null()),
        );
        let tried = tried.and_then(|mut child| child.wait());
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("skipped: strace is not installed, or tracing is forbidden here");
            return None;
        }
        Some(Trace { file, expressions: vec![format!("trace={CALLS}")] })
    }

    /// Traces another system call too.
    #[must_use]
    pub(crate) fn with(mut self, call: &str) -> Trace {
        self.expressions[0] = format!("trace={CALLS},{call}");
        self
    }

    /// Makes the system call of this number, counted from 1, fail with an I/O error.
    #[must_use]
    pub(crate) fn failing(mut self, call: &str, number: u32) -> Trace {
        self.expressions.push(format!("inject={call}:error=EIO:when={number}"));
        self
    }

    /// The command that runs the program traced. The child is the program itself; the tracer is another process that ends
    /// with it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("strace");
        command.args(FLAGS);
        for expression in &self.expressions {
            command.args(["-e", expression]);
        }
        command.arg("-o").arg(&self.file).arg(program);
        command
    }

    /// The calls so far, ordered by the moment that counts.
    pub(crate) fn calls(&self) -> Vec<Call> {
        calls_of(&std::fs::read_to_string(&self.file).unwrap_or_default())
    }

    /// All calls of a program that has ended, once the tracer has written its end.
    pub(crate) fn all_calls(&self, pid: u32) -> Vec<Call> {
        let (_alive, nothing) = sync_channel::<()>(0);
        for _ in 0..LOOKS_MAX {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let has_ended = |line: &str| {
                line.split_once(' ').is_some_and(|(of, rest)| of == pid.to_string() && rest.contains("+++ "))
            };
            if text.lines().any(has_ended) {
                return calls_of(&text);
            }
            let _ = nothing.recv_timeout(LOOK_EVERY);
        }
        panic!("the trace has no end: {:#?}", self.calls());
    }
}

/// One system call, with its result if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The tracer's text without the thread number.
    pub(crate) text: String,
    /// Line of the trace in which it begins.
    pub(crate) begin: usize,
    /// Line in which it ends; `None`: it has not ended.
    pub(crate) end: Option<usize>,
}

impl Call {
    /// The line that counts. A sync has an effect when it ends; a rename or write may have one as soon as it begins.
    fn counts_at(&self) -> Option<usize> {
        if self.is_sync() { self.end } else { Some(self.begin) }
    }

    fn is_sync(&self) -> bool {
        self.text.starts_with("fsync(") || self.text.starts_with("fdatasync(")
    }
}

const UNFINISHED: &str = " <unfinished ...>";
const RESUMED: &str = " resumed>";

/// The calls of a trace. When another thread's call comes in between, the tracer splits a call into two lines, which are
/// joined here. A sync that has not ended is left out.
fn calls_of(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    // The unfinished call of each thread.
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let Some((thread, said)) = line.split_once(' ') else { continue };
        let said = said.trim_start();
        if let Some(begun) = said.strip_suffix(UNFINISHED) {
            open.insert(thread, calls.len());
            calls.push(Call { text: begun.to_owned(), begin: at, end: None });
        } else if let Some((_, rest)) = said.strip_prefix("<... ").and_then(|said| said.split_once(RESUMED)) {
            let Some(call) = open.remove(thread).and_then(|call| calls.get_mut(call)) else { continue };
            call.text.push_str(rest);
            call.end = Some(at);
        } else {
            calls.push(Call { text: said.to_owned(), begin: at, end: Some(at) });
        }
    }
    calls.retain(|call| call.counts_at().is_some());
    calls.sort_by_key(Call::counts_at);
    calls
}

/// A path as the trace shows it behind a descriptor.
pub(crate) fn shown(path: &Path) -> String {
    format!("<{}>", path.canonicalize().unwrap().display())
}

/// Index of the next call, from `from` on, whose text has all these parts. A sync has to have succeeded, unless `EIO` is among
/// the parts.
///
/// # Panics
/// When there is no such call.
pub(crate) fn next(calls: &[Call], from: usize, parts: &[&str]) -> usize {
    let may_fail = parts.contains(&"EIO");
    let fits = |call: &Call| {
        parts.iter().all(|part| call.text.contains(part))
            && (!call.is_sync() || may_fail || call.text.ends_with(" = 0"))
    };
    let found = calls[from..].iter().position(fits);
    from + found.unwrap_or_else(|| panic!("no call with {parts:?} from call {from} on in {calls:#?}"))
}

#[test]
fn a_sync_counts_when_it_ends_and_a_rename_when_it_begins() {
    let calls = calls_of(
        "7  fsync(3</a> <unfinished ...>\n\
         8  rename(\"x\", \"y\" <unfinished ...>\n\
         9  fsync(4</b> <unfinished ...>\n\
         7  <... fsync resumed>)                   = 0\n\
         8  <... rename resumed>)                  = 0\n\
         10 fdatasync(5</c>)                       = -1 EIO (Input/output error) (INJECTED)\n\
         10 fdatasync(5</c>)                       = 0\n\
         7  +++ exited with 0 +++\n",
    );
    let rename = next(&calls, 0, &["rename", "\"y\""]);
    let sync = next(&calls, 0, &["sync(", "</a>"]);
    assert!(rename < sync, "the rename began before the sync ended");
    assert_eq!((calls[sync].begin, calls[sync].end), (0, Some(3)));
    assert!(calls.iter().all(|call| !call.text.contains("</b>")), "a sync that has not ended does not count");
    let failed = next(&calls, 0, &["sync(", "</c>", "EIO"]);
    assert_eq!(next(&calls, 0, &["sync(", "</c>"]), failed + 1, "a failed sync does not count");
}
