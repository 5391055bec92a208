//! Trackers that are killed and restarted: transfers continue, nodes reconnect, and commands say what they wait for.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use rig::{RunningNode, TestRig, UserHome, pieces, until};

/// Alice, who shares `f` with the group `g`, and Bob, whose node receives slowly.
fn alice_and_slow_bob(rig: &TestRig, count: usize) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    alice_and_bob_who_receives(rig, "1M", count)
}

/// The same, with `rate` bytes a second.
fn alice_and_bob_who_receives(
    rig: &TestRig,
    limit: &str,
    count: usize,
) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let (alice, a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &pieces(count, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let bob = rig.home("bob");
    let b = bob.serve(&["--limit-down", limit]);
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    bob.run(["join_group", "g"]).expect(0);
    ((alice, a), (bob, b))
}

fn verified(home: &UserHome) -> u64 {
    home.status()["downloads"][0]["verified_bytes"].as_u64().unwrap_or(0)
}

#[test]
fn a_download_goes_on_without_its_tracker_and_is_known_to_the_next() {
    let mut rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_slow_bob(&rig, 12);
    let front = bob.spawn(&["download_file", "g", "f", "copy"]);
    until("the download has started", || verified(&bob) > 0);
    rig.kill_tracker();
    front.ended().expect(0);
    assert!(fs::read(rig.path("f")).unwrap() == fs::read(rig.path("copy")).unwrap());
    bob.run(["list_files", "g"]).expect(7);
    rig.start_tracker();
    let told = |asker: &UserHome| {
        asker.run(["get_peers", "g", "f", "--json"]).out.matches("\"complete\":true").count()
    };
    until("each is listed as a seeder for the other", || told(&alice) == 1 && told(&bob) == 1);
}

#[test]
fn a_leecher_is_known_to_a_tracker_that_forgot_it() {
    let mut rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob_who_receives(&rig, "256K", 100);
    // The download would take minutes: bob is a leecher during the test.
    bob.prompt("download_file g f copy\n").expect(0);
    let told = || alice.run(["get_peers", "g", "f", "--json"]).out.matches("\"complete\":false").count();
    until("bob is listed as a leecher", || told() == 1);
    rig.kill_tracker();
    rig.start_tracker();
    until("bob is listed as a leecher again", || told() == 1);
}

#[test]
fn commands_wait_for_a_tracker_and_say_so() {
    let mut rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_slow_bob(&rig, 2);
    rig.kill_tracker();
    let at_once = bob.run(["download_file", "g", "f", "copy", "--wait", "0"]).expect(7);
    assert!(
        at_once.err.contains("no tracker can be reached") && at_once.err.contains("next:"),
        "{}",
        at_once.err
    );
    rig.file("new", b"new");
    alice.run(["upload_file", "g", "new", "--wait", "0"]).expect(7);
    let mut fetching = bob.spawn(&["download_file", "g", "f", "copy"]);
    let mut sharing = alice.spawn(&["upload_file", "g", "new"]);
    assert!(fetching.goes_on() && sharing.goes_on());
    rig.start_tracker();
    let fetched = fetching.ended().expect(0);
    sharing.ended().expect(0);
    assert!(fetched.err.contains("waiting for one") || fetched.err.contains('%'), "{}", fetched.err);
    assert_eq!(bob.run(["list_files", "g"]).expect(0).out.lines().count(), 2);
}

#[test]
fn a_share_stopped_without_a_tracker_is_withdrawn_later() {
    let mut rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_slow_bob(&rig, 1);
    rig.kill_tracker();
    let ended = alice.run(["stop_share", "g", "f"]).expect(7);
    assert!(ended.err.contains("no longer served"), "{}", ended.err);
    assert_eq!(alice.status()["shares"].as_array().unwrap().len(), 0);
    // A restart of the node does not change that.
    node.kill();
    let _node = alice.serve(&[]);
    assert_eq!(alice.status()["shares"].as_array().unwrap().len(), 0);
    rig.start_tracker();
    until("no holder is listed", || bob.run(["get_peers", "g", "f"]).expect(0).out.is_empty());
}

#[test]
fn a_node_that_restarts_without_a_tracker_waits_for_it() {
    let mut rig = TestRig::new();
    let ((alice, a), (bob, b)) = alice_and_slow_bob(&rig, 200);
    bob.prompt("download_file g f copy\n").expect(0);
    until("the download has started", || verified(&bob) > 0);
    rig.kill_tracker();
    a.kill();
    b.kill();
    let (_a, _b) = (alice.serve(&[]), bob.serve(&[]));
    until("the download waits for a tracker", || {
        bob.downloads().starts_with("[W] [g] f (no tracker can be reached")
    });
    let row = &bob.status()["downloads"][0];
    assert!(row["state"] == "waiting" && row["waits_for"] == "tracker", "{row}");
    // A retry says why the download waits now.
    let resumed = bob.run(["resume", "g", "f"]).expect(0);
    assert!(resumed.out.contains("is resumed, and waits: no tracker can be reached"), "{}", resumed.out);
    // Shares need no tracker to be served.
    until("the share is back", || alice.status()["shares"].as_array().unwrap().len() == 1);
    rig.start_tracker();
    until("the download is complete", || bob.downloads().starts_with("[C] [g] f  "));
    assert!(fs::read(rig.path("f")).unwrap() == fs::read(rig.path("copy")).unwrap());
}

#[test]
fn a_resumed_download_tries_at_once() {
    let mut rig = TestRig::new();
    let ((alice, a), (bob, b)) = alice_and_slow_bob(&rig, 200);
    bob.prompt("download_file g f copy\n").expect(0);
    until("the download has started", || verified(&bob) > 0);
    // Without a seeder the download waits for a peer once it runs.
    a.kill();
    alice.run(["stop_share", "g", "f"]).expect(0);
    rig.kill_tracker();
    b.kill();
    let _b = bob.serve(&[]);
    until("the download waits for a tracker", || bob.status()["downloads"][0]["waits_for"] == "tracker");
    rig.start_tracker();
    let resumed = bob.run(["resume", "g", "f"]).expect(0);
    assert!(resumed.out.ends_with("continues\n"), "{}", resumed.out);
    // The node has asked the tracker before it answered, however long its own pause was.
    let row = &bob.status()["downloads"][0];
    assert_ne!(row["waits_for"], "tracker", "{row}");
}

/// A server that is not a tracker: it sends the same text to every client.
fn no_tracker() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client may have closed the connection.
            let _ = (&stream).write_all(b"220 another service\n");
            let _ = BufReader::new(stream).read_line(&mut String::new());
        }
    });
    address
}

