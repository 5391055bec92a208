//! Nodes that end, by a command or by a kill, and restart: shares and downloads continue, and those that cannot are reported.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};

use rig::{PIECE, RunningNode, TestRig, UserHome, pieces, until};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::process::Signal;

fn same(one: &Path, other: &Path) {
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} is another file", other.display());
}

/// Alice, who owns the group `g`, and Bob, a member.
fn alice_and_bob(rig: &TestRig) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    alice.0.run(["create_group", "g"]).expect(0);
    bob.0.run(["join_group", "g"]).expect(0);
    (alice, bob)
}

/// Number of holders of a file, as the tracker tells another member.
fn holders(asker: &UserHome, file: &str) -> usize {
    asker.run(["get_peers", "g", file]).expect(0).out.lines().count()
}

/// State of a share: `None` if there is none, empty if it is served, else why it is not.
fn share(home: &UserHome, file: &str) -> Option<String> {
    let status = home.status();
    let row = status["shares"].as_array().unwrap().iter().find(|row| row["file"] == file)?;
    Some(row["changed"].as_str().unwrap_or_default().to_owned())
}

fn served(home: &UserHome, file: &str) -> bool {
    share(home, file).is_some_and(|why| why.is_empty())
}

/// The files in a folder of the state directory whose names end in `ending`.
fn records(home: &UserHome, folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.state().join(folder)).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
}

/// Restores a file's times.
fn restore_times(path: &Path, was: &fs::Metadata) {
    use std::os::unix::fs::MetadataExt;
    let modified = Timespec { tv_sec: was.mtime(), tv_nsec: was.mtime_nsec() };
    let times = Timestamps { last_access: modified, last_modification: modified };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

#[test]
fn shares_come_back_after_a_kill_unless_their_files_were_edited_meanwhile() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    let source = rig.file("f", &pieces(3, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    assert_eq!(records(&alice, "shares", ".json").len(), 1);
    node.kill();
    let serve = ["serve", "--listen", "127.0.0.1", "-v"];
    let (node, said) = alice.start_and_hear(&serve);
    until("the node runs", || said.has("transport"));
    until("f is served again", || served(&alice, "f"));
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    same(&source, &rig.path("copy"));
    bob.run(["stop_share", "g", "f"]).expect(0);
    node.kill();
    let said = said.all();
    assert!(!said.contains("hashing a shared file again"), "{said}");
    // Only the time of the last status change shows this, so the file is hashed.
    let was = source.metadata().unwrap();
    write_over(&source, &pieces(3, 2));
    restore_times(&source, &was);
    let (_node, said) = alice.start_and_hear(&serve);
    until("it is hashed", || said.has("hashing a shared file again"));
    until("it is withdrawn", || said.has("[g] f is not shared any more"));
    until("the tracker knows", || holders(&bob, "f") == 0);
}

/// Overwrites a file in place.
fn write_over(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, 0).unwrap();
}

#[test]
fn a_changed_source_is_reported_withdrawn_and_not_served() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    rig.file("kept", &pieces(1, 3));
    rig.file("changed", &pieces(1, 4));
    for name in ["kept", "changed"] {
        alice.run(["upload_file", "g", name]).expect(0);
    }
    node.kill();
    fs::File::options().append(true).open(rig.path("changed")).unwrap().set_len(7).unwrap();
    let (node, said) = alice.serve_and_hear();
    until("the kept one is served and the changed one named and withdrawn", || {
        served(&alice, "kept")
            && share(&alice, "changed").is_some_and(|why| why.contains("`remove_file g changed`"))
            && holders(&bob, "changed") == 0
            && holders(&bob, "kept") == 1
    });
    until("it is said", || said.has("`client status` says what to type"));
    node.kill();
    let said = said.all();
    assert!(said.contains("[g] changed is not shared any more"), "{said}");
    assert!(!said.contains("kept"), "{said}");
    // The suggested command solves the problem. Until then the file stays named, also after a restart.
    let _node = alice.serve(&[]);
    until("the kept one is served again", || served(&alice, "kept"));
    assert!(share(&alice, "changed").is_some_and(|why| why.contains("`stop_share g changed`")));
    let taken = alice.run(["upload_file", "g", "changed"]).expect(6);
    assert!(taken.err.contains("`client remove_file g changed`"), "{}", taken.err);
    alice.run(["remove_file", "g", "changed"]).expect(0);
    alice.run(["upload_file", "g", "changed"]).expect(0);
    assert_eq!((holders(&bob, "changed"), share(&alice, "changed")), (1, Some(String::new())));
}

