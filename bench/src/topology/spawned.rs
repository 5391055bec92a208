//! A child process that is owned by a value: [`SpawnedProgram`].
//!
//! Invariants: dropping the value ends the process and waits for it; the process also ends with the harness
//! (`parent_death`). Its output goes to a file, so it never blocks on a full pipe, and error messages quote the end of
//! that file.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::descendants;
use super::parent_death::end_with_parent;
use super::usage::{self, CpuSeconds};
use crate::limits::{END_MS, LAST_OUTPUT_BYTES, READY_MS};

/// A running program.
#[derive(Debug)]
pub(crate) struct SpawnedProgram {
    name: String,
    child: Child,
    /// File with the output, or with the standard error alone if the output is piped.
    log: PathBuf,
    /// `None` until the process has been waited for.
    ended: Option<ExitStatus>,
}

/// How a program ended, and its resource use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramExit {
    pub(crate) status: ExitStatus,
    /// CPU time of the process and of all descendants that were waited for.
    pub(crate) cpu: CpuSeconds,
}

impl SpawnedProgram {
    /// Starts a program. Its standard output and error go to `NAME.log` in `place`.
    pub(crate) fn start(name: &str, command: &Command, place: &Path) -> anyhow::Result<SpawnedProgram> {
        let log = place.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = end_with_parent(command);
        command.stdout(output.try_clone()?).stderr(output);
        SpawnedProgram::spawn(name, &mut command, log)
    }

    /// Starts a program whose standard output the caller reads. Its standard error goes to `NAME.log` in `place`.
    pub(crate) fn start_piped(
        name: &str,
        command: &Command,
        place: &Path,
    ) -> anyhow::Result<(SpawnedProgram, BufReader<ChildStdout>)> {
        let log = place.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = end_with_parent(command);
        command.stdout(Stdio::piped()).stderr(output);
        let mut spawned = SpawnedProgram::spawn(name, &mut command, log)?;
        let stdout = spawned.child.stdout.take().context("the program's output is piped")?;
        Ok((spawned, BufReader::new(stdout)))
    }

    /// Starts a program and waits for its first line, which must start with `prefix`; returns the rest of the line.
    pub(crate) fn start_ready(
        name: &str,
        command: &Command,
        place: &Path,
        prefix: &str,
    ) -> anyhow::Result<(SpawnedProgram, String)> {
        let (mut spawned, lines) = SpawnedProgram::start_piped(name, command, place)?;
        let matches = read_first_match(name, lines, |line| Some(line.trim_end().to_owned()))?;
        match matches.recv_timeout(Duration::from_millis(READY_MS)) {
            Ok(line) => match line.strip_prefix(prefix) {
                Some(rest) => Ok((spawned, rest.to_owned())),
                None => bail!("{name} printed {line:?} instead of \"{prefix}…\""),
            },
            Err(_) => {
                let last_output = spawned.failure_output();
                spawned.terminate();
                bail!("{name} did not report that it is ready{last_output}")
            }
        }
    }

    /// Starts a program and waits until a line contains `mark`; returns the rest of that line.
    pub(crate) fn start_until(
        name: &str,
        command: &Command,
        place: &Path,
        mark: &'static str,
        limit: Duration,
    ) -> anyhow::Result<(SpawnedProgram, String)> {
        let (mut spawned, lines) = SpawnedProgram::start_piped(name, command, place)?;
        let matches =
            read_first_match(name, lines, move |line| Some(line.split_once(mark)?.1.trim().to_owned()))?;
        match matches.recv_timeout(limit) {
            Ok(rest) => Ok((spawned, rest)),
            Err(_) => {
                spawned.terminate();
                bail!("{name} did not print {mark:?}{}", spawned.failure_output())
            }
        }
    }

