//! Real processes for the tests: a tracker on port 0, nodes and one-shot commands, all in one temporary directory.
//!
//! ```text
//!   Rig (temp dir, tracker_info.txt) ──► tracker        Node (`client serve`)
//!    └──► Home (state directory of one user) ──► run(…) one-shot commands ──► Ended
//! ```
//!
//! Invariant: whatever was started is ended by its process id when its value is dropped. Nothing sleeps instead of
//! waiting: what must be waited for is a line on stdout, the end of a process, or a condition that is looked at again and
//! again ([`until`]).
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

/// The client's binary.
pub(crate) const CLIENT: &str = env!("CARGO_BIN_EXE_client");

/// A piece's length in bytes.
pub(crate) const PIECE: usize = 524_288;

/// So many pieces, no two of which are the same (xorshift), from a seed.
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

/// A place for one test, with a tracker if one was started.
pub(crate) struct TestRig {
    dir: TempDir,
    tracker: Option<Child>,
    /// What the address that `without_tracker` names belongs to, so that it never becomes somebody else's.
    _nobody: OwnedFd,
}

/// An address on which nobody listens, and never will as long as the socket that it belongs to is kept.
pub(crate) fn unused_address() -> (OwnedFd, SocketAddr) {
    let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = getsockname(&bound).unwrap().try_into().unwrap();
    (bound, address)
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct CommandResult {
    /// Exit code.
    pub(crate) code: i32,
    /// What it wrote to stdout.
    pub(crate) out: String,
    /// What it wrote to stderr.
    pub(crate) err: String,
}

impl CommandResult {
    /// Itself, when the code is the wanted one; else the test fails and shows everything.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> CommandResult {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl TestRig {
    /// A place without a tracker: its `tracker_info.txt` names a port on which nobody listens.
    pub(crate) fn without_tracker() -> TestRig {
        let dir = tempfile::tempdir().unwrap();
        let (bound, address) = unused_address();
        let rig = TestRig { dir, tracker: None, _nobody: bound };
        rig.name_tracker(address);
        rig
    }

    /// A place with a tracker that serves.
    pub(crate) fn new() -> TestRig {
        let mut rig = TestRig::without_tracker();
        rig.start_tracker();
        rig
    }

    /// Starts a tracker on the memory of the one before, if there was one, and names it: it has another address.
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

    /// A place whose `tracker_info.txt` names a tracker of the test's own.
    pub(crate) fn with_tracker_at(address: SocketAddr) -> TestRig {
        let rig = TestRig::without_tracker();
        rig.name_tracker(address);
        rig
    }

    /// Where the tracker listens.
    pub(crate) fn tracker(&self) -> SocketAddr {
        std::fs::read_to_string(self.path("tracker_info.txt"))
            .unwrap()
            .trim()
            .replace(' ', ":")
            .parse()
            .unwrap()
    }

    /// Names a tracker. Nodes that look while it is done find the former name or the new one, never half of a file.
    pub(crate) fn name_tracker(&self, address: SocketAddr) {
        let line = format!("{} {}\n", address.ip(), address.port());
        let new = self.path("tracker_info.txt.new");
        std::fs::write(&new, line).unwrap();
        std::fs::rename(new, self.path("tracker_info.txt")).unwrap();
    }

    /// A path in the place.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a file with these bytes.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The state directory of one user.
    pub(crate) fn home(&self, name: &str) -> UserHome {
        UserHome { directory: self.dir.path().to_owned(), state: self.path(format!("state-{name}")) }
    }

    /// A user who exists, is logged in, and whose node serves.
    pub(crate) fn user(&self, name: &str) -> (UserHome, RunningNode) {
        let home = self.home(name);
        let node = home.serve(&[]);
        home.run(["create_user", name, "password"]).expect(0);
        home.run(["login", name, "password"]).expect(0);
        (home, node)
    }

    /// Starts a node by a command of the test's own, with the surroundings of another; waits until it listens.
    pub(crate) fn adopt(&self, mut command: Command, surroundings: &Command) -> RunningNode {
        for (name, value) in surroundings.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (child, line) = started(command.current_dir(self.dir.path()));
        assert!(line.starts_with("node listening on "), "{line}");
        RunningNode { child, address: ([0, 0, 0, 0], 0).into() }
    }

    /// Kills the tracker.
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

    /// Starts a prompt that reads from a pipe which stays open, and waits for what the line `status` answers.
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

    /// Starts the node, and waits until it listens.
    pub(crate) fn serve(&self, options: &[&str]) -> RunningNode {
        let mut command = self.command(["serve", "--listen", "127.0.0.1"]);
        command.args(options);
        let (child, line) = started(&mut command);
        let address = line.strip_prefix("node listening on ").and_then(|text| text.parse().ok());
        RunningNode { child, address: address.unwrap_or_else(|| panic!("the node said {line:?}")) }
    }

    /// As [`UserHome::serve`], with what it writes to stderr.
    pub(crate) fn serve_and_hear(&self) -> (RunningNode, Heard) {
        let mut command = self.command(["serve", "--listen", "127.0.0.1"]);
        let (mut child, line) = started(command.stderr(Stdio::piped()));
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
        let address = line.strip_prefix("node listening on ").and_then(|text| text.parse().ok()).unwrap();
        (RunningNode { child, address }, Heard { text, reader })
    }

    /// How the node is, as `status --json` has it.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.run(["status", "--json"]).expect(0).out).unwrap()
    }

    /// What `show_downloads` says.
    pub(crate) fn downloads(&self) -> String {
        self.run(["show_downloads"]).expect(0).out
    }

    /// Starts a command that goes on.
    pub(crate) fn spawn(&self, words: &[&str]) -> Running {
        let mut command = self.command(words);
        Running { child: Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()) }
    }

    /// Starts a command that goes on, and waits for its first line on stdout.
    pub(crate) fn start(&self, words: &[&str]) -> (RunningNode, String) {
        let (child, line) = started(&mut self.command(words));
        (RunningNode { child, address: ([0, 0, 0, 0], 0).into() }, line)
    }
}

/// A running process.
pub(crate) struct RunningNode {
    child: Child,
    /// Where peers connect to it.
    pub(crate) address: SocketAddr,
}

impl RunningNode {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits for its end, and gives the exit code; what it reads from stays open until then.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let _stdin = self.child.stdin.take();
        self.child.wait().unwrap().code()
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        end(&mut self.child);
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What a process writes to stderr.
pub(crate) struct Heard {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Heard {
    /// Whether it has written this. What it has not written yet is lost when it is killed.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.text.lock().unwrap().contains(text)
    }

    /// All that it wrote until its end, for which this waits.
    pub(crate) fn all(self) -> String {
        self.reader.join().unwrap();
        self.text.lock().unwrap().clone()
    }
}

/// A command that goes on, and whose end will be looked at.
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Whether it has not ended.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Waits for its end.
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

/// Looks again and again until a condition holds; a test in which it never does fails with `what`.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    const LOOKS: usize = 60_000;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
    for _ in 0..LOOKS {
        if holds() {
            return;
        }
        // A pause between two looks, no substitute for one.
        std::thread::park_timeout(PAUSE);
    }
    panic!("it never came about: {what}");
}

/// Sends a signal to a process of ours that was not waited for yet.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

fn end(child: &mut Child) {
    // It may have ended by itself.
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

/// Starts a process and reads the first line of its stdout; the rest is read and dropped, so that it never blocks.
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