#[test]
fn a_changed_source_is_named_until_its_share_is_stopped() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &pieces(1, 3));
    alice.run(["upload_file", "g", "f"]).expect(0);
    fs::File::options().append(true).open(rig.path("f")).unwrap().set_len(7).unwrap();
    until("the change is noticed", || holders(&bob, "f") == 0);
    let is_named = || share(&alice, "f").is_some_and(|why| why.contains("`stop_share g f`"));
    until("the file is named", is_named);
    alice.run(["logout"]).expect(0);
    assert_eq!(share(&alice, "f"), None);
    alice.run(["login", "alice", "password"]).expect(0);
    until("the file is named again", is_named);
    alice.run(["stop_share", "g", "f"]).expect(0);
    assert_eq!((share(&alice, "f"), records(&alice, "shares", ".json").len()), (None, 0));
    drop(node);
}

#[test]
fn a_missing_source_is_named_and_served_again_when_it_is_back() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &pieces(1, 5));
    alice.run(["upload_file", "g", "f"]).expect(0);
    node.kill();
    fs::rename(rig.path("f"), rig.path("elsewhere")).unwrap();
    let _node = alice.serve(&[]);
    until("it is named", || share(&alice, "f").is_some_and(|why| why.contains("/f")));
    until("it is withdrawn", || holders(&bob, "f") == 0);
    fs::rename(rig.path("elsewhere"), rig.path("f")).unwrap();
    until("it is served again", || served(&alice, "f") && holders(&bob, "f") == 1);
}

#[test]
fn damaged_records_and_those_of_another_version_are_set_aside_and_named() {
    let rig = TestRig::new();
    let ((alice, node), _bob) = alice_and_bob(&rig);
    for name in ["good", "bad"] {
        rig.file(name, name.as_bytes());
        alice.run(["upload_file", "g", name]).expect(0);
    }
    node.kill();
    let of_bad = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("\"bad\"");
    let bad = records(&alice, "shares", ".json").into_iter().find(of_bad).unwrap();
    let manifest = bad.with_extension("manifest");
    let mut flipped = fs::read(&manifest).unwrap();
    flipped[12] ^= 1;
    fs::write(&manifest, flipped).unwrap();
    fs::write(alice.state().join("shares/torn.json"), "{\"format\":1,").unwrap();
    fs::create_dir_all(alice.state().join("downloads")).unwrap();
    fs::write(alice.state().join("downloads/later.json"), "{\"format\":9,\"record\":{}}").unwrap();
    let _node = alice.serve(&[]);
    until("the good one is served and the bad one is not", || {
        served(&alice, "good") && alice.status()["troubles"].as_array().unwrap().len() == 3
    });
    assert_eq!(share(&alice, "bad"), None);
    let troubles = alice.status()["troubles"].to_string();
    for part in ["torn.json.damaged", "later.json.other-version", "[g] bad", "upload_file"] {
        assert!(troubles.contains(part), "{part}: {troubles}");
    }
    assert_eq!(records(&alice, "shares", ".json.damaged").len(), 2);
    assert!(alice.state().join("downloads/later.json.other-version").exists());
    // The same upload command writes a valid record.
    alice.run(["upload_file", "g", "bad"]).expect(0);
    assert!(served(&alice, "bad"));
}