#[test]
fn neither_a_missing_tracker_file_nor_a_foreign_answer_ends_a_transfer() {
    let rig = TestRig::new();
    let ((alice, a), (bob, b)) = alice_and_slow_bob(&rig, 200);
    bob.prompt("download_file g f copy\n").expect(0);
    until("the download has started", || verified(&bob) > 0);
    let tracker = rig.tracker();
    a.kill();
    b.kill();
    fs::remove_file(rig.path("tracker_info.txt")).unwrap();
    // Without the trackers of the last login too: else the node would use those.
    for remembered in ["state-alice/trackers", "state-bob/trackers"] {
        fs::remove_file(rig.path(remembered)).unwrap();
    }
    let (a, b) = (alice.serve(&[]), bob.serve(&[]));
    until("the download waits for the file", || bob.downloads().contains("tracker_info.txt"));
    until("the share is back", || alice.status()["shares"].as_array().unwrap().len() == 1);
    a.kill();
    b.kill();
    rig.name_tracker(no_tracker());
    let (_a, _b) = (alice.serve(&[]), bob.serve(&[]));
    until("the download waits for a tracker", || bob.status()["downloads"][0]["waits_for"] == "tracker");
    until("the share is back", || alice.status()["shares"].as_array().unwrap().len() == 1);
    rig.name_tracker(tracker);
    until("the download is complete", || bob.downloads().starts_with("[C] [g] f  "));
    until("alice is listed for bob", || bob.run(["get_peers", "g", "f"]).expect(0).out.lines().count() == 1);
}

