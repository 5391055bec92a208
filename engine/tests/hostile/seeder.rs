//! A seeder in another process (this program again): its rings are seen from outside, and its limits and network are not shared
//! with other tests.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use engine::config::{EngineConfig, IoChoice};
use engine::proto::action::PeerAddress;
use engine::proto::ticket::SecretKey;
use engine::stats::ZeroCopySends;
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::rig::{Node, Patience, spawn};

/// Environment of the child: the file to seed, the back end, the choice of zero-copy sends, the bytes that it may lock, the
/// user that it becomes.
const CHILD_FILE: &str = "SHOAL_TEST_SEEDER_FILE";
const CHILD_IO: &str = "SHOAL_TEST_SEEDER_IO";
const CHILD_ZERO_COPY: &str = "SHOAL_TEST_SEEDER_ZERO_COPY";
const CHILD_LOCKS: &str = "SHOAL_TEST_SEEDER_LOCKS";
const CHILD_USER: &str = "SHOAL_TEST_SEEDER_USER";

/// The working directory of a process. A user may enter it by this name without access to the directories above it, which
/// may be root's alone.
const OWN_DIRECTORY: &str = "/proc/self/cwd";

/// Beginnings of the lines in which the seeder prints its port and its figures.
const PORT: &str = "listening on port ";
const SENDS: &str = "zero-copy sends: ";

/// The seeder's key.
const SEED: u8 = 1;

/// The seeder's workers, on every machine.
const WORKERS: usize = 2;

/// Options of a seeder.
pub(crate) struct SeederOptions {
    /// The I/O back end.
    pub(crate) io: &'static str,
    /// The choice of zero-copy sends.
    pub(crate) zero_copy: &'static str,
    /// Bytes that it may lock, at most those of this process; `None`: as this process.
    pub(crate) locks: Option<u64>,
    /// It runs as an unprivileged user instead of this process's.
    pub(crate) is_unprivileged: bool,
    /// It has a network namespace of its own.
    pub(crate) has_own_network: bool,
}

impl Default for SeederOptions {
    fn default() -> SeederOptions {
        SeederOptions {
            io: "auto",
            zero_copy: "auto",
            locks: None,
            is_unprivileged: false,
            has_own_network: false,
        }
    }
}

/// The child process. As a test without the environment it does nothing.
#[test]
fn seeder_process() {
    let Ok(path) = std::env::var(CHILD_FILE) else { return };
    let var = |name| std::env::var(name).unwrap();
    lock_at_most(&var(CHILD_LOCKS));
    if let Ok(id) = std::env::var(CHILD_USER) {
        become_user(id.parse().unwrap());
    }
    let config = Node::config(SEED, var(CHILD_IO).parse::<IoChoice>().unwrap(), None);
    let zero_copy = var(CHILD_ZERO_COPY).parse().unwrap();
    let (listen, workers) = ((Ipv4Addr::UNSPECIFIED, 0).into(), NonZeroUsize::new(WORKERS));
    let node = Node::with_config(EngineConfig { zero_copy, listen, workers, ..config });
    node.share(Path::new(&path), "f");
    println!("\n{PORT}{}", node.engine.listen_address().port());
    // Until the parent closes its end or is gone.
    for line in std::io::stdin().lines().map_while(Result::ok) {
        lock_at_most(&line);
        let sends = node.engine.zero_copy_sends();
        println!("{SENDS}{} {} {}", sends.mapped_bytes, sends.copied_bytes, sends.refused);
    }
}

fn lock_at_most(bytes: &str) {
    let Ok(bytes) = bytes.parse::<u64>() else { return };
    let maximum = getrlimit(Resource::Memlock).maximum;
    setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum }).unwrap();
}

/// Makes this thread, and the threads that it will start, those of an ordinary user.
fn become_user(id: u32) {
    set_thread_groups(&[]).unwrap();
    set_thread_gid(Gid::from_raw(id)).unwrap();
    set_thread_uid(Uid::from_raw(id)).unwrap();
}

