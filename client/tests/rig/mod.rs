//! Real processes for the tests: a tracker on port 0, nodes and one-shot commands, all in one temporary directory.
//!
//! ```text
//!   TestRig (temp dir, tracker_info.txt) ──► tracker        RunningNode (`client serve`)
//!    └──► UserHome (state directory of one user) ──► run(…) one-shot commands ──► CommandResult
//! ```
//!
//! Each started process is killed by its process id when its value is dropped. Tests never sleep instead of waiting: they wait
//! for a line on stdout, the end of a process, or a condition that is polled ([`until`]).
#![allow(dead_code, reason = "each test file uses the part that it needs")]
#![allow(clippy::unwrap_used, reason = "a rig that cannot be set up is a failed test")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) const CLIENT: &str = env!("CARGO_BIN_EXE_client");

/// Length of a piece in bytes.
pub(crate) const PIECE: usize = 524_288;

/// `count` pieces, all different (xorshift).
pub(crate) fn pieces(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(count * PIECE / 8).flatten().collect()
}

/// The temporary directory of one test, and its tracker.
pub(crate) struct TestRig {
    dir: TempDir,
    tracker: Option<Child>,
    /// Reserves the address that `without_tracker` names, so that no other process gets it.
    _reserved: OwnedFd,
}

/// An address that refuses connections as long as the returned socket is open.
pub(crate) fn unused_address() -> (OwnedFd, SocketAddr) {
    let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = getsockname(&bound).unwrap().try_into().unwrap();
    (bound, address)
}

/// Result of a command that has ended.
#[derive(Debug)]
pub(crate) struct CommandResult {
    pub(crate) code: i32,
    /// Stdout.
    pub(crate) out: String,
    /// Stderr.
    pub(crate) err: String,
}

impl CommandResult {
    /// Fails the test with all output unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> CommandResult {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl TestRig {
    /// Without a tracker: `tracker_info.txt` names an address that refuses connections.
    pub(crate) fn without_tracker() -> TestRig {
        let dir = tempfile::tempdir().unwrap();
        let (bound, address) = unused_address();
        let rig = TestRig { dir, tracker: None, _reserved: bound };
        rig.name_tracker(address);
        rig
    }

    /// With a running tracker.
    pub(crate) fn new() -> TestRig {
        let mut rig = TestRig::without_tracker();
        rig.start_tracker();
        rig
    }

    /// Starts a tracker with the data of the previous one, if any, and writes its new address to `tracker_info.txt`.
    pub(crate) fn start_tracker(&mut self) {
        let rig = self;
        let binary = Path::new(CLIENT).with_file_name("tracker");
        assert!(
            binary.exists(),
            "{} is not there: `cargo build -p tracker` builds it (`cargo test --workspace` builds both)",
            binary.display()
        );
        let file = rig.path("founding.txt");
        std::fs::write(&file, "127.0.0.1 0\n").unwrap();
        let mut command = Command::new(binary);
        command.arg(&file).arg("1").arg("--data").arg(rig.path("tracker_data")).current_dir(rig.dir.path());
        let (child, line) = started(&mut command);
        rig.tracker = Some(child);
        let address = line.rsplit(' ').next().unwrap_or_default().parse();
        rig.name_tracker(address.unwrap_or_else(|_| panic!("the tracker said {line:?}")));
    }

    /// With a tracker of the test's own.
    pub(crate) fn with_tracker_at(address: SocketAddr) -> TestRig {
        let rig = TestRig::without_tracker();
        rig.name_tracker(address);
        rig
    }

    /// The tracker's address.
    pub(crate) fn tracker(&self) -> SocketAddr {
        std::fs::read_to_string(self.path("tracker_info.txt"))
            .unwrap()
            .trim()
            .replace(' ', ":")
            .parse()
            .unwrap()
    }

    /// Writes `tracker_info.txt` atomically, so that nodes never read half of it.
    pub(crate) fn name_tracker(&self, address: SocketAddr) {
        let line = format!("{} {}\n", address.ip(), address.port());
        let new = self.path("tracker_info.txt.new");
        std::fs::write(&new, line).unwrap();
        std::fs::rename(new, self.path("tracker_info.txt")).unwrap();
    }

    /// A path in the temporary directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A state directory.
    pub(crate) fn home(&self, name: &str) -> UserHome {
        UserHome { directory: self.dir.path().to_owned(), state: self.path(format!("state-{name}")) }
    }

    /// A new user who is logged in at a running node.
    pub(crate) fn user(&self, name: &str) -> (UserHome, RunningNode) {
        let home = self.home(name);
        let node = home.serve(&[]);
        home.run(["create_user", name, "password"]).expect(0);
        home.run(["login", name, "password"]).expect(0);
        (home, node)
    }

    /// Starts a node by another command with the environment of `surroundings`; waits until it listens.
    pub(crate) fn adopt(&self, mut command: Command, surroundings: &Command) -> RunningNode {
        for (name, value) in surroundings.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (child, line) = started(command.current_dir(self.dir.path()));
        let address = line.strip_prefix("node listening on ").and_then(|text| text.parse().ok());
        RunningNode { child, address: address.unwrap_or_else(|| panic!("the node said {line:?}")) }
    }

    pub(crate) fn kill_tracker(&mut self) {
        if let Some(mut tracker) = self.tracker.take() {
            end(&mut tracker);
        }
    }
}

