//! Real trackers as child processes, and plain sockets to them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::rig::PATIENCE;
use super::trace::Trace;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tracker");
const ARGS: [&str; 4] = ["trackers.txt", "1", "--data", "data"];

/// A running tracker.
pub(crate) struct Tracker {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Tracker {
    /// Starts a tracker on the log under `dir`.
    pub(crate) fn start(dir: &Path) -> Tracker {
        Tracker::start_by(Command::new(BINARY).args(ARGS), dir).expect("the tracker starts")
    }

    /// Starts a tracker whose system calls are traced. Returns its process id too.
    pub(crate) fn start_traced(dir: &Path, trace: &Trace) -> (Tracker, u32) {
        let tracker = Tracker::start_by(trace.command(BINARY).args(ARGS), dir).expect("the tracker starts");
        let pid = tracker.child.id();
        (tracker, pid)
    }

    /// Starts a tracker with its data on a `size` filesystem in memory; `None` if it cannot be mounted.
    pub(crate) fn start_on_small_disk(dir: &Path, size: &str) -> Option<Tracker> {
        std::fs::create_dir(dir.join("data")).unwrap();
        let script = format!("mount -t tmpfs -o size={size} none data && exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, BINARY]).args(ARGS);
        Tracker::start_by(&mut command, dir)
    }

    fn start_by(command: &mut Command, dir: &Path) -> Option<Tracker> {
        std::fs::write(dir.join("trackers.txt"), "127.0.0.1 0\n").unwrap();
        let mut child = command
            .current_dir(dir)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok());
        if address.is_none() {
            child.wait().unwrap();
        }
        Some(Tracker { child, address: address? })
    }

    /// A path as the tracker sees it.
    pub(crate) fn sees(&self, path: &Path) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join("root")
            .join(path.strip_prefix("/").unwrap())
    }

    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        // It may have ended already. A failing test must not leave a process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    /// The answer; `None` when the tracker is gone.
    pub(crate) fn ask(&mut self, request: &Value) -> Option<Value> {
        self.0.get_mut().write_all(request.to_string().as_bytes()).ok()?;
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        // Half a line is not an answer.
        line.ends_with('\n').then(|| serde_json::from_str(&line).unwrap())
    }
}

/// Creates a user, logs it in and returns the session token.
pub(crate) fn log_in(address: SocketAddr) -> String {
    let mut client = Client::connect(address);
    let args = json!({ "user_id": "alice", "passwd": "password123" });
    client.ask(&json!({ "command": "create_user", "command_args": args })).unwrap();
    let answer = client.ask(&json!({ "command": "login", "command_args": args })).unwrap();
    answer["session"].as_str().unwrap().to_owned()
}
