//! A seeder that is a process of its own (this program again): its rings, its limits and its network are seen from outside, and
//! are no other test's.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use engine::config::{EngineConfig, IoChoice};
use engine::proto::action::PeerAddress;
use engine::proto::ticket::SecretKey;
use engine::stats::ZeroCopySends;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::{Node, Patience, spawn};

/// Tell this program to be a seeder of this file, by this back end, with sends without a copy or not, and so many bytes that
/// may be locked.
const CHILD_FILE: &str = "SHOAL_TEST_SEEDER_FILE";
const CHILD_IO: &str = "SHOAL_TEST_SEEDER_IO";
const CHILD_ZERO_COPY: &str = "SHOAL_TEST_SEEDER_ZERO_COPY";
const CHILD_LOCKS: &str = "SHOAL_TEST_SEEDER_LOCKS";

/// What the seeder says before its port, and before its sends.
const PORT: &str = "listening on port ";
const SENDS: &str = "sends without a copy: ";

/// The seeder's key.
const SEED: u8 = 1;

/// The seeder's workers, whatever the machine has.
const WORKERS: usize = 2;

/// How it is to be.
pub(crate) struct Orders {
    /// Its back end.
    pub(crate) io: &'static str,
    /// Its choice of sends without a copy.
    pub(crate) zero_copy: &'static str,
    /// Bytes that it may lock; no more than this process may.
    pub(crate) locks: Option<u64>,
    /// Whether it runs as nobody, and not as this process's user.
    pub(crate) as_nobody: bool,
    /// Whether it has a network of its own.
    pub(crate) elsewhere: bool,
}

impl Default for Orders {
    fn default() -> Orders {
        Orders { io: "auto", zero_copy: "auto", locks: None, as_nobody: false, elsewhere: false }
    }
}

/// The other process; as a test of its own it does nothing.
#[test]
fn seeder_process() {
    let Ok(path) = std::env::var(CHILD_FILE) else { return };
    let var = |name| std::env::var(name).unwrap();
    lock_at_most(&var(CHILD_LOCKS));
    let config = Node::config(SEED, var(CHILD_IO).parse::<IoChoice>().unwrap(), None);
    let zero_copy = var(CHILD_ZERO_COPY).parse().unwrap();
    let (listen, workers) = ((Ipv4Addr::UNSPECIFIED, 0).into(), NonZeroUsize::new(WORKERS));
    let node = Node::by(EngineConfig { zero_copy, listen, workers, ..config });
    node.share(Path::new(&path), "f");
    println!("\n{PORT}{}", node.engine.listen_address().port());
    // Until the parent ends it, or is gone.
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

/// The other process, ended when this is dropped.
pub(crate) struct Seeder {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Seeder {
    pub(crate) fn start(path: &Path, orders: &Orders) -> Seeder {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(if orders.elsewhere { Path::new("unshare") } else { &own });
        if orders.elsewhere {
            command.arg("--net").arg(&own);
        }
        if orders.as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let bytes = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
        command
            .args(["--exact", "seeder::seeder_process", "--nocapture"])
            .env(CHILD_FILE, path)
            .env(CHILD_IO, orders.io)
            .env(CHILD_ZERO_COPY, orders.zero_copy)
            .env(CHILD_LOCKS, bytes(orders.locks));
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seeder = Seeder { child, said, port: 0 };
        seeder.port = seeder.says(PORT).parse().unwrap();
        seeder
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it is on this machine.
    pub(crate) fn peer(&self) -> PeerAddress {
        self.peer_at(Ipv4Addr::LOCALHOST.into())
    }

    /// Where it is, when it is there.
    pub(crate) fn peer_at(&self, ip: IpAddr) -> PeerAddress {
        PeerAddress { address: (ip, self.port).into(), key: SecretKey::from_seed(&[SEED; 32]).peer_key() }
    }

    /// What became of its sends without a copy.
    pub(crate) fn sends(&mut self) -> ZeroCopySends {
        self.sends_after("")
    }

    /// Lets it lock so many bytes from now on, once its workers have what they need.
    pub(crate) fn locks(&mut self, bytes: u64) {
        let begun = Patience::new();
        while self.rings().0 < WORKERS {
            assert!(begun.is_left(), "its workers never get their rings");
            std::thread::yield_now();
        }
        self.sends_after(&bytes.to_string());
    }

    fn sends_after(&mut self, line: &str) -> ZeroCopySends {
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
        let said = self.says(SENDS);
        let numbers: Vec<u64> = said.split(' ').map(|number| number.parse().unwrap()).collect();
        ZeroCopySends { mapped_bytes: numbers[0], copied_bytes: numbers[1], refused: numbers[2] }
    }

    /// What it says behind these words, next time.
    fn says(&mut self, words: &str) -> String {
        let mut said = self.said.by_ref().map_while(Result::ok);
        said.find_map(|line| Some(line.strip_prefix(words)?.to_owned())).expect("the seeder never said it")
    }

    /// How many rings it has, and what was submitted to all of them so far.
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

/// What was submitted to a ring so far. The kernel shows nothing of one that is at work just then.
fn submissions(path: &str) -> u64 {
    let begun = Patience::new();
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        if let Some(tail) = text.lines().find_map(|line| line.strip_prefix("SqTail:")) {
            return tail.trim().parse().unwrap();
        }
        assert!(begun.is_left(), "the kernel never shows the ring: {text:?}");
        std::thread::yield_now();
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and group without rights, by Linux's convention (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;
