//! An existing file at a download's destination is hashed before anything is downloaded. This may take minutes, and commands for
//! the download must be answered meanwhile.
//!
//! The file is a sparse file of 32 GiB: hashing it takes much longer than a command on any machine, and no test waits for the
//! end.
#![allow(clippy::unwrap_used, reason = "a file or socket of the test's own that fails is a failed test")]

mod rig;
#[allow(dead_code, reason = "this test needs some of it")]
#[path = "proofs/scripted.rs"]
mod scripted;

use std::fs::{self, File};

use engine::hash::{FileHasher, Hasher};
use engine::proto::geometry::Geometry;
use engine::proto::ticket::SecretKey;
use rig::{PIECE, RunningNode, TestRig, UserHome, until};
use scripted::{RawClient, hex};
use serde_json::json;

/// `PIECES_PER_MESSAGE` of the tracker.
const PIECES: usize = 65_536;

const LENGTH: u64 = PIECES as u64 * PIECE as u64;

/// Alice's `f` in the group `g`, of which no peer has the last piece, and Bob, a member.
fn bob_and_a_long_file(rig: &TestRig) -> (UserHome, RunningNode) {
    let alice = rig.home("alice");
    for words in
        [&["create_user", "alice", "password"][..], &["login", "alice", "password"], &["create_group", "g"]]
    {
        alice.run(words).expect(0);
    }
    let hasher = FileHasher::new(Hasher::best(), Some(1)).unwrap();
    let Ok(zeros) = hasher.hash_file(Geometry::new(PIECE as u64).unwrap(), &vec![0_u8; PIECE][..], |_| {});
    let mut digests = vec![zeros.digest.to_string(); PIECES - 1];
    digests.push("05".repeat(20));
    let key = SecretKey::from_seed(&[5; 32]).peer_key();
    RawClient::login(rig.tracker(), "alice", key).ask(&json!({"command": "upload_file",
        "command_args": {"group_id": "g", "file_name": "f", "file_size": LENGTH, "peer_key": hex(&key.0)},
        "piecewise_sha": digests, "fileSha": "07".repeat(20), "sender_ip": "127.0.0.1", "sender_port": 1}));
    let bob = rig.user("bob");
    bob.0.run(["join_group", "g"]).expect(0);
    bob
}

/// Puts a file of the right length at the destination.
fn long_copy(rig: &TestRig) {
    File::create(rig.path("copy")).unwrap().set_len(LENGTH).unwrap();
}

fn is_compared(home: &UserHome) -> bool {
    let download = &home.status()["downloads"][0];
    download["state"] == "comparing" && download["verified_bytes"].as_u64() > Some(0)
}

fn records(home: &UserHome) -> usize {
    fs::read_dir(home.state().join("downloads")).into_iter().flatten().count()
}

