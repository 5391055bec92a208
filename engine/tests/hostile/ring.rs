//! How piece bytes leave a seeder: through the ring and from the mapping; with epoll, through no ring.
//!
//! The seeder is another process (this program again), so that its rings and reads are seen from outside.

use std::os::fd::OwnedFd;
use std::path::Path;

use engine::config::IoChoice;
use rustix::fs::inotify;

use crate::PIECE;
use crate::rig::{Node, bytes, durable};
use crate::seeder::{Seeder, SeederOptions};

/// Pieces of the file.
const PIECES: usize = 96;

#[test]
fn with_uring_pieces_are_sent_by_the_ring_from_the_mapping() {
    if tokio_uring::Runtime::new(&tokio_uring::builder()).is_err() {
        eprintln!("skipped: io_uring is forbidden here");
        return;
    }
    let seen = SeederActivity::of_a_transfer("uring");
    assert!(seen.rings > 0, "the seeder has no ring");
    assert!(
        seen.submissions >= PIECES as u64,
        "{} submissions are too few for {PIECES} pieces",
        seen.submissions
    );
    assert!(!seen.source_was_read, "the source was read by a system call");
}

#[test]
fn with_epoll_no_ring_is_used() {
    let seen = SeederActivity::of_a_transfer("epoll");
    assert_eq!((seen.rings, seen.submissions), (0, 0));
    assert!(!seen.source_was_read, "the source was read by a system call");
}

/// What was seen from outside while a file was fetched.
struct SeederActivity {
    rings: usize,
    submissions: u64,
    source_was_read: bool,
}

impl SeederActivity {
    fn of_a_transfer(io: &'static str) -> SeederActivity {
        let (source, leecher) = (tempfile::tempdir().unwrap(), Node::start(2, IoChoice::Epoll));
        let path = source.path().join("f");
        let content = bytes(PIECES * PIECE, 40);
        std::fs::write(&path, &content).unwrap();
        let manifest = Node::start(3, IoChoice::Epoll).share(&path, "f");
        let seeder = Seeder::start(&path, &SeederOptions { io, ..SeederOptions::default() });

        let watch = ReadWatch::on(&path);
        let (_, before) = seeder.rings();
        let download = leecher.fetch(&manifest, &[]);
        download.add_peers(&[seeder.peer()]);
        let progress = durable(&download);
        // More bytes when a late answer made the leecher repeat a request.
        assert!(progress.received_bytes >= content.len() as u64);
        let (rings, after) = seeder.rings();
        let source_was_read = watch.reads_seen() > 0;
        // Shows that the watch sees reads.
        assert!(std::fs::read(&path).unwrap() == std::fs::read(leecher.path("f")).unwrap());
        assert!(watch.reads_seen() > 0, "the watch sees nothing");
        SeederActivity { rings, submissions: after - before, source_was_read }
    }
}

/// Watches a file for reads by system calls. Access through a mapping raises no event (inotify(7)).
struct ReadWatch(OwnedFd);

impl ReadWatch {
    fn on(path: &Path) -> ReadWatch {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::ACCESS).unwrap();
        ReadWatch(watch)
    }

    /// Reads since the last call.
    fn reads_seen(&self) -> usize {
        let mut room = [std::mem::MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(&self.0, &mut room);
        let mut count = 0;
        // Ends with EAGAIN.
        while events.next().is_ok() {
            count += 1;
        }
        count
    }
}
