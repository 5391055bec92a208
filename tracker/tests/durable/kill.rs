//! Real trackers, killed with kill -9 under load, again and again on the same log.
//!
//! `SHOAL_KILL_ROUNDS` sets how often; `scripts/long.sh` sets a thousand.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc;

use serde_json::{Value, json};

use super::real::{Client, Tracker, log_in};
use super::rig::PATIENCE;

const ROUNDS: usize = 20;
const WRITERS: usize = 4;

/// Makes groups until the tracker is gone; each acknowledged name goes to `acknowledged`.
fn write(address: SocketAddr, session: &str, prefix: &str, acknowledged: &mpsc::Sender<String>) {
    let mut client = Client::connect(address);
    for number in 0.. {
        let group = format!("{prefix}-{number}");
        let args = json!({ "group_id": group });
        let Some(answer) =
            client.ask(&json!({ "command": "create_group", "command_args": args, "session": session }))
        else {
            return;
        };
        assert_eq!(answer["status"], "success", "{answer}");
        if acknowledged.send(group).is_err() {
            return;
        }
    }
}

/// The groups that are there, each of them whole.
fn groups(address: SocketAddr, session: &str) -> BTreeSet<String> {
    let mut client = Client::connect(address);
    let request = json!({ "command": "list_groups", "command_args": {}, "session": session });
    let answer = client.ask(&request).unwrap();
    let groups = answer["groups"].as_array().unwrap();
    for group in groups {
        assert_eq!((&group["members"], &group["is_member"]), (&json!(1), &json!(true)), "{group}");
    }
    groups.iter().map(|group| group["group_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let rounds = std::env::var("SHOAL_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let dir = tempfile::tempdir().unwrap();
    let mut promised = BTreeSet::new();
    let mut tracker = Tracker::start(dir.path());
    let session = log_in(tracker.address);
    for round in 0..rounds {
        let address = tracker.address;
        let (acknowledged, names) = mpsc::channel();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (session, acknowledged) = (&session, acknowledged.clone());
                scope.spawn(move || write(address, session, &format!("r{round}w{writer}"), &acknowledged));
            }
            drop(acknowledged);
            // Not by time but by progress, so that each round is killed in the midst of its writes.
            let enough = 5 + round * 13 % 60;
            promised.extend((0..enough).map(|_| names.recv_timeout(PATIENCE).unwrap()));
            tracker.kill();
            promised.extend(names);
        });
        tracker = Tracker::start(dir.path());
        let there = groups(tracker.address, &session);
        let lost: Vec<_> = promised.difference(&there).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        // At most one unanswered write a writer may stand; from then on it has to stay.
        assert!(there.len() <= promised.len() + WRITERS, "round {round}");
        promised = there;
    }
    tracker.kill();
    let printed = Command::new(env!("CARGO_BIN_EXE_tracker"))
        .args(["inspect", "--data", "data"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let lines = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.status.success() && lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let key = std::fs::read_to_string(dir.path().join("data/cluster.key")).unwrap();
    assert!(!lines.contains("$argon2") && !lines.contains(key.lines().nth(1).unwrap()));
}