#[test]
fn a_restored_download_under_comparison_is_controlled_at_once() {
    let rig = TestRig::new();
    let (bob, node) = bob_and_a_long_file(&rig);
    bob.prompt("download_file g f copy\n").expect(0);
    until("the download waits for a peer", || bob.downloads().starts_with("[W] [g] f (no peer"));
    node.kill();
    // The state after a kill between the rename of the file and the write of its record.
    long_copy(&rig);
    let node = bob.serve(&[]);
    until("the file is compared", || is_compared(&bob));
    let said = bob.downloads();
    assert!(said.starts_with("[W] [g] f  ") && said.contains("%  comparing /"), "{said}");
    let paused = bob.run(["pause", "g", "f"]).expect(0);
    assert!(paused.out.contains("is paused"), "{}", paused.out);
    assert!(bob.downloads().starts_with("[P] [g] f (by you)  32.0 GiB  /"), "{}", bob.downloads());
    node.kill();
    let _node = bob.serve(&[]);
    assert!(bob.downloads().starts_with("[P] [g] f (by you)"), "the pause is recorded");

    bob.run(["resume", "g", "f"]).expect(0);
    until("the file is compared again", || is_compared(&bob));
    let resumed = bob.run(["resume", "g", "f"]).expect(0);
    assert!(
        resumed.out.contains("as soon as the file at its destination has been compared"),
        "{}",
        resumed.out
    );
    // The comparison stops while its user is logged out.
    bob.run(["logout"]).expect(0);
    until("the download waits for its user", || bob.downloads().starts_with("[W] [g] f (its user bob"));
    assert_eq!(bob.status()["downloads"][0]["waits_for"], "login");
    bob.run(["login", "bob", "password"]).expect(0);
    until("the file is compared once more", || is_compared(&bob));
    // A command for the download takes over the comparison and shows its progress.
    let (mut asking, first) = bob.start(&["download_file", "g", "f", "copy", "--json"]);
    assert!(first.contains("\"comparing\""), "{first}");
    until("the file is compared for the command", || is_compared(&bob));
    bob.run(["cancel", "g", "f"]).expect(0);
    assert_eq!(asking.wait(), Some(1));
    assert_eq!((bob.downloads(), records(&bob)), (String::new(), 0));
    assert_eq!(rig.path("copy").metadata().unwrap().len(), LENGTH, "the existing file must stay");
}

#[test]
fn other_downloads_do_not_wait_for_a_comparison() {
    let rig = TestRig::new();
    let (bob, node) = bob_and_a_long_file(&rig);
    bob.prompt("download_file g f copy\n").expect(0);
    until("the long one waits for a peer", || bob.downloads().contains("[W] [g] f"));
    let alice = rig.home("alice");
    rig.file("h", b"a short one");
    let sharing = alice.serve(&[]);
    alice.run(["upload_file", "g", "h"]).expect(0);
    sharing.kill();
    bob.prompt("download_file g h short\n").expect(0);
    until("the short one waits for a peer", || bob.downloads().contains("[W] [g] h"));
    node.kill();
    long_copy(&rig);
    let _node = bob.serve(&[]);
    until("the short one has begun while the long one is compared", || {
        let status = bob.status();
        let of = |file: &str| {
            let mut rows = status["downloads"].as_array().unwrap().iter();
            rows.find(|row| row["file"] == file).unwrap().clone()
        };
        assert_ne!(of("f")["state"], "failed", "the long one was compared first");
        // A download that has not started waits for this node or for a tracker.
        of("f")["state"] == "comparing" && of("h")["cause"]["exit"] == "no_peer"
    });
    let _sharing = alice.serve(&[]);
    until("the short one is there", || fs::read(rig.path("short")).is_ok_and(|read| read == b"a short one"));
}

#[test]
fn a_download_under_comparison_says_so_and_is_cancelled_at_once() {
    let rig = TestRig::new();
    let (bob, _node) = bob_and_a_long_file(&rig);
    long_copy(&rig);
    let first = bob.spawn(&["download_file", "g", "f", "copy"]);
    until("the file is compared", || is_compared(&bob));
    // A second command waits and is told why.
    let (second, said) = bob.start(&["download_file", "g", "f", "copy", "--json"]);
    assert!(said.contains("\"comparing\""), "{said}");
    let refused = bob.run(["pause", "g", "f"]).expect(1);
    assert!(refused.err.contains("not begun yet") && refused.err.contains("cancel g f"), "{}", refused.err);
    assert_eq!(records(&bob), 0);
    let cancelled = bob.run(["cancel", "g", "f"]).expect(0);
    assert!(cancelled.out.contains("nothing had been downloaded yet"), "{}", cancelled.out);
    let ended = first.ended().expect(1);
    assert!(ended.err.contains("cancelled while the file at its destination"), "{}", ended.err);
    // The other command may have started a comparison of its own.
    drop(second);
    until("the comparison has ended", || {
        bob.run(["cancel", "g", "f"]);
        bob.downloads().is_empty()
    });
}
