//! Files that are removed or replaced, and members who are removed: who fetches or shares the earlier content is told, and
//! counts nowhere as a holder of other content.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::fs;

use rig::{RunningNode, TestRig, UserHome, pieces, until};

/// Alice, who owns the group `g` and shares `f` in it, and Bob, a member whose node has these options.
fn alice_and_bob(rig: &TestRig, options: &[&str]) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let (alice, a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &pieces(12, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let bob = rig.home("bob");
    let b = bob.serve(options);
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    bob.run(["join_group", "g"]).expect(0);
    ((alice, a), (bob, b))
}

/// Replaces `f` by other content of one piece.
fn replace(rig: &TestRig, alice: &UserHome) {
    alice.run(["remove_file", "g", "f"]).expect(0);
    rig.file("new/f", &pieces(1, 2));
    alice.run(["upload_file", "g", "new/f"]).expect(0);
}

fn verified(home: &UserHome) -> u64 {
    home.status()["downloads"][0]["verified_bytes"].as_u64().unwrap_or(0)
}

/// Nodes with all of `f`, and with a part of it, as the tracker lists them.
fn listed(asker: &UserHome) -> (u64, u64) {
    let files = asker.run(["list_files", "g", "--json"]).expect(0).out;
    let files: serde_json::Value = serde_json::from_str(&files).unwrap();
    let count = |field: &str| files["files"][0][field].as_u64().unwrap();
    (count("seeders"), count("leechers"))
}

/// Why the share of `f` is not served; empty if it is, `None` without a share.
fn share(home: &UserHome) -> Option<String> {
    let status = home.status();
    let row = status["shares"].as_array().unwrap().iter().find(|row| row["file"] == "f")?;
    Some(row["changed"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_download_whose_file_is_replaced_fails_at_once_and_counts_nowhere() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig, &["--limit-down", "512K"]);
    let front = bob.spawn(&["download_file", "g", "f", "copy"]);
    until("the download has begun", || verified(&bob) > 0);
    replace(&rig, &alice);
    let ended = front.ended().expect(5);
    let said = &ended.err;
    // Bob's node may ask between the removal and the upload.
    assert!(said.contains("[g] f was removed from the list by alice") && said.contains("next: "), "{said}");
    assert!(
        bob.downloads().starts_with("[F] [g] f ([g] f was removed from the list by alice"),
        "{}",
        bob.downloads()
    );
    until("only alice has the new content", || listed(&alice) == (1, 0));
    assert_eq!(share(&bob), None, "the partial file of the earlier content is not served");
    assert!(!rig.path("copy").exists());
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    assert!(fs::read(rig.path("copy")).unwrap() == fs::read(rig.path("new/f")).unwrap());
    until("bob has the new content", || listed(&alice) == (2, 0));
}

#[test]
fn a_paused_download_whose_file_is_removed_fails() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig, &["--limit-down", "512K"]);
    bob.prompt("download_file g f copy\n").expect(0);
    until("the download has begun", || verified(&bob) > 0);
    bob.run(["pause", "g", "f"]).expect(0);
    alice.run(["remove_file", "g", "f"]).expect(0);
    until("it is said", || {
        bob.downloads().starts_with("[F] [g] f ([g] f was removed from the list by alice")
    });
}

#[test]
fn a_member_who_is_removed_during_a_download_is_told() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig, &["--limit-down", "512K"]);
    let front = bob.spawn(&["download_file", "g", "f", "copy"]);
    until("the download has begun", || verified(&bob) > 0);
    let removed = alice.run(["remove_member", "g", "bob"]).expect(0);
    assert!(removed.out.contains("10 minutes at most"), "{}", removed.out);
    let ended = front.ended().expect(4);
    assert!(ended.err.contains("alice, the owner of group g, has removed you from it"), "{}", ended.err);
}

#[test]
fn a_holder_whose_file_is_replaced_is_told_and_counts_no_more() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, node)) = alice_and_bob(&rig, &[]);
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    until("bob is a holder", || listed(&alice) == (2, 0));
    replace(&rig, &alice);
    until("bob's node says it", || share(&bob).is_some_and(|why| why.contains("has other content now")));
    let why = share(&bob).unwrap();
    assert!(why.contains("removed from the list by alice") && why.contains("stop_share g f"), "{why}");
    assert_eq!(listed(&alice), (1, 0));
    // A restart knows it too, and announces nothing.
    node.kill();
    let _node = bob.serve(&[]);
    until("the restarted node says it", || {
        share(&bob).is_some_and(|why| why.contains("has other content now"))
    });
    assert_eq!(listed(&alice), (1, 0));
    // Bob may not remove the file, so he is told how to share his content under another name, and that works.
    let renamed =
        format!("`upload_file g {}/copy --as NEWNAME`", rig.path("").to_str().unwrap().trim_end_matches('/'));
    assert!(share(&bob).is_some_and(|why| why.contains(&renamed)), "{:?}", share(&bob));
    bob.run(["upload_file", "g", "copy", "--as", "NEWNAME"]).expect(0);
    bob.run(["remove_file", "g", "NEWNAME"]).expect(0);
    // Bob fetches the new content; then the end of the earlier share is not that of the new one.
    bob.run(["download_file", "g", "f", "again"]).expect(0);
    until("bob has the new content", || listed(&alice) == (2, 0) && share(&bob) == Some(String::new()));
}

#[test]
fn a_holder_whose_file_is_removed_is_told() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig, &[]);
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    until("bob is a holder", || listed(&alice) == (2, 0));
    alice.run(["remove_file", "g", "f"]).expect(0);
    until("bob's node says it", || {
        share(&bob).is_some_and(|why| why.contains("removed from the list by alice"))
    });
    bob.run(["stop_share", "g", "f"]).expect(0);
    assert_eq!(share(&bob), None);
}

#[test]
fn a_user_who_logged_in_before_the_node_started_seeds_what_was_fetched() {
    let rig = TestRig::new();
    let ((alice, a), (bob, b)) = alice_and_bob(&rig, &[]);
    b.kill();
    bob.run(["logout"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    let _b = bob.serve(&[]);
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    until("bob is a holder", || listed(&alice) == (2, 0));
    let (carol, _c) = rig.user("carol");
    carol.run(["join_group", "g"]).expect(0);
    a.kill();
    carol.run(["download_file", "g", "f", "of-bob"]).expect(0);
}