impl Drop for TestRig {
    fn drop(&mut self) {
        self.kill_tracker();
    }
}

/// One user's state directory.
#[derive(Clone)]
pub(crate) struct UserHome {
    directory: PathBuf,
    state: PathBuf,
}

impl UserHome {
    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// A command with this state directory, not started yet.
    pub(crate) fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(CLIENT);
        command.args(words).current_dir(&self.directory);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("SHOAL_")) {
                command.env_remove(name);
            }
        }
        command.env("SHOAL_STATE", &self.state).env("XDG_CONFIG_HOME", self.state.join("no-config"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> CommandResult {
        ended(&mut self.command(words))
    }

    /// Runs lines at a prompt that reads from a pipe.
    pub(crate) fn prompt(&self, lines: &str) -> CommandResult {
        use std::io::Write;
        let mut command = self.command(std::iter::empty::<&str>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        outcome(child)
    }

    /// Starts a prompt that reads from an open pipe, and waits for the answer to the line `status`.
    pub(crate) fn open_prompt(&self) -> RunningNode {
        use std::io::Write;
        let mut command = self.command(std::iter::empty::<&str>());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"status\n").unwrap();
        let line = first_line(&mut child);
        assert!(line.starts_with("node"), "{line}");
        RunningNode { child, address: ([0, 0, 0, 0], 0).into() }
    }

    /// Starts a node and waits until it listens.
    pub(crate) fn serve(&self, options: &[&str]) -> RunningNode {
        let mut command = self.command(["serve", "--listen", "127.0.0.1"]);
        command.args(options);
        let (child, line) = started(&mut command);
        let address = line.strip_prefix("node listening on ").and_then(|text| text.parse().ok());
        RunningNode { child, address: address.unwrap_or_else(|| panic!("the node said {line:?}")) }
    }

    /// Like [`UserHome::serve`], with the node's stderr.
    pub(crate) fn serve_and_hear(&self) -> (RunningNode, Heard) {
        let mut command = self.command(["serve", "--listen", "127.0.0.1"]);
        let (mut child, line) = started(command.stderr(Stdio::piped()));
        let heard = Heard::from(&mut child);
        let address = line.strip_prefix("node listening on ").and_then(|text| text.parse().ok()).unwrap();
        (RunningNode { child, address }, heard)
    }

    /// Starts a command, with its stderr.
    pub(crate) fn start_and_hear(&self, words: &[&str]) -> (RunningNode, Heard) {
        let mut child = self.command(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let heard = Heard::from(&mut child);
        (RunningNode { child, address: ([0, 0, 0, 0], 0).into() }, heard)
    }

    /// The output of `status --json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.run(["status", "--json"]).expect(0).out).unwrap()
    }

    /// The output of `show_downloads`.
    pub(crate) fn downloads(&self) -> String {
        self.run(["show_downloads"]).expect(0).out
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, words: &[&str]) -> Running {
        let mut command = self.command(words);
        Running { child: Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()) }
    }

    /// Starts a command and waits for its first line on stdout.
    pub(crate) fn start(&self, words: &[&str]) -> (RunningNode, String) {
        let (child, line) = started(&mut self.command(words));
        (RunningNode { child, address: ([0, 0, 0, 0], 0).into() }, line)
    }
}

/// A running node or command, killed on drop.
pub(crate) struct RunningNode {
    child: Child,
    /// Address for peers.
    pub(crate) address: SocketAddr,
}

impl RunningNode {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits for its end and returns the exit code. Its stdin stays open until then.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let _stdin = self.child.stdin.take();
        self.child.wait().unwrap().code()
    }

    pub(crate) fn kill(mut self) {
        end(&mut self.child);
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The stderr of a process.
pub(crate) struct Heard {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Heard {
    fn from(child: &mut Child) -> Heard {
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let text = Arc::new(Mutex::new(String::new()));
        let so_far = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).unwrap() > 0 {
                so_far.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Heard { text, reader }
    }

    /// Whether the process has written `text`. Output that is not written yet is lost at a kill.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.text.lock().unwrap().contains(text)
    }

    /// Waits for its end and returns the whole output.
    pub(crate) fn all(self) -> String {
        self.reader.join().unwrap();
        self.text.lock().unwrap().clone()
    }
}

/// A running command, whose result is read at its end.
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Whether the command is still running.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub(crate) fn ended(mut self) -> CommandResult {
        outcome(self.child.take().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// Polls until a condition holds. Fails the test with `what` if it never does.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    const LOOKS: usize = 60_000;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
    for _ in 0..LOOKS {
        if holds() {
            return;
        }
        // Polls; this is not a replacement for the condition.
        std::thread::park_timeout(PAUSE);
    }
    panic!("it never came about: {what}");
}

/// Sends a signal to a child process that was not waited for yet.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn ended(command: &mut Command) -> CommandResult {
    outcome(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn outcome(child: Child) -> CommandResult {
    let output = child.wait_with_output().unwrap();
    CommandResult {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts a process and reads its first line of stdout. The rest is read and dropped, so that the process never blocks.
fn started(command: &mut Command) -> (Child, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let line = first_line(&mut child);
    (child, line)
}

fn first_line(child: &mut Child) -> String {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    line.trim_end().to_owned()
}
