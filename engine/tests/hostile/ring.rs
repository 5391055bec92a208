//! How piece bytes leave a seeder: by the ring and from the mapping, or, where epoll is demanded, by no ring at all.
//!
//! The seeder is a process of its own (this program again), so that its rings and its reads are seen from outside.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use engine::config::IoChoice;
use engine::proto::action::PeerAddress;
use engine::proto::ticket::SecretKey;
use rustix::fs::inotify;

use crate::PIECE;
use crate::rig::{Node, Patience, bytes, durable, spawn};

/// Tells this program to be a seeder, by this back end, of the file of the second variable.
const CHILD_IO: &str = "SHOAL_TEST_SEEDER_IO";
const CHILD_FILE: &str = "SHOAL_TEST_SEEDER_FILE";

/// What the seeder says before its port.
const PORT: &str = "listening on port ";

/// Pieces of the file.
const PIECES: usize = 96;

/// The seeder's key.
const SEED: u8 = 1;

#[test]
fn with_uring_pieces_leave_by_the_ring_from_the_mapping() {
    if tokio_uring::Runtime::new(&tokio_uring::builder()).is_err() {
        eprintln!("skipped: io_uring is forbidden here");
        return;
    }
    let seen = Seen::of_a_transfer("uring");
    assert!(seen.rings > 0, "the seeder has no ring");
    assert!(
        seen.submissions >= PIECES as u64,
        "{} submissions are too few for {PIECES} pieces",
        seen.submissions
    );
    assert!(!seen.source_was_read, "the source was read by a system call");
}

#[test]
fn with_epoll_no_ring_takes_part() {
    let seen = Seen::of_a_transfer("epoll");
    assert_eq!((seen.rings, seen.submissions), (0, 0));
    assert!(!seen.source_was_read, "epoll sends from the mapping too");
}

/// The other process; as a test of its own it does nothing.
#[test]
fn seeder_process() {
    let Ok(io) = std::env::var(CHILD_IO) else { return };
    let path = std::env::var(CHILD_FILE).unwrap();
    let node = Node::start(SEED, io.parse::<IoChoice>().unwrap());
    node.share(Path::new(&path), "f");
    println!("\n{PORT}{}", node.engine.listen_addr().port());
    // Until the parent ends it, or is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

/// What was seen from outside while a file was fetched.
struct Seen {
    rings: usize,
    submissions: u64,
    source_was_read: bool,
}

impl Seen {
    fn of_a_transfer(io: &str) -> Seen {
        let (source, leecher) = (tempfile::tempdir().unwrap(), Node::start(2, IoChoice::Epoll));
        let path = source.path().join("f");
        let content = bytes(PIECES * PIECE, 40);
        std::fs::write(&path, &content).unwrap();
        let manifest = Node::start(3, IoChoice::Epoll).share(&path, "f");
        let seeder = Seeder::start(io, &path);

        let watch = Watch::on(&path);
        let (_, before) = seeder.rings();
        let download = leecher.fetch(&manifest, &[]);
        download.offer(&[seeder.peer]);
        let progress = durable(&download);
        // More when a request was repeated, since its answer was late.
        assert!(progress.received_bytes >= content.len() as u64);
        let (rings, after) = seeder.rings();
        let source_was_read = watch.reads_seen() > 0;
        // The watch would have seen it.
        assert!(std::fs::read(&path).unwrap() == std::fs::read(leecher.path("f")).unwrap());
        assert!(watch.reads_seen() > 0, "the watch sees nothing");
        Seen { rings, submissions: after - before, source_was_read }
    }
}

/// The other process, ended when this is dropped.
struct Seeder {
    child: Child,
    peer: PeerAddress,
}

impl Seeder {
    fn start(io: &str, path: &Path) -> Seeder {
        let mut child = spawn(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "ring::seeder_process", "--nocapture"])
                .env(CHILD_IO, io)
                .env(CHILD_FILE, path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = said
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(PORT)?.parse::<u16>().ok())
            .expect("the seeder never said where it listens");
        let key = SecretKey::from_seed(&[SEED; 32]).peer_key();
        Seeder { child, peer: PeerAddress { address: ([127, 0, 0, 1], port).into(), key } }
    }

    /// How many rings it has, and what was submitted to all of them so far.
    fn rings(&self) -> (usize, u64) {
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

/// Watches a file for reads by system calls; access by a mapping raises nothing (inotify(7)).
struct Watch(OwnedFd);

impl Watch {
    fn on(path: &Path) -> Watch {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::ACCESS).unwrap();
        Watch(watch)
    }

    /// Reads since the last call.
    fn reads_seen(&self) -> usize {
        let mut room = [std::mem::MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(&self.0, &mut room);
        let mut count = 0;
        // The end: nothing is there, which would block.
        while events.next().is_ok() {
            count += 1;
        }
        count
    }
}
