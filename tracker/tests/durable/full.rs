//! A full disk: writes are refused with the reason, reads continue, and writes resume once there is space.

use std::fs::File;
use std::io::{self, Write as _};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tracker::replica::ProposalError;
use tracker::replica::limits::{SPACE_FLOOR_BYTES, SPACE_RESERVE_BYTES};
use tracker::state::command::{LogAction, LogCommand};

use super::crash_disk::CrashHome;
use super::real::{BINARY, Client, Tracker, log_in};
use super::rig::{create_user, is_there, propose, start};

#[test]
fn below_the_floor_writes_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let home = CrashHome::fresh(dir.path().into(), true);
    let free_bytes = Arc::clone(&home.free_bytes);
    let replica = start(home).unwrap();
    propose(&replica, create_user(0)).unwrap().unwrap();
    *free_bytes.lock().unwrap() = 1_000;
    let fsyncs = replica.counters().fsyncs;
    let refusal = propose(&replica, create_user(1)).unwrap_err();
    assert!(matches!(refusal, ProposalError::Full { free: 1_000, .. }), "{refusal}");
    assert_eq!(replica.counters().fsyncs, fsyncs);
    assert!(is_there(&replica, 0) && !is_there(&replica, 1));
    *free_bytes.lock().unwrap() = u64::MAX;
    propose(&replica, create_user(1)).unwrap().unwrap();
    assert!(is_there(&replica, 1));
}

#[test]
fn what_frees_space_is_made_from_a_reserve_and_the_refusal_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let home = CrashHome::fresh(dir.path().into(), true);
    let free_bytes = Arc::clone(&home.free_bytes);
    let replica = start(home).unwrap();
    propose(&replica, create_user(0)).unwrap().unwrap();
    assert_eq!(replica.write_trouble(), None);
    let expire = || LogCommand::anonymous(1_000, LogAction::Expire);
    for (free, is_made) in
        [(SPACE_FLOOR_BYTES - 1, true), (SPACE_RESERVE_BYTES, true), (SPACE_RESERVE_BYTES - 1, false)]
    {
        *free_bytes.lock().unwrap() = free;
        assert!(matches!(propose(&replica, create_user(1)), Err(ProposalError::Full { .. })));
        assert_eq!(propose(&replica, expire()).is_ok(), is_made, "{free} bytes free");
        assert!(replica.write_trouble().unwrap().contains("disk is full"));
    }
    *free_bytes.lock().unwrap() = SPACE_FLOOR_BYTES;
    propose(&replica, create_user(1)).unwrap().unwrap();
    assert_eq!(replica.write_trouble(), None);
}

#[test]
fn a_tracker_whose_directory_is_removed_refuses_changes_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(dir.path());
    let session = log_in(tracker.address);
    let mut client = Client::connect(tracker.address);
    let mut ask = |command: &str, args: Value| {
        let request = json!({ "command": command, "command_args": args, "session": session });
        client.ask(&request).expect("the tracker answers")
    };
    assert_eq!(ask("create_group", json!({ "group_id": "before" }))["status"], "success");
    let (data, away) = (dir.path().join("data"), dir.path().join("away"));
    std::fs::rename(&data, &away).unwrap();
    let refused = ask("create_group", json!({ "group_id": "meanwhile" }));
    assert_eq!(refused["code"], "unavailable", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("removed or replaced"), "{refused}");
    assert!(ask("status", json!({}))["refuses_changes"].as_str().unwrap().contains("removed or replaced"));
    let info = dir.path().join("running.txt");
    let address = tracker.address;
    std::fs::write(&info, format!("{} {}\n", address.ip(), address.port())).unwrap();
    let status = || Command::new(BINARY).arg("status").arg(&info).output().unwrap();
    let said = status();
    assert_eq!(said.status.code(), Some(9), "{said:?}");
    assert!(String::from_utf8(said.stdout).unwrap().contains("refuses changes: "));
    std::fs::rename(&away, &data).unwrap();
    assert_eq!(ask("create_group", json!({ "group_id": "after" }))["status"], "success");
    assert_eq!(status().status.code(), Some(0));
    tracker.kill();
}

#[test]
fn a_write_that_fails_half_way_is_recovered_from() {
    let dir = tempfile::tempdir().unwrap();
    let home = CrashHome::fresh(dir.path().into(), true);
    let disk = home.disk.clone();
    let replica = start(home).unwrap();
    for number in 0..20 {
        propose(&replica, create_user(number)).unwrap().unwrap();
    }
    let epoch = replica.epoch();
    disk.set_full(true);
    let failed = propose(&replica, create_user(20)).unwrap_err();
    assert!(matches!(failed, ProposalError::Unknown(_)), "{failed}");
    let refused = propose(&replica, create_user(21)).unwrap_err();
    assert!(matches!(refused, ProposalError::Unavailable(_)), "{refused}");
    for number in 0..20 {
        assert!(is_there(&replica, number), "user {number} was acknowledged");
    }
    disk.set_full(false);
    // Each refusal comes at once; the replica reopens its log at its own interval.
    let mut tries = 0_u64;
    while let Err(refusal) = propose(&replica, create_user(22)) {
        assert!(matches!(refusal, ProposalError::Unavailable(_) | ProposalError::Unknown(_)), "{refusal}");
        tries += 1;
        assert!(tries < 100_000_000, "the log was not reopened");
    }
    assert_ne!(replica.epoch(), epoch);
    for number in (0..20).chain([22]) {
        assert!(is_there(&replica, number), "user {number} was acknowledged");
    }
    assert!(!is_there(&replica, 21), "a refused write was made");
}

#[test]
fn a_tracker_on_a_small_disk_that_fills_up_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tracker) = Tracker::start_on_small_disk(dir.path(), "24m") else {
        eprintln!("skipped: a filesystem cannot be mounted here");
        return;
    };
    let session = log_in(tracker.address);
    let mut client = Client::connect(tracker.address);
    let mut ask = |command: &str, args: Value| {
        let request = json!({ "command": command, "command_args": args, "session": session });
        client.ask(&request).expect("the tracker answers")
    };
    assert_eq!(ask("create_group", json!({ "group_id": "before" }))["status"], "success");
    let filler = tracker.sees(&dir.path().join("data/filler"));
    let mut file = File::create(&filler).unwrap();
    let full = std::iter::repeat_with(|| file.write_all(&[1; 65_536])).find_map(Result::err).unwrap();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let refused = ask("create_group", json!({ "group_id": "meanwhile" }));
    assert_eq!(refused["code"], "unavailable", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("disk is full"), "{refused}");
    assert_eq!(ask("list_groups", json!({}))["groups_list"], json!(["before"]));
    drop(file);
    std::fs::remove_file(filler).unwrap();
    assert_eq!(ask("create_group", json!({ "group_id": "after" }))["status"], "success");
    assert_eq!(ask("list_groups", json!({}))["groups_list"], json!(["after", "before"]));
    tracker.kill();
}