    fn spawn(name: &str, command: &mut Command, log: PathBuf) -> anyhow::Result<SpawnedProgram> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(SpawnedProgram { name: name.to_owned(), child, log, ended: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has exited. Does not block.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.ended.is_some() || self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits until the process exits.
    pub(crate) fn wait(&mut self) -> anyhow::Result<ProgramExit> {
        let pid = Pid::from_child(&self.child);
        // NOWAIT leaves the exited process unreaped: its CPU time is complete and still readable in /proc.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .with_context(|| format!("cannot wait for {}", self.name))?;
        let cpu = usage::cpu_of(self.pid()).unwrap_or_default();
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(ProgramExit { status, cpu })
    }

    /// Waits until the process exits. Fails unless its exit code is 0.
    pub(crate) fn wait_for_success(&mut self) -> anyhow::Result<ProgramExit> {
        let ended = self.wait()?;
        if !ended.status.success() {
            bail!("{} ended with {}{}", self.name, ended.status, self.failure_output());
        }
        Ok(ended)
    }

    /// Text to append to an error message: the end of the output, or nothing if there is none.
    pub(crate) fn failure_output(&self) -> String {
        let tail = self.log_tail();
        if tail.is_empty() { tail } else { format!("; its last output: {tail}") }
    }

    fn read_log_tail(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_OUTPUT_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The last [`LAST_OUTPUT_BYTES`] of the log; empty if it cannot be read.
    pub(crate) fn log_tail(&self) -> String {
        self.read_log_tail().unwrap_or_default()
    }

    /// Ends the process: sends SIGTERM, then SIGKILL after [`END_MS`], and waits until it has exited.
    pub(crate) fn terminate(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // Descendants get the signal too: a wrapper such as `unshare` may ignore it.
        descendants::signal_tree(self.pid(), Signal::TERM);
        if !crate::clock::wait_until(Duration::from_millis(END_MS), || self.has_ended()) {
            let _ = self.child.kill();
        }
        self.ended = self.child.wait().ok();
    }
}

impl Drop for SpawnedProgram {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Reads a program's output to the end in a thread, so that the program never blocks on a full pipe. The receiver gets
/// what `pick` returns for the first line that it accepts.
fn read_first_match(
    name: &str,
    mut lines: BufReader<ChildStdout>,
    pick: impl Fn(&str) -> Option<String> + Send + 'static,
) -> anyhow::Result<mpsc::Receiver<String>> {
    let (sender, matches) = mpsc::sync_channel(1);
    // The thread ends when the program closes its output.
    std::thread::Builder::new().name(format!("reads {name}")).spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            if let Some(picked) = pick(&line) {
                let _ = sender.try_send(picked);
            }
            line.clear();
        }
    })?;
    Ok(matches)
}

/// Runs a program, which must succeed, and returns its standard output.
pub(crate) fn run_program(name: &str, command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name} ({program})"))?;
    let error_output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        bail!(
            "{name} ended with {}: {error_output} {}",
            output.status,
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program and returns the first line that it prints, on standard output or else on standard error.
pub(crate) fn read_first_line(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} is not installed: scripts/bench-rivals.sh installs it"))?;
    // Some programs print their version on standard error.
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let line = text.iter().flat_map(|text| text.lines()).find(|line| !line.trim().is_empty());
    line.map(|line| line.trim().to_owned()).with_context(|| {
        format!("{program} {} printed nothing and ended with {}", args.join(" "), output.status)
    })
}

/// Creates an empty folder, replacing a folder that exists.
pub(crate) fn create_empty_folder(path: PathBuf) -> anyhow::Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
    }
    fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_quotes_the_output() {
        let place = tempfile::tempdir().unwrap();
        let mut failing =
            SpawnedProgram::start("failing", &shell("echo disk full >&2; exit 3"), place.path()).unwrap();
        let fault = failing.wait_for_success().unwrap_err().to_string();
        assert!(fault.contains("disk full") && fault.contains("failing"), "{fault}");
    }

    #[test]
    fn a_missing_program_is_reported_with_a_remedy() {
        let fault = read_first_line("no-such-program-anywhere", &["--version"]).unwrap_err().to_string();
        assert!(fault.contains("not installed"), "{fault}");
    }

    #[test]
    fn readiness_is_a_line_and_dropping_ends() {
        let place = tempfile::tempdir().unwrap();
        let command = shell("exec sleep 1000");
        let lasting = SpawnedProgram::start("lasting", &command, place.path()).unwrap();
        let pid = lasting.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(lasting);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let (_, rest) = SpawnedProgram::start_ready(
            "r",
            &shell("echo ready at 7; read forever"),
            place.path(),
            "ready at ",
        )
        .unwrap();
        assert_eq!(rest, "7");
    }

    #[test]
    fn a_mark_is_found_within_a_line_or_times_out() {
        let place = tempfile::tempdir().unwrap();
        let talker = shell("echo one; echo 'and two 2'; exec sleep 1000");
        let limit = Duration::from_secs(600);
        let (spawned, rest) =
            SpawnedProgram::start_until("talker", &talker, place.path(), "two ", limit).unwrap();
        assert_eq!(rest, "2");
        drop(spawned);
        let never = SpawnedProgram::start_until("talker", &talker, place.path(), "three", Duration::ZERO);
        assert!(never.unwrap_err().to_string().contains("did not print"));
        let mut ended = SpawnedProgram::start("t", &shell("echo one; echo two >&2"), place.path()).unwrap();
        ended.wait_for_success().unwrap();
        assert_eq!(ended.log_tail(), "one\ntwo");
    }
}