/// Replaces the data of the tracker, which was killed, by what is in `from`; keeps them in `kept`.
fn replace_tracker_data(rig: &TestRig, kept: &str, from: &str) {
    fs::rename(rig.path("tracker_data"), rig.path(kept)).unwrap();
    if rig.path(from).exists() {
        fs::rename(rig.path(from), rig.path("tracker_data")).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if entry.is_dir() {
            copy_folder(&entry, &to.join(name));
        } else {
            fs::copy(&entry, to.join(name)).unwrap();
        }
    }
}

fn seeders(asker: &UserHome, file: &str) -> usize {
    asker.run(["get_peers", "g", file, "--json"]).out.matches("\"complete\":true").count()
}

#[test]
fn an_older_backup_makes_nodes_forget_nothing_and_all_is_listed_again() {
    let mut rig = TestRig::new();
    let (alice, a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("old", b"old");
    alice.run(["upload_file", "g", "old"]).expect(0);
    let (bob, _b) = rig.user("bob");
    bob.run(["join_group", "g"]).expect(0);
    rig.kill_tracker();
    copy_folder(&rig.path("tracker_data"), &rig.path("older"));
    rig.start_tracker();
    // What the backup does not have: an upload, a group with a file, a downloaded file, a login.
    rig.file("new", b"new");
    alice.run(["create_group", "h"]).expect(0);
    alice.run(["upload_file", "g", "new"]).expect(0);
    alice.run(["upload_file", "h", "new"]).expect(0);
    bob.run(["download_file", "g", "new", "copy"]).expect(0);
    let (carol, _c) = rig.user("carol");
    carol.run(["join_group", "g"]).expect(0);
    until("all shares are announced", || seeders(&carol, "new") == 2);

    rig.kill_tracker();
    replace_tracker_data(&rig, "newer", "older");
    rig.start_tracker();
    until("alice's upload is listed again", || {
        bob.run(["list_files", "g"]).out.lines().any(|line| line == "new")
    });
    let status = |home: &UserHome| home.status().to_string();
    until("a share in a group that is unknown there is kept", || {
        let status = alice.status();
        let shares = status["shares"].as_array().unwrap();
        let is_unknown = |group| {
            let share = shares.iter().find(|share| share["group"] == group && share["file"] == "new");
            share.is_some_and(|share| share["unknown_there"] == true && share["changed"].is_null())
        };
        is_unknown("h") && !is_unknown("g") && status.to_string().contains("older state")
    });
    let refused = carol.run(["whoami"]).expect(3).err;
    assert!(refused.contains("does not know this login"), "{refused}");
    assert!(status(&carol).contains("\"user\":\"carol\""), "{}", status(&carol));
    // A restarted node keeps them, too.
    a.kill();
    let _a = alice.serve(&[]);

    rig.kill_tracker();
    replace_tracker_data(&rig, "older", "newer");
    rig.start_tracker();
    carol.run(["whoami"]).expect(0);
    until("all is listed as before", || {
        seeders(&carol, "new") == 2 && seeders(&bob, "old") == 1 && !status(&alice).contains("unknown_there")
    });
    let files = alice.run(["list_files", "h", "--json"]).expect(0).out;
    assert!(files.contains("\"seeders\":1"), "{files}");
}

#[test]
fn a_tracker_of_another_cluster_is_named_and_the_login_is_kept() {
    let mut rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_slow_bob(&rig, 1);
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    rig.kill_tracker();
    replace_tracker_data(&rig, "right", "none");
    rig.start_tracker();
    let refused = alice.run(["list_files", "g"]).expect(3).err;
    assert!(refused.contains("another cluster than the one you logged in to"), "{refused}");
    assert!(refused.contains("login alice`") && refused.contains("--trackers"), "{refused}");
    let status = alice.status();
    assert!(status["user"] == "alice" && status["shares"][0]["unknown_there"] == true, "{status}");
    // A user may change to the other cluster and back.
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    until("the other cluster does not have the file", || {
        bob.status()["shares"][0]["changed"].as_str().is_some_and(|why| why.contains('g'))
    });

    rig.kill_tracker();
    replace_tracker_data(&rig, "wrong", "right");
    rig.start_tracker();
    alice.run(["whoami"]).expect(0);
    bob.run(["whoami"]).expect(3);
    bob.run(["login", "bob", "password"]).expect(0);
    until("all is listed again", || seeders(&alice, "f") == 1 && seeders(&bob, "f") == 1);
}
