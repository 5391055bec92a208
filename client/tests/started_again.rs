//! Downloads that are started again but fail to start: the earlier record remains in force.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use engine::storage::destination::partial_name;
use rig::{RunningNode, TestRig, UserHome, pieces, until};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::Value;

/// Alice, who shares `f` with the group `g`, and Bob, whose node receives slowly.
fn alice_and_slow_bob(rig: &TestRig) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let (alice, a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &pieces(3, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let bob = rig.home("bob");
    let b = bob.serve(&["--limit-down", "1M"]);
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    bob.run(["join_group", "g"]).expect(0);
    ((alice, a), (bob, b))
}

/// Makes Bob's download to `copy` fail: another file is written there.
fn fail_at_copy(rig: &TestRig, alice: &RunningNode, bob: &UserHome) {
    // Alice's node is stopped until the other file is written, so that no download completes before.
    alice.signal(Signal::STOP);
    let front = bob.spawn(&["download_file", "g", "f", "copy"]);
    // The download soon waits for her.
    until("the download has started", || {
        ["[D] [g] f", "[W] [g] f"].iter().any(|row| bob.downloads().contains(row))
    });
    rig.file("copy", b"another process wrote this");
    alice.signal(Signal::CONT);
    front.ended().expect(6);
    // The command ends before the failure is recorded.
    until("the failure is recorded", || record(bob)["failed"].is_object());
}

/// The records of downloads.
fn records(home: &UserHome) -> Vec<PathBuf> {
    let folder = fs::read_dir(home.state().join("downloads")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension() == Some(OsStr::new("json"))).collect()
}

/// The only record of a download.
fn record(home: &UserHome) -> Value {
    let paths = records(home);
    assert_eq!(paths.len(), 1, "{paths:?}");
    let sheet: Value = serde_json::from_slice(&fs::read(&paths[0]).unwrap()).unwrap();
    sheet["record"].clone()
}

fn ends_with(path: &Value, name: &str) -> bool {
    Path::new(path.as_str().unwrap()).file_name() == Some(OsStr::new(name))
}

/// Asserts that the failed download to `copy` is in the list and on disk.
#[track_caller]
fn assert_failure_is_kept(bob: &UserHome) {
    let on_disk = record(bob);
    assert!(ends_with(&on_disk["destination"], "copy"), "{on_disk}");
    assert!(on_disk["failed"].is_object() && on_disk["former"].is_null(), "{on_disk}");
    let listed = bob.status()["downloads"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert!(listed[0]["state"] == "failed" && ends_with(&listed[0]["path"], "copy"), "{listed}");
}

#[test]
fn a_download_that_fails_to_start_elsewhere_keeps_the_earlier_record() {
    let rig = TestRig::new();
    let ((_alice, a), (bob, node)) = alice_and_slow_bob(&rig);
    fail_at_copy(&rig, &a, &bob);
    let content = record(&bob)["content"].as_str().unwrap().parse().unwrap();
    // Another process holds the partial file's lock.
    let partial = rig.path(partial_name(OsStr::new("elsewhere"), "g", content));
    let held = File::create(&partial).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let again = || bob.run(["download_file", "g", "f", "elsewhere"]);
    again().expect(10);
    assert_failure_is_kept(&bob);
    node.kill();
    let node = bob.serve(&[]);
    assert_failure_is_kept(&bob);
    again().expect(10);
    assert_failure_is_kept(&bob);
    drop(held);
    fs::remove_file(partial).unwrap();
    again().expect(0);
    assert!(fs::read(rig.path("f")).unwrap() == fs::read(rig.path("elsewhere")).unwrap());
    until("the record is gone", || records(&bob).is_empty());
    drop(node);
}

/// A command that runs the program behind it, and kills it when it sets the length of a file.
fn killed_at_ftruncate() -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", "trace=ftruncate", "-e", "inject=ftruncate:signal=SIGKILL:when=1"]);
    strace
}

#[test]
fn a_node_killed_before_the_new_download_starts_finds_the_earlier_record() {
    if !killed_at_ftruncate().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace is not installed, or tracing is forbidden here");
        return;
    }
    let rig = TestRig::new();
    let ((_alice, a), (bob, node)) = alice_and_slow_bob(&rig);
    fail_at_copy(&rig, &a, &bob);
    node.kill();
    // Setting the length of the partial file kills the node: that is when the download starts.
    let serve = bob.command(["serve", "--listen", "127.0.0.1"]);
    let mut killed = killed_at_ftruncate();
    killed.arg(serve.get_program()).args(serve.get_args());
    let mut node = rig.adopt(killed, &serve);
    let ended = bob.run(["download_file", "g", "f", "elsewhere"]).expect(1);
    assert!(ended.err.contains("went away"), "{}", ended.err);
    assert_eq!(node.wait(), None, "it was killed");
    assert!(ends_with(&record(&bob)["destination"], "elsewhere"), "it was killed too early for this test");
    let node = bob.serve(&[]);
    assert_failure_is_kept(&bob);
    // The next start keeps the record too.
    node.kill();
    let _node = bob.serve(&[]);
    assert_failure_is_kept(&bob);
    bob.run(["download_file", "g", "f", "elsewhere"]).expect(0);
}

#[test]
fn a_resumed_download_that_fails_to_start_loses_nothing() {
    let rig = TestRig::new();
    let ((_alice, a), (bob, node)) = alice_and_slow_bob(&rig);
    // Alice's node is stopped until Bob's is killed, so that the download cannot complete before it is paused.
    a.signal(Signal::STOP);
    bob.prompt("download_file g f copy\npause g f\n").expect(0);
    node.kill();
    a.signal(Signal::CONT);
    let before = record(&bob);
    assert_eq!(before["paused"], true);
    rig.file("copy", b"another process wrote this");
    let node = bob.serve(&[]);
    bob.run(["resume", "g", "f"]).expect(0);
    until("the failure names the file", || {
        bob.downloads().starts_with("[F] [g] f (") && bob.downloads().contains("exists")
    });
    node.kill();
    let node = bob.serve(&[]);
    let after = record(&bob);
    for field in ["destination", "content", "overwrite", "user", "total_bytes"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    fs::remove_file(rig.path("copy")).unwrap();
    bob.run(["resume", "g", "f"]).expect(0);
    until("the download is complete", || bob.downloads().starts_with("[C] [g] f  "));
    drop(node);
}
