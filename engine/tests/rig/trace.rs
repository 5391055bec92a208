//! What a program asks of its disk, seen from outside: its system calls, by `strace`. So a sync that is missing is missed, wherever in the
//! program it should have been.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::rig::try_spawn;

/// The calls that make things durable, and those that have to come after them.
const CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat";

/// How it is traced: from beside, with its threads, and with the paths behind descriptors.
const FLAGS: [&str; 4] = ["-D", "-f", "-y", "-q"];

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
        command.args(FLAGS);
        for expression in &self.expressions {
            command.args(["-e", expression]);
        }
        command.arg("-o").arg(&self.file).arg(program);
        command
    }

    /// The calls so far, in the order of the moments that count.
    pub(crate) fn calls(&self) -> Vec<Call> {
        calls_of(&std::fs::read_to_string(&self.file).unwrap_or_default())
    }

    /// All calls of a program that has ended, once the tracer has written that it did.
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
        panic!("the tracer does not end: {:#?}", self.calls());
    }
}

/// One call, whole: with its result, as far as it has one.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// As the tracer writes it, without the number of its thread.
    pub(crate) text: String,
    /// The line of the trace in which it begins.
    pub(crate) begin: usize,
    /// The line in which it ends; `None` when it never does.
    pub(crate) end: Option<usize>,
}

impl Call {
    /// The line that counts. What a sync is for has reached the disk when it ends, and not when it begins; a name may be
    /// there, and what a write changes may be lost, from the moment on at which the call begins.
    fn counts_at(&self) -> Option<usize> {
        if self.is_sync() { self.end } else { Some(self.begin) }
    }

    fn is_sync(&self) -> bool {
        self.text.starts_with("fsync(") || self.text.starts_with("fdatasync(")
    }
}

const UNFINISHED: &str = " <unfinished ...>";
const RESUMED: &str = " resumed>";

/// The calls of a trace. When another thread's call comes in between, the tracer divides one into two lines, which are joined
/// here. A sync that has not ended is none.
fn calls_of(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    // Of each thread, the call that it is in.
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

/// The path of a directory or file as a trace shows it behind a descriptor.
pub(crate) fn shown(path: &Path) -> String {
    format!("<{}>", path.canonicalize().unwrap().display())
}

/// Where the next call is, from `from` on, that has all these parts; a sync only if it succeeded, or `EIO` is among the parts.
///
/// # Panics
/// When there is none.
pub(crate) fn next(calls: &[Call], from: usize, parts: &[&str]) -> usize {
    let may_fail = parts.contains(&"EIO");
    let fits = |call: &Call| {
        parts.iter().all(|part| call.text.contains(part))
            && (!call.is_sync() || may_fail || call.text.ends_with(" = 0"))
    };
    let found = calls[from..].iter().position(fits);
    from + found.unwrap_or_else(|| panic!("nothing like {parts:?} after call {from} of {calls:#?}"))
}

#[test]
fn a_sync_counts_when_it_has_ended_and_a_name_when_it_begins() {
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
    assert!(rename < sync, "the name was given before what it names was synced");
    assert_eq!((calls[sync].begin, calls[sync].end), (0, Some(3)));
    assert!(calls.iter().all(|call| !call.text.contains("</b>")), "a sync that has not ended is none");
    let failed = next(&calls, 0, &["sync(", "</c>", "EIO"]);
    assert_eq!(next(&calls, 0, &["sync(", "</c>"]), failed + 1, "nor is one that failed");
}