#[test]
fn a_download_goes_on_after_a_kill_and_is_shared_after_the_next() {
    let rig = TestRig::new();
    let alice = rig.user("alice");
    alice.0.run(["create_group", "g"]).expect(0);
    let bob = rig.home("bob");
    let node = bob.serve(&["--limit-down", "1M"]);
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    bob.run(["join_group", "g"]).expect(0);
    let source = rig.file("f", &pieces(200, 6));
    alice.0.run(["upload_file", "g", "f"]).expect(0);
    let front = bob.spawn(&["download_file", "g", "f", "copy"]);
    let verified = || bob.status()["downloads"][0]["verified_bytes"].as_u64().unwrap_or(0);
    until("some of it has come", || verified() >= 2 * PIECE as u64);
    node.kill();
    let ended = front.ended().expect(1);
    assert!(ended.err.contains("went away"), "{}", ended.err);

    let node = bob.serve(&[]);
    until("the download is complete", || bob.downloads().starts_with("[C] [g] f  "));
    same(&source, &rig.path("copy"));
    let shown = bob.status()["downloads"][0].clone();
    // Pieces of a stalled peer are requested from another one and may arrive twice. They do not count as downloaded again.
    let fetched = shown["received_bytes"].as_u64().unwrap() - shown["duplicate_bytes"].as_u64().unwrap();
    let left = shown["resumed_bytes"].as_u64().unwrap();
    assert!(left >= 2 * PIECE as u64, "{left} bytes were there already");
    // On a machine that stalls, one more piece per connection may have been in flight at the end.
    assert!(fetched + left <= 204 * PIECE as u64, "{fetched} bytes were downloaded, some of them again");
    until("its record has become that of a share", || {
        records(&bob, "downloads", ".json").is_empty() && records(&bob, "shares", ".json").len() == 1
    });

    node.kill();
    alice.0.run(["stop_share", "g", "f"]).expect(0);
    let _node = bob.serve(&[]);
    until("bob shares it", || served(&bob, "f") && holders(&alice.0, "f") == 1);
    alice.0.run(["download_file", "g", "f", "back"]).expect(0);
    same(&source, &rig.path("back"));
}

#[test]
fn pauses_and_cancellations_outlive_the_node() {
    let rig = TestRig::new();
    let ((alice, seeder), (bob, node)) = alice_and_bob(&rig);
    for name in ["paused", "cancelled", "later"] {
        rig.file(name, &pieces(2, 7));
        alice.run(["upload_file", "g", name]).expect(0);
    }
    seeder.kill();
    fs::create_dir(rig.path("to")).unwrap();
    let fetched =
        bob.prompt("download_file g paused to\ndownload_file g cancelled to\ndownload_file g later to\n");
    fetched.expect(0);
    bob.run(["pause", "g", "paused"]).expect(0);
    bob.run(["cancel", "g", "cancelled"]).expect(0);
    node.kill();
    let _seeder = alice.serve(&[]);
    until("the seeder is back", || served(&alice, "later"));
    let node = bob.serve(&[]);
    until("the download that was not paused continues", || bob.downloads().contains("[C] [g] later"));
    assert!(bob.downloads().contains("[P] [g] paused (by you)"), "{}", bob.downloads());
    assert!(!bob.downloads().contains("cancelled"));
    bob.run(["resume", "g", "paused"]).expect(0);
    until("the paused download continues", || bob.downloads().contains("[C] [g] paused"));
    same(&rig.path("paused"), &rig.path("to/paused"));

    // A download can be cancelled without trackers and without a running node.
    alice.run(["stop_share", "g", "cancelled"]).expect(0);
    bob.prompt("download_file g cancelled to\npause g cancelled\n").expect(0);
    node.kill();
    let parts = || {
        fs::read_dir(rig.path("to")).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "part")
        })
    };
    assert_eq!(parts().count(), 1);
    bob.run(["cancel", "g", "cancelled"]).expect(0);
    assert_eq!(parts().count(), 0);
    assert_eq!(bob.downloads(), "");
}

#[test]
fn a_leecher_that_cancels_is_no_longer_listed() {
    let rig = TestRig::new();
    let alice = rig.user("alice");
    alice.0.run(["create_group", "g"]).expect(0);
    let bob = rig.home("bob");
    // The download would take minutes: bob has only a part of the file during the test.
    let _node = bob.serve(&["--limit-down", "256K"]);
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    bob.run(["join_group", "g"]).expect(0);
    rig.file("f", &pieces(100, 8));
    alice.0.run(["upload_file", "g", "f"]).expect(0);
    bob.prompt("download_file g f copy\n").expect(0);
    until("bob is listed as a leecher", || holders(&alice.0, "f") == 1);
    bob.run(["cancel", "g", "f"]).expect(0);
    until("bob is no longer listed", || holders(&alice.0, "f") == 0);
}

