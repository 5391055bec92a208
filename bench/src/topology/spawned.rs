//! A child process that lives as long as its value: ended by its process id, never by a name.
//!
//! Invariants: dropping it ends it and waits, and the harness's own end ends it too (`tied`); its words go to a file, so that
//! it never blocks on a full pipe, and the last of them explain a failure.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::descendants;
use super::limits::{END_MS, LAST_OUTPUT_BYTES, READY_MS};
use super::parent_death::end_with_parent;
use super::usage::{self, CpuSeconds};

/// A running child.
#[derive(Debug)]
pub(crate) struct SpawnedProgram {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// How a child ended, and what it had used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramExit {
    /// Its exit.
    pub(crate) status: ExitStatus,
    /// Of it and all its descendants that it waited for.
    pub(crate) cpu: CpuSeconds,
}

impl SpawnedProgram {
    /// Starts a program; both its outputs go to `NAME.log` in `place`.
    pub(crate) fn start(name: &str, command: &Command, place: &Path) -> anyhow::Result<SpawnedProgram> {
        let log = place.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = end_with_parent(command);
        command.stdout(output.try_clone()?).stderr(output);
        SpawnedProgram::spawn(name, &mut command, log)
    }

    /// Starts a program whose standard output is read here; the rest of its words go to `NAME.log` in `place`.
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
        let stdout = spawned.child.stdout.take().context("its output was to be piped")?;
        Ok((spawned, BufReader::new(stdout)))
    }

    /// Starts a program and waits for the line that says it is ready; gives what follows `prefix` there.
    pub(crate) fn start_ready(
        name: &str,
        command: &Command,
        place: &Path,
        prefix: &str,
    ) -> anyhow::Result<(SpawnedProgram, String)> {
        let (mut spawned, lines) = SpawnedProgram::start_piped(name, command, place)?;
        let told = read_first_match(name, lines, |line| Some(line.trim_end().to_owned()))?;
        match told.recv_timeout(Duration::from_millis(READY_MS)) {
            Ok(line) => match line.strip_prefix(prefix) {
                Some(rest) => Ok((spawned, rest.to_owned())),
                None => bail!("{name} said {line:?} where \"{prefix}…\" was expected"),
            },
            Err(_) => {
                let what = spawned.failure_output();
                spawned.end();
                bail!("{name} did not say that it is ready{what}")
            }
        }
    }

    /// Starts a program and waits, for so long, until it has said `mark`; gives the rest of that line.
    pub(crate) fn start_until(
        name: &str,
        command: &Command,
        place: &Path,
        mark: &'static str,
        limit: Duration,
    ) -> anyhow::Result<(SpawnedProgram, String)> {
        let (mut spawned, lines) = SpawnedProgram::start_piped(name, command, place)?;
        let told =
            read_first_match(name, lines, move |line| Some(line.split_once(mark)?.1.trim().to_owned()))?;
        match told.recv_timeout(limit) {
            Ok(rest) => Ok((spawned, rest)),
            Err(_) => {
                spawned.end();
                bail!("{name} did not say {mark:?}{}", spawned.failure_output())
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

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended; it is not waited for.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.ended.is_some() || self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> anyhow::Result<ProgramExit> {
        let pid = Pid::from_child(&self.child);
        // Ended, but not yet gone from /proc: only now its use is complete and still there to be read.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .with_context(|| format!("cannot wait for {}", self.name))?;
        let cpu = usage::cpu_of(self.pid()).unwrap_or_default();
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(ProgramExit { status, cpu })
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn wait_for_success(&mut self) -> anyhow::Result<ProgramExit> {
        let ended = self.wait()?;
        if !ended.status.success() {
            bail!("{} ended with {}{}", self.name, ended.status, self.failure_output());
        }
        Ok(ended)
    }

    /// The end of what it said, as the end of a sentence.
    pub(crate) fn failure_output(&self) -> String {
        let words = self.log_tail();
        if words.is_empty() { words } else { format!("; its last words: {words}") }
    }

    fn read_log_tail(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_OUTPUT_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The last of what it said.
    pub(crate) fn log_tail(&self) -> String {
        self.read_log_tail().unwrap_or_default()
    }

    /// Ends it: asks first, kills when it does not heed, and waits.
    pub(crate) fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // Its descendants as well: who holds others together may not heed the signal itself.
        descendants::signal_tree(self.pid(), Signal::TERM);
        if !crate::clock::wait_until(Duration::from_millis(END_MS), || self.has_ended()) {
            let _ = self.child.kill();
        }
        self.ended = self.child.wait().ok();
    }
}

impl Drop for SpawnedProgram {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads what a program says to its end, so that it never blocks; the first line that is picked comes out, as it was picked.
fn read_first_match(
    name: &str,
    mut lines: BufReader<ChildStdout>,
    pick: impl Fn(&str) -> Option<String> + Send + 'static,
) -> anyhow::Result<mpsc::Receiver<String>> {
    let (tell, told) = mpsc::sync_channel(1);
    // Ends with the program.
    std::thread::Builder::new().name(format!("reads {name}")).spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            if let Some(picked) = pick(&line) {
                let _ = tell.try_send(picked);
            }
            line.clear();
        }
    })?;
    Ok(told)
}

/// Runs a program to its successful end; gives its standard output.
pub(crate) fn run_program(name: &str, command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name} ({program})"))?;
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        bail!(
            "{name} ended with {}: {words} {}",
            output.status,
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line that a program says of itself, or why there is none.
pub(crate) fn first_line(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} is not installed: scripts/bench-rivals.sh installs it"))?;
    // Some say it on the one, some on the other.
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let line = text.iter().flat_map(|text| text.lines()).find(|line| !line.trim().is_empty());
    line.map(|line| line.trim().to_owned()).with_context(|| {
        format!("{program} {} said nothing and ended with {}", args.join(" "), output.status)
    })
}

/// A folder that is there and empty.
pub(crate) fn empty_folder(path: PathBuf) -> anyhow::Result<PathBuf> {
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
    fn a_failed_program_says_why() {
        let place = tempfile::tempdir().unwrap();
        let mut failing =
            SpawnedProgram::start("failing", &shell("echo no bread >&2; exit 3"), place.path()).unwrap();
        let fault = failing.wait_for_success().unwrap_err().to_string();
        assert!(fault.contains("no bread") && fault.contains("failing"), "{fault}");
    }

    #[test]
    fn a_missing_program_is_told_with_the_way_out() {
        let fault = first_line("no-such-program-anywhere", &["--version"]).unwrap_err().to_string();
        assert!(fault.contains("not installed"), "{fault}");
    }

    #[test]
    fn readiness_is_a_line_and_dropping_ends() {
        let place = tempfile::tempdir().unwrap();
        let script = "echo ready at 7; read forever; sleep 1000";
        let command = shell("exec sleep 1000");
        let lasting = SpawnedProgram::start("lasting", &command, place.path()).unwrap();
        let pid = lasting.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(lasting);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let (_, rest) = SpawnedProgram::start_ready(
            "r",
            &shell(&script.replace("; sleep 1000", "")),
            place.path(),
            "ready at ",
        )
        .unwrap();
        assert_eq!(rest, "7");
    }

    #[test]
    fn a_mark_is_found_behind_other_words_or_not_waited_for_longer() {
        let place = tempfile::tempdir().unwrap();
        let talker = shell("echo one; echo 'and two 2'; exec sleep 1000");
        let limit = Duration::from_secs(600);
        let (spawned, rest) =
            SpawnedProgram::start_until("talker", &talker, place.path(), "two ", limit).unwrap();
        assert_eq!(rest, "2");
        drop(spawned);
        let never = SpawnedProgram::start_until("talker", &talker, place.path(), "three", Duration::ZERO);
        assert!(never.unwrap_err().to_string().contains("did not say"));
        let mut ended = SpawnedProgram::start("t", &shell("echo one; echo two >&2"), place.path()).unwrap();
        ended.wait_for_success().unwrap();
        assert_eq!(ended.log_tail(), "one\ntwo");
    }
}
