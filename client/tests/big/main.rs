//! Files of 100 MB, 10 GB and 1 TiB: a real tracker stores their manifests (long ones in parts), and a real node downloads from
//! several peers within its promised memory, for every file length and number of peers.
//!
//! Nearly all pieces are zeros, which are never sent, so the disk holds only the other pieces. The test ends the download once
//! it has those, since verifying the rest of the chain would hash 1 TiB. The long form (`scripts/long.sh big`) has more peers
//! for 1 TiB, and a file without pieces of zeros.
#![allow(clippy::unwrap_used, reason = "a file or socket of the test's own that fails is a failed test")]

mod peers;
#[path = "../rig/mod.rs"]
mod rig;
#[allow(dead_code, reason = "this test needs some of it")]
#[path = "../proofs/scripted.rs"]
mod scripted;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use peers::{Shape, Swarm};
use rig::TestRig;
use serde_json::Value;

/// Memory limit of a node in KiB, without file pages: 64 MiB of receive buffers and 64 MiB for everything else.
const MEMORY_MAX_KIB: u64 = 128 * 1024;

const PIECE_BYTES: u64 = 524_288;

/// Pieces of files of 100 MB, 10 GB and 1 TiB.
const LENGTHS: [u32; 3] = [191, 19_074, 2_097_152];

/// Peers of the file of 1 TiB; the long form has [`MANY`].
const PEERS: usize = 6;

/// A realistic large number of peers.
const MANY: usize = 50;

/// Pieces of all peers together that are not zeros: half of the receive buffers, or fewer for a short file.
const PIECES_TOGETHER: usize = 64;

/// Peers to which a download is connected at a time.
const CONNECTED_MAX: usize = 32;

/// Interval between two samples of memory.
const SAMPLE: Duration = Duration::from_millis(20);

#[test]
fn files_of_all_lengths_fit_the_memory_of_a_node() {
    for pieces in &LENGTHS[..2] {
        for peers in [1, MANY] {
            fits_the_memory(Shape { pieces: *pieces, peers, each: each(peers), dense: false });
        }
    }
}

#[test]
fn a_file_of_one_tib_fits_the_memory_of_a_node() {
    let count = std::env::var("SHOAL_BIG_PEERS").ok().and_then(|text| text.parse().ok()).unwrap_or(PEERS);
    // Needs a filesystem with room for the whole file.
    let dense = std::env::var_os("SHOAL_BIG_DENSE").is_some();
    for peers in [1, count] {
        fits_the_memory(Shape { pieces: LENGTHS[2], peers, each: each(peers), dense });
    }
}

fn each(peers: usize) -> usize {
    (PIECES_TOGETHER / peers).max(2)
}

fn fits_the_memory(shape: Shape) {
    let rig = TestRig::new();
    let alice = rig.home("alice");
    alice.run(["create_user", "alice", "password"]).expect(0);
    alice.run(["login", "alice", "password"]).expect(0);
    alice.run(["create_group", "g"]).expect(0);
    let _swarm = Swarm::start(rig.tracker(), shape);
    let (bob, node) = rig.user("bob");
    bob.run(["join_group", "g"]).expect(0);

    let memory = Sampler::of(node.pid());
    let mut command = bob.command(["download_file", "g", "f", "copy", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let events = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let connected = shape.peers.min(CONNECTED_MAX);
    let bytes = (connected * shape.each) as u64 * PIECE_BYTES;
    let mut last = Value::Null;
    let mut has_all = false;
    for line in events {
        last = serde_json::from_str(&line).unwrap();
        let figure = |name: &str| last[name].as_u64().unwrap_or(0);
        has_all = figure("received_bytes") >= bytes && figure("peers") >= connected as u64;
        if has_all {
            break;
        }
    }
    assert!(has_all, "{shape:?}: {last}");
    assert_eq!(last["total_bytes"], u64::from(shape.pieces) * PIECE_BYTES, "{last}");
    let peak_kib = memory.peak_kib();
    eprintln!("{shape:?}: a node has at most {peak_kib} KiB beside file pages; {last}");
    assert!(peak_kib <= MEMORY_MAX_KIB, "{peak_kib} KiB, {last}");
    bob.run(["cancel", "g", "f"]).expect(0);
    child.wait().unwrap();
}

/// Samples a process's memory until it is stopped.
struct Sampler {
    enough: SyncSender<()>,
    thread: JoinHandle<u64>,
}

impl Sampler {
    fn of(pid: u32) -> Sampler {
        let (enough, asked) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            loop {
                peak = peak.max(anonymous_kib(pid));
                if asked.recv_timeout(SAMPLE) != Err(RecvTimeoutError::Timeout) {
                    return peak;
                }
            }
        });
        Sampler { enough, thread }
    }

    fn peak_kib(self) -> u64 {
        self.enough.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// Resident memory without file pages, in KiB.
fn anonymous_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