#[test]
fn shares_belong_to_their_user_and_a_logout_lasts() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &pieces(1, 9));
    alice.run(["upload_file", "g", "f"]).expect(0);
    alice.run(["logout"]).expect(0);
    node.kill();
    let node = alice.serve(&[]);
    alice.run(["whoami"]).expect(3);
    assert_eq!(holders(&bob, "f"), 0);
    assert_eq!(share(&alice, "f"), None);
    rig.home("zoe").run(["create_user", "zoe", "password"]).expect(0);
    alice.run(["login", "zoe", "password"]).expect(0);
    node.kill();
    let _node = alice.serve(&[]);
    assert!(alice.run(["whoami"]).expect(0).out.starts_with("zoe"));
    assert_eq!(share(&alice, "f"), None, "zoe shares nothing of alice's");
    alice.run(["login", "alice", "password"]).expect(0);
    until("it is back with its user", || served(&alice, "f") && holders(&bob, "f") == 1);
}

#[test]
fn a_clean_restart_restores_shares_but_not_stopped_ones() {
    let rig = TestRig::new();
    let ((alice, mut node), (bob, _b)) = alice_and_bob(&rig);
    for name in ["kept", "stopped"] {
        rig.file(name, name.as_bytes());
        alice.run(["upload_file", "g", name]).expect(0);
    }
    alice.run(["stop_share", "g", "stopped"]).expect(0);
    node.signal(Signal::TERM);
    assert_eq!(node.wait(), Some(0));
    assert_eq!(holders(&bob, "kept"), 0, "no peer is sent to a node that has ended");
    alice.run(["list_groups"]).expect(0);
    assert_eq!(holders(&bob, "kept"), 0, "nor to a command that does not listen");
    let _node = alice.serve(&[]);
    until("the kept one is served", || served(&alice, "kept") && holders(&bob, "kept") == 1);
    assert_eq!((share(&alice, "stopped"), holders(&bob, "stopped")), (None, 0));
}

#[test]
fn a_failed_download_started_again_leaves_one_record() {
    let rig = TestRig::new();
    let alice = rig.user("alice");
    alice.0.run(["create_group", "g"]).expect(0);
    let bob = rig.home("bob");
    let node = bob.serve(&["--limit-down", "1M"]);
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    bob.run(["join_group", "g"]).expect(0);
    rig.file("f", &pieces(3, 10));
    alice.0.run(["upload_file", "g", "f"]).expect(0);
    // Alice's node is stopped until the other file is written, so that no download completes before.
    alice.1.signal(Signal::STOP);
    let front = bob.spawn(&["download_file", "g", "f", "copy"]);
    // The download soon waits for her.
    until("the download has started", || {
        ["[D] [g] f", "[W] [g] f"].iter().any(|row| bob.downloads().contains(row))
    });
    rig.file("copy", b"another process wrote this");
    alice.1.signal(Signal::CONT);
    front.ended().expect(6);
    assert_eq!(records(&bob, "downloads", ".json").len(), 1);
    alice.1.signal(Signal::STOP);
    bob.prompt("download_file g f elsewhere\n").expect(0);
    assert_eq!(records(&bob, "downloads", ".json").len(), 1);
    node.kill();
    alice.1.signal(Signal::CONT);
    let _node = bob.serve(&[]);
    until("the one that was begun last is complete", || bob.downloads().starts_with("[C] [g] f  "));
    same(&rig.path("f"), &rig.path("elsewhere"));
    until("the record is gone", || records(&bob, "downloads", ".json").is_empty());
}

