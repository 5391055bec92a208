//! Fixtures of the integration tests: the real binary on a port that the system chooses, and plain sockets to
//! it.
//!
//! ```text
//!   Tracker (child, ended by its handle) ◄── TcpStream ── Client (one connection, stream form or framed)
//! ```

#![allow(dead_code, reason = "each test binary uses some of the fixtures")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Longer than any answer takes, even on a slow machine: a test that waits longer fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(600);

/// Free bytes that a filesystem in memory must have to hold the data of a test and of others that run beside
/// it.
const ROOM_BYTES: u64 = 1 << 30;

/// A temporary directory, in memory where there is room, so that no test waits for a disk.
fn memory_dir() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(memory).is_ok_and(|of| of.f_bavail * of.f_frsize >= ROOM_BYTES);
    let dir = if has_room { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.or_else(|_| tempfile::tempdir()).unwrap()
}

/// An address on which no program listens, as long as the returned socket is kept.
pub(crate) fn unused_address() -> (Socket, SocketAddr) {
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = bound.local_addr().unwrap().as_socket().unwrap();
    (bound, address)
}

/// A running tracker, which is killed when the value is dropped.
pub(crate) struct Tracker {
    child: Child,
    pub(crate) address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Tracker {
    /// Starts a tracker on a free port of loopback, with an empty state.
    pub(crate) fn start() -> Tracker {
        let dir = memory_dir();
        std::fs::write(dir.path().join("tracker_info.txt"), "127.0.0.1 0\n").unwrap();
        Tracker::start_in(dir)
    }

    /// The same, with further options.
    pub(crate) fn with_options(options: &[&str]) -> Tracker {
        let dir = memory_dir();
        std::fs::write(dir.path().join("tracker_info.txt"), "127.0.0.1 0\n").unwrap();
        Tracker::spawn(command(dir.path()).args(options), dir)
    }

    /// The same, with a log of this level that goes to `stderr`.
    pub(crate) fn with_log(level: &str, stderr: Stdio) -> Tracker {
        let dir = memory_dir();
        std::fs::write(dir.path().join("tracker_info.txt"), "127.0.0.1 0\n").unwrap();
        Tracker::spawn_logging(command(dir.path()).env("RUST_LOG", level), dir, stderr)
    }

    /// The same, with at most this many descriptors.
    pub(crate) fn with_descriptors(limit: usize) -> Tracker {
        let dir = memory_dir();
        std::fs::write(dir.path().join("tracker_info.txt"), "127.0.0.1 0\n").unwrap();
        let program = command(dir.path()).get_program().to_owned();
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {limit}; exec \"$0\"")]).arg(program);
        limited.current_dir(dir.path()).env_remove("SHOAL_TRACKERS").env_remove("RUST_LOG");
        Tracker::spawn(limited.stdin(Stdio::null()), dir)
    }

    /// Starts a tracker in a directory with a cluster file.
    pub(crate) fn start_in(dir: tempfile::TempDir) -> Tracker {
        Tracker::spawn(&mut command(dir.path()), dir)
    }

    fn spawn(command: &mut Command, dir: tempfile::TempDir) -> Tracker {
        Tracker::spawn_logging(command, dir, Stdio::null())
    }

    fn spawn_logging(command: &mut Command, dir: tempfile::TempDir, stderr: Stdio) -> Tracker {
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("tracker listening on ").expect("the one line on stdout");
        let address = address.trim().parse().unwrap();
        Tracker { child, address, _dir: dir }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// A connection on which the new user `user` is logged in and shares at `port`.
    pub(crate) fn user(&self, user: &str, port: u16) -> Client {
        let mut client = self.connect();
        client.sender_port = Some(port);
        client.ok("create_user", json!({"user_id": user, "passwd": "secret"}));
        client.log_in(user);
        client
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, to be run in `dir` without the environment variables that it reads.
pub(crate) fn command(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracker"));
    command.current_dir(dir).env_remove("SHOAL_TRACKERS").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// One client connection.
pub(crate) struct Client {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
    framed: bool,
    pub(crate) sender_port: Option<u16>,
    pub(crate) peer_key: Option<String>,
    pub(crate) session: Option<String>,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Client {
        Client::on(TcpStream::connect(address).unwrap())
    }

    /// A connection that comes from another address of loopback, 127.0.0.`host`.
    pub(crate) fn from_host(host: u8, tracker: &Tracker) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
        socket.connect(&tracker.address.into()).unwrap();
        Client::on(socket.into())
    }

    fn on(socket: TcpStream) -> Client {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(socket.try_clone().unwrap());
        Client { socket, reader, framed: false, sender_port: None, peer_key: None, session: None }
    }

    /// Switches to the original form, with a length before each message.
    pub(crate) fn framed(self) -> Client {
        Client { framed: true, ..self }
    }

    /// Sends bytes unchanged.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends bytes; false when the tracker has closed the connection.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Sends a request's text in the form of the connection.
    pub(crate) fn send(&mut self, text: &str) {
        if self.framed {
            self.send_bytes(&frame(text));
        } else {
            self.send_bytes(text.as_bytes());
        }
    }

    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// The next answer; `None` when the tracker has closed.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        let text = if self.framed {
            let mut length = [0; 8];
            self.reader.read_exact(&mut length).ok()?;
            let mut text = vec![0; usize::try_from(u64::from_be_bytes(length)).unwrap()];
            self.reader.read_exact(&mut text).unwrap();
            text
        } else {
            let mut line = Vec::new();
            self.reader.read_until(b'\n', &mut line).unwrap();
            if line.is_empty() {
                return None;
            }
            assert_eq!(line.pop(), Some(b'\n'), "an answer is one line");
            line
        };
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Sends a request and receives its answer.
    pub(crate) fn ask_value(&mut self, request: &Value) -> Value {
        self.send(&request.to_string());
        self.receive().expect("an answer")
    }

    /// Sends a command with this client's address and session, and receives its answer.
    pub(crate) fn ask(&mut self, word: &str, args: Value) -> Value {
        self.ask_with(word, args, json!({}))
    }

    /// The same, with fields beside the arguments.
    pub(crate) fn ask_with(&mut self, word: &str, args: Value, beside: Value) -> Value {
        let mut request = beside;
        request["command"] = word.into();
        request["command_args"] = args;
        if let Some(port) = self.sender_port {
            request["sender_ip"] = "127.0.0.1".into();
            request["sender_port"] = port.to_string().into();
        }
        if let Some(session) = &self.session {
            request["session"] = session.as_str().into();
        }
        self.ask_value(&request)
    }

    /// Sends a command that must succeed.
    pub(crate) fn ok(&mut self, word: &str, args: Value) -> Value {
        let answer = self.ask(word, args);
        assert_eq!(answer["status"], "success", "{word}: {answer}");
        answer
    }

    /// Sends a command that must fail; gives its code.
    pub(crate) fn code(&mut self, word: &str, args: Value) -> String {
        let answer = self.ask(word, args);
        assert_eq!(answer["status"], "failure", "{word}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
        answer["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn log_in(&mut self, user: &str) -> Value {
        let mut args = json!({"user_id": user, "passwd": "secret"});
        if let Some(key) = &self.peer_key {
            args["peer_key"] = key.as_str().into();
        }
        self.ok("login", args)
    }

    /// Uploads a file whose piece digests each repeat one byte.
    pub(crate) fn upload(&mut self, group: &str, name: &str, digests: &[u8]) -> Value {
        let pieces: Vec<String> = digests.iter().map(|byte| hash(*byte)).collect();
        let whole = if digests.len() == 1 { hash(digests[0]) } else { hash(0xFF) };
        let beside = json!({"piecewise_sha": pieces, "fileSha": whole});
        self.ask_with("upload_file", json!({"group_id": group, "file_name": name}), beside)
    }
}

/// The 40 hex digits of a hash that repeats one byte.
pub(crate) fn hash(byte: u8) -> String {
    format!("{byte:02x}").repeat(20)
}

/// A request in the original form.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The arguments that name a file.
pub(crate) fn file(name: &str) -> Value {
    json!({"group_id": "g", "file_name": name})
}

/// The arguments that name a file, and one more.
pub(crate) fn file_with(name: &str, field: &str, value: Value) -> Value {
    let mut args = file(name);
    args[field] = value;
    args
}

/// Alice, who owns group `g`, and bob, who is a member.
pub(crate) fn two_members(tracker: &Tracker) -> (Client, Client) {
    let (mut alice, mut bob) = (tracker.user("alice", 5_001), tracker.user("bob", 5_002));
    alice.ok("create_group", json!({"group_id": "g"}));
    bob.ok("join_group", json!({"group_id": "g"}));
    (alice, bob)
}