/// The child process, which ends when this is dropped.
pub(crate) struct Seeder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Seeder {
    pub(crate) fn start(path: &Path, options: &SeederOptions) -> Seeder {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(if options.has_own_network { Path::new("unshare") } else { &own });
        if options.has_own_network {
            command.arg("--net").arg(&own);
        }
        let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
        let mut seeded = path.to_owned();
        if options.is_unprivileged {
            // Its own folder is made here.
            chown(folder, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID)).unwrap();
            command
                .current_dir(folder)
                .env("TMPDIR", OWN_DIRECTORY)
                .env(CHILD_USER, UNPRIVILEGED_ID.to_string());
            seeded = Path::new(OWN_DIRECTORY).join(name);
        }
        let bytes = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
        command
            .args(["--exact", "seeder::seeder_process", "--nocapture"])
            .env(CHILD_FILE, seeded)
            .env(CHILD_IO, options.io)
            .env(CHILD_ZERO_COPY, options.zero_copy)
            .env(CHILD_LOCKS, bytes(options.locks));
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seeder = Seeder { child, lines, port: 0 };
        seeder.port = seeder.read_line(PORT).parse().unwrap();
        seeder
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its address on this machine.
    pub(crate) fn peer(&self) -> PeerAddress {
        self.peer_at(Ipv4Addr::LOCALHOST.into())
    }

    /// Its address, with this IP address.
    pub(crate) fn peer_at(&self, ip: IpAddr) -> PeerAddress {
        PeerAddress { address: (ip, self.port).into(), key: SecretKey::from_seed(&[SEED; 32]).peer_key() }
    }

    /// Its figures of zero-copy sends.
    pub(crate) fn sends(&mut self) -> ZeroCopySends {
        self.sends_after("")
    }

    /// Limits the bytes that it may lock, once its workers have their rings.
    pub(crate) fn locks(&mut self, bytes: u64) {
        let begun = Patience::new();
        while self.rings().0 < WORKERS {
            assert!(begun.is_left(), "the workers do not get their rings");
            std::thread::yield_now();
        }
        self.sends_after(&bytes.to_string());
    }

    fn sends_after(&mut self, line: &str) -> ZeroCopySends {
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
        let lines = self.read_line(SENDS);
        let numbers: Vec<u64> = lines.split(' ').map(|number| number.parse().unwrap()).collect();
        ZeroCopySends { mapped_bytes: numbers[0], copied_bytes: numbers[1], refused: numbers[2] }
    }

    /// Waits for the next line that begins with `prefix`; returns the rest of it.
    fn read_line(&mut self, prefix: &str) -> String {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        lines
            .find_map(|line| Some(line.strip_prefix(prefix)?.to_owned()))
            .expect("the seeder ended without the line")
    }

    /// The number of its rings, and of submissions to all of them so far.
    pub(crate) fn rings(&self) -> (usize, u64) {
        let proc = format!("/proc/{}", self.child.id());
        let mut rings = (0, 0);
        for entry in std::fs::read_dir(format!("{proc}/fd")).unwrap() {
            let entry = entry.unwrap();
            let is_ring = std::fs::read_link(entry.path())
                .is_ok_and(|target| target.to_string_lossy().contains("[io_uring]"));
            if is_ring {
                let number = entry.file_name();
                rings = (rings.0 + 1, rings.1 + submissions(&format!("{proc}/fdinfo/{}", number.display())));
            }
        }
        rings
    }
}

/// Submissions to a ring so far. The kernel hides the figure while the ring is working.
fn submissions(path: &str) -> u64 {
    let begun = Patience::new();
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        if let Some(tail) = text.lines().find_map(|line| line.strip_prefix("SqTail:")) {
            return tail.trim().parse().unwrap();
        }
        assert!(begun.is_left(), "the kernel does not show the ring: {text:?}");
        std::thread::yield_now();
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and group id without rights, by Linux's convention (`/proc/sys/kernel/overflowuid`).
const UNPRIVILEGED_ID: u32 = 65_534;