#[test]
fn a_failed_download_is_resumed_or_cancelled_with_its_partial_file() {
    let rig = TestRig::new();
    let ((alice, a), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &pieces(2, 15));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let parts = || {
        let entries = fs::read_dir(rig.path("to")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "part")).count()
    };
    fs::create_dir(rig.path("to")).unwrap();
    // Alice's node is stopped until another file is at the destination, so that the download fails at its end.
    let fail = |destination: &str| {
        a.signal(Signal::STOP);
        let front = bob.spawn(&["download_file", "g", "f", destination]);
        until("there is a partial file", || parts() == 1);
        rig.file(destination, b"another process wrote this");
        a.signal(Signal::CONT);
        front.ended().expect(6);
        assert!(bob.downloads().starts_with("[F] [g] f ("), "{}", bob.downloads());
    };
    fail("to/resumed");
    fs::remove_file(rig.path("to/resumed")).unwrap();
    bob.run(["resume", "g", "f"]).expect(0);
    until("the resumed one is complete", || bob.downloads().starts_with("[C] [g] f  "));
    same(&rig.path("f"), &rig.path("to/resumed"));
    fail("to/cancelled");
    let cancelled = bob.run(["cancel", "g", "f"]).expect(0);
    assert!(cancelled.out.contains("had failed; it is removed from the list"), "{}", cancelled.out);
    assert_eq!((parts(), bob.downloads()), (0, String::new()));
    assert!(records(&bob, "downloads", ".json").is_empty());
}

#[test]
fn an_unreadable_manifest_is_retried() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &pieces(1, 11));
    alice.run(["upload_file", "g", "f"]).expect(0);
    node.kill();
    let manifest = records(&alice, "shares", ".manifest").remove(0);
    let aside = rig.path("aside");
    fs::rename(&manifest, &aside).unwrap();
    // A symlink loop fails even for root, who is exempt from file modes.
    std::os::unix::fs::symlink(&manifest, &manifest).unwrap();
    let _node = alice.serve(&[]);
    until("it is named", || share(&alice, "f").is_some_and(|why| why.contains(".manifest")));
    until("it is withdrawn", || holders(&bob, "f") == 0);
    fs::rename(&aside, &manifest).unwrap();
    until("it is served again", || served(&alice, "f") && holders(&bob, "f") == 1);
    assert_eq!(records(&alice, "shares", ".json").len(), 1);
}

#[test]
fn a_changed_device_number_does_not_change_the_file() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &pieces(1, 12));
    alice.run(["upload_file", "g", "f"]).expect(0);
    node.kill();
    let path = records(&alice, "shares", ".json").remove(0);
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let kept = record["record"]["fingerprint"].as_str().unwrap().to_owned();
    let (looks, device) = kept.rsplit_once(':').unwrap();
    record["record"]["fingerprint"] = format!("{looks}:{}", device.parse::<u64>().unwrap() + 1).into();
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let _node = alice.serve(&[]);
    until("it is served again", || served(&alice, "f") && holders(&bob, "f") == 1);
}

#[test]
fn a_share_is_not_announced_under_a_name_of_another_file() {
    let rig = TestRig::new();
    let ((alice, node), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &pieces(1, 13));
    alice.run(["upload_file", "g", "f"]).expect(0);
    node.kill();
    // Without a running node, alice's command would be a node itself and remove the share together with the file.
    let away = rig.home("alice-elsewhere");
    let elsewhere = away.serve(&[]);
    away.run(["login", "alice", "password"]).expect(0);
    away.run(["remove_file", "g", "f"]).expect(0);
    elsewhere.kill();
    rig.file("of-bob/f", &pieces(1, 14));
    bob.run(["upload_file", "g", "of-bob/f"]).expect(0);
    let (node, said) = alice.serve_and_hear();
    let is_named = |text: &str| share(&alice, "f").is_some_and(|why| why.contains(text));
    until("it is named", || is_named("has other content now"));
    assert_eq!(holders(&alice, "f"), 1);
    until("it is said", || said.has("has other content now"));
    alice.run(["stop_share", "g", "f"]).expect(0);
    assert!(records(&alice, "shares", ".json").is_empty());
    node.kill();
    let said = said.all();
    assert!(said.contains("[g] f is not shared: the trackers refuse it"), "{said}");
}
