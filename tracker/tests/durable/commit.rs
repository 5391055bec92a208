//! Group commit, and restarts without a crash.

use std::sync::mpsc;

use tracker::replica::{LogDirectory, ReplicaStore};

use super::crash_disk::CrashHome;
use super::rig::{PATIENCE, create_user, is_there, propose, start};

const WRITERS: usize = 400;

#[test]
fn writers_that_wait_together_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let home = CrashHome::fresh(dir.path().into(), true);
    let disk = home.disk.clone();
    let replica = start(home).unwrap();
    let before = replica.counters();
    let (reply, answers) = mpsc::sync_channel(WRITERS);
    // All of them wait for a stopped disk, however late they arrive.
    let still = disk.stand_still();
    for number in 0..WRITERS {
        let reply = reply.clone();
        replica.propose(create_user(number), move |answer| reply.send(answer).unwrap()).unwrap();
    }
    drop(still);
    for _ in 0..WRITERS {
        answers.recv_timeout(PATIENCE).unwrap().unwrap().unwrap();
    }
    let after = replica.counters();
    assert_eq!(after.commands - before.commands, WRITERS as u64);
    // At most three syncs: one already on its way, one in progress, and one for all others.
    assert!(after.entries - before.entries <= 3, "{before:?}, {after:?}");
    assert!(after.fsyncs - before.fsyncs <= 12, "{before:?}, {after:?}");
    assert!(after.fsyncs > before.fsyncs, "acknowledged without a sync: {after:?}");
}

#[test]
fn one_writer_after_the_other_has_a_sync_for_each() {
    let dir = tempfile::tempdir().unwrap();
    ReplicaStore::create(dir.path()).unwrap();
    let replica = start(LogDirectory(dir.path().into())).unwrap();
    let before = replica.counters().fsyncs;
    for number in 0..5 {
        propose(&replica, create_user(number)).unwrap().unwrap();
        assert!(is_there(&replica, number), "a change is visible after its answer");
        assert!(replica.counters().fsyncs - before > number as u64);
    }
}

#[test]
fn a_restart_finds_everything_and_another_epoch() {
    let dir = tempfile::tempdir().unwrap();
    ReplicaStore::create(dir.path()).unwrap();
    let mut epochs = Vec::new();
    for round in 0..3 {
        let replica = start(LogDirectory(dir.path().into())).unwrap();
        epochs.push(replica.epoch());
        for number in 0..round * 10 {
            assert!(is_there(&replica, number), "user {number} in round {round}");
        }
        for number in round * 10..(round + 1) * 10 {
            propose(&replica, create_user(number)).unwrap().unwrap();
        }
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 3);
}

#[test]
fn a_log_is_used_by_one_process_and_with_its_own_key_only() {
    let dir = tempfile::tempdir().unwrap();
    ReplicaStore::create(dir.path()).unwrap();
    let replica = start(LogDirectory(dir.path().into())).unwrap();
    let second = start(LogDirectory(dir.path().into())).unwrap_err().to_string();
    assert!(second.contains("in use") && second.contains("tracker.redb"), "{second}");
    drop(replica);
    let options = tracker::replica::ReplicaOptions::at("127.0.0.1:1", "another");
    let foreign = tracker::replica::Replica::start(LogDirectory(dir.path().into()), options);
    assert!(foreign.unwrap_err().to_string().contains("another"));
}
