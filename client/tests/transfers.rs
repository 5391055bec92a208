//! Whole transfers between real processes: a tracker, nodes and commands.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use rig::{RunningNode, TestRig, UserHome, send, until};

const PIECE: usize = 524_288;

/// Bytes that differ from piece to piece (xorshift).
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

fn same(one: &Path, other: &Path) {
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} is another file", other.display());
}

/// Two users in the group `g`, each with a running node.
fn alice_and_bob(rig: &TestRig) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let alice = rig.user("alice");
    let bob = rig.user("bob");
    alice.0.run(["create_group", "g"]).expect(0);
    bob.0.run(["join_group", "g"]).expect(0);
    (alice, bob)
}

#[test]
fn files_of_interesting_sizes_and_names_arrive() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig);
    fs::create_dir(rig.path("to")).unwrap();
    let files = [
        ("nothing", 0),
        ("one byte", 1),
        ("Größe – 文件.bin", PIECE - 1),
        ("a piece", PIECE),
        ("a piece and 1", PIECE + 1),
        ("two MiB", 4 * PIECE),
        ("'quoted' \"name\" \\", 3 * PIECE + 7),
    ];
    for (seed, (name, length)) in (1..).zip(files) {
        let source = rig.file(&format!("from/{name}"), &bytes(length, seed));
        let uploaded = alice.run([Path::new("upload_file"), Path::new("g"), &source]).expect(0);
        assert!(uploaded.out.contains("SHA-1"), "{}", uploaded.out);
        let fetched = bob.run(["download_file", "g", name, "to/"]).expect(0);
        if length > 0 {
            assert!(fetched.out.contains("proven") && fetched.out.contains("durable"), "{}", fetched.out);
        }
        same(&source, &rig.path("to").join(name));
    }
    let mut listed: Vec<String> =
        alice.run(["list_files", "g"]).expect(0).out.lines().map(Into::into).collect();
    let mut wanted: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    listed.sort();
    wanted.sort();
    assert_eq!(listed, wanted);
}

#[test]
fn a_third_fetches_from_the_second_after_the_first_has_gone() {
    let rig = TestRig::new();
    let ((alice, a), (bob, _b)) = alice_and_bob(&rig);
    let (carol, _c) = rig.user("carol");
    carol.run(["join_group", "g"]).expect(0);
    let source = rig.file("disk.img", &bytes(9 * PIECE + 1, 3));
    alice.run(["upload_file", "g", "disk.img"]).expect(0);
    bob.run(["download_file", "g", "disk.img", "bob.img"]).expect(0);
    a.kill();
    carol.run(["download_file", "g", "disk.img", "carol.img"]).expect(0);
    same(&source, &rig.path("carol.img"));
    let listed = bob.downloads();
    assert!(listed.starts_with("[C] [g] disk.img  ") && listed.ends_with("/bob.img\n"), "{listed}");
}

#[test]
fn the_same_name_in_two_groups_is_two_files() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig);
    alice.run(["create_group", "h"]).expect(0);
    bob.run(["join_group", "h"]).expect(0);
    let one = rig.file("one/f", &bytes(PIECE + 5, 1));
    let two = rig.file("two/f", &bytes(PIECE + 5, 2));
    alice.run(["upload_file", "g", "one/f"]).expect(0);
    alice.run(["upload_file", "h", "two/f"]).expect(0);
    bob.run(["download_file", "g", "f", "from-g"]).expect(0);
    bob.run(["download_file", "h", "f", "from-h"]).expect(0);
    same(&one, &rig.path("from-g"));
    same(&two, &rig.path("from-h"));
    let taken = alice.run(["upload_file", "g", "two/f"]).expect(6);
    assert!(taken.err.contains("next:"), "{}", taken.err);
}

#[test]
fn the_same_content_under_two_names_is_two_files() {
    let rig = TestRig::new();
    let ((alice, _alices), (bob, _bobs)) = alice_and_bob(&rig);
    let content = bytes(PIECE + 9, 4);
    let (one, other) = (rig.file("one", &content), rig.file("other", &content));
    alice.run(["upload_file", "g", "one"]).expect(0);
    alice.run(["upload_file", "g", "other"]).expect(0);
    bob.run(["download_file", "g", "one", "copy-of-one"]).expect(0);
    alice.run(["stop_share", "g", "one"]).expect(0);
    bob.run(["download_file", "g", "other", "copy-of-other"]).expect(0);
    same(&one, &rig.path("copy-of-one"));
    same(&other, &rig.path("copy-of-other"));
}

#[test]
fn an_existing_destination_is_checked_first() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig);
    let source = rig.file("f", &bytes(2 * PIECE, 4));
    alice.run(["upload_file", "g", "f"]).expect(0);
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    let again = bob.run(["download_file", "g", "f", "copy"]).expect(0);
    assert!(again.out.contains("already"), "{}", again.out);
    let other = rig.file("other", b"something else");
    let refused = bob.run(["download_file", "g", "f", "other"]).expect(6);
    assert!(refused.err.contains("--overwrite"), "{}", refused.err);
    assert_eq!(fs::read(&other).unwrap(), b"something else");
    bob.run(["download_file", "g", "f", "other", "--overwrite"]).expect(0);
    same(&source, &other);
    bob.run(["download_file", "g", "f", "no/such/directory/"]).expect(5);
}

#[test]
fn strangers_and_unknown_things_are_refused_with_their_codes() {
    let rig = TestRig::new();
    let ((alice, _a), _bob) = alice_and_bob(&rig);
    rig.file("f", b"x");
    alice.run(["upload_file", "g", "f"]).expect(0);
    let (mallory, _m) = rig.user("mallory");
    for words in [&["download_file", "g", "f", "."][..], &["list_files", "g"], &["upload_file", "g", "f"]] {
        mallory.run(words).expect(4);
    }
    alice.run(["download_file", "g", "nothing", "."]).expect(5);
    alice.run(["join_group", "nowhere"]).expect(5);
    alice.run(["create_group", "g"]).expect(6);
    alice.run(["create_user", "bob", "password"]).expect(6);
    let fresh = rig.home("fresh");
    fresh.run(["login", "alice", "wrong"]).expect(3);
    fresh.run(["list_groups"]).expect(3);
}

#[test]
fn upload_takes_both_orders_and_shares_in_the_foreground_without_a_node() {
    let rig = TestRig::new();
    let (_, (bob, _b)) = alice_and_bob(&rig);
    let home = rig.home("dora");
    home.run(["create_user", "dora", "password"]).expect(0);
    home.run(["login", "dora", "password"]).expect(0);
    home.run(["join_group", "g"]).expect(0);
    let source = rig.file("turned round", &bytes(PIECE + 1, 8));
    let (mut sharing, line) = home.start(&["upload_file", "turned round", "g", "--listen", "127.0.0.1"]);
    assert!(line.starts_with("[g] turned round is shared"), "{line}");
    bob.run(["download_file", "g", "turned round", "copy"]).expect(0);
    same(&source, &rig.path("copy"));
    sharing.signal(Signal::INT);
    assert_eq!(sharing.wait(), Some(0), "Ctrl-C is the normal end of sharing");
}

#[test]
fn without_peers_a_download_ends_with_8_and_can_be_paused_and_cancelled() {
    let rig = TestRig::new();
    let ((alice, a), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &bytes(3 * PIECE, 5));
    alice.run(["upload_file", "g", "f"]).expect(0);
    a.kill();
    let ended = bob.run(["download_file", "g", "f", "copy", "--wait", "15"]).expect(8);
    assert!(ended.err.contains("no peer has the missing pieces"), "{}", ended.err);
    until("the download says so too", || bob.downloads().starts_with("[W] [g] f (no peer has"));
    assert_eq!(bob.status()["downloads"][0]["waits_for"], "peers");
    bob.run(["pause", "g", "f"]).expect(0);
    until("it is shown as paused", || bob.downloads().starts_with("[P] [g] f (by you)  1.5 MiB  /"));
    bob.run(["resume", "g", "f"]).expect(0);
    bob.run(["cancel", "g", "f"]).expect(0);
    assert_eq!(bob.run(["show_downloads"]).expect(0).out, "");
    bob.run(["cancel", "g", "f"]).expect(5);
}

#[test]
fn ctrl_c_ends_a_download_with_130_and_keeps_the_part() {
    let rig = TestRig::new();
    let ((alice, a), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &bytes(3 * PIECE, 6));
    alice.run(["upload_file", "g", "f"]).expect(0);
    a.kill();
    let home = rig.home("emil");
    home.run(["create_user", "emil", "password"]).expect(0);
    home.run(["login", "emil", "password"]).expect(0);
    home.run(["join_group", "g"]).expect(0);
    fs::create_dir(rig.path("into")).unwrap();
    // The first event on stdout shows that the download has started.
    let (mut fetching, line) = home.start(&["download_file", "g", "f", "into", "--json"]);
    assert!(line.contains("\"event\":\"transfer\""), "{line}");
    send(fetching.pid(), Signal::INT);
    assert_eq!(fetching.wait(), Some(130));
    let paths = fs::read_dir(rig.path("into")).unwrap().map(|entry| entry.unwrap().path());
    let parts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "part"));
    assert_eq!(parts.count(), 1, "the partial file stays");
    // What the user ended is no error.
    let (waiting, heard) = home.start_and_hear(&["download_file", "g", "f", "into"]);
    until("the download has started", || heard.has("[g] f"));
    send(waiting.pid(), Signal::INT);
    let said = heard.all();
    assert!(said.contains("stopped: [g] f: 0 B of 1.5 MiB (0%) downloaded; the part stays"), "{said}");
    assert!(said.contains("`client download_file g f /") && !said.contains("error:"), "{said}");
    let (waiting, heard) = bob.start_and_hear(&["download_file", "g", "f", "of-the-node"]);
    until("the download has started", || heard.has("[g] f"));
    send(waiting.pid(), Signal::INT);
    let said = heard.all();
    assert!(said.contains("; the running node continues the download") && !said.contains("error:"), "{said}");
}

#[test]
fn a_download_that_its_user_paused_goes_on_when_it_is_asked_for_again() {
    let rig = TestRig::new();
    let ((alice, a), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &bytes(3 * PIECE, 7));
    alice.run(["upload_file", "g", "f"]).expect(0);
    // Alice's node answers no peer until the download is paused.
    a.signal(Signal::STOP);
    let (followed, heard) = bob.start_and_hear(&["download_file", "g", "f", "copy"]);
    until("the download has started", || heard.has("[g] f") || heard.has("connecting"));
    bob.run(["pause", "g", "f"]).expect(0);
    until("the pause is shown", || heard.has("[P] [g] f (by you)"));
    send(followed.pid(), Signal::INT);
    let said = heard.all();
    assert!(said.contains("it is paused in the running node") && said.contains("resume g f"), "{said}");
    a.signal(Signal::CONT);
    bob.run(["download_file", "g", "f", "copy", "--wait", "20"]).expect(0);
    same(&rig.path("f"), &rig.path("copy"));
}

#[test]
fn another_user_on_the_same_state_directory_is_told_of_state_directories() {
    let rig = TestRig::new();
    let (alice, _a) = rig.user("alice");
    alice.run(["create_user", "bob", "password"]).expect(0);
    let prompt = alice.prompt("").expect(0);
    assert!(
        prompt.err.contains("alice is logged in here") && prompt.err.contains("--state DIR"),
        "{}",
        prompt.err
    );
    let again = alice.run(["login", "alice", "password"]).expect(0);
    assert!(!again.out.contains("--state"), "{}", again.out);
    let login = alice.run(["login", "bob", "password"]).expect(0);
    assert!(login.out.contains("alice, who was logged in here, is logged out"), "{}", login.out);
    assert!(login.out.contains("--state DIR"), "{}", login.out);
}

#[test]
fn without_a_login_nothing_is_shared_and_the_status_says_what_waits() {
    let rig = TestRig::new();
    let (alice, _a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    for name in ["one", "two"] {
        rig.file(name, &bytes(PIECE, 1));
        alice.run(["upload_file", "g", name]).expect(0);
    }
    alice.run(["logout"]).expect(0);
    let status = alice.status();
    assert_eq!(status["shares"], serde_json::json!([]));
    assert_eq!(status["waiting_shares"], serde_json::json!([{"user": "alice", "shares": 2}]));
    let shown = alice.run(["status"]).expect(0).out;
    assert!(shown.contains("not logged in: 2 shares wait for `client login alice`"), "{shown}");
    alice.run(["login", "alice", "password"]).expect(0);
    let status = alice.status();
    assert!(status.get("waiting_shares").is_none(), "{status}");
}

#[test]
fn groups_with_approval_need_the_owners_consent() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig);
    alice.run(["create_group", "closed", "approval"]).expect(0);
    let joined = bob.run(["join_group", "closed", "--json"]).expect(0);
    assert!(joined.out.contains("\"pending\":true"), "{}", joined.out);
    bob.run(["list_requests", "closed"]).expect(4);
    assert_eq!(alice.run(["list_requests", "closed"]).expect(0).out, "bob\n");
    bob.run(["list_files", "closed"]).expect(4);
    alice.run(["accept_request", "closed", "bob"]).expect(0);
    bob.run(["list_files", "closed"]).expect(0);
    alice.run(["remove_member", "closed", "bob"]).expect(0);
    bob.run(["list_files", "closed"]).expect(4);
    let mut groups: Vec<String> = bob.run(["list_groups"]).expect(0).out.lines().map(Into::into).collect();
    groups.sort();
    assert_eq!(groups, ["closed", "g"]);
}

#[test]
fn the_session_outlives_the_process_until_logout() {
    let rig = TestRig::new();
    let (alice, node) = rig.user("alice");
    node.kill();
    assert!(alice.run(["whoami"]).expect(0).out.starts_with("alice"));
    alice.run(["logout"]).expect(0);
    alice.run(["whoami"]).expect(3);
    assert!(!alice.state().join("session.json").exists());
}

#[test]
fn a_changed_password_takes_effect_and_keeps_the_session() {
    let rig = TestRig::new();
    let (alice, _node) = rig.user("alice");
    let wrong = alice.run(["change_password", "wrong", "new"]).expect(3);
    assert!(wrong.err.contains("old password"), "{}", wrong.err);
    alice.run(["change_password", "only-one"]).expect(2);
    let asked = alice.run(["change_password"]).expect(2);
    assert!(asked.err.contains("--password-file"), "stdin is not a terminal: {}", asked.err);
    rig.file("passwords", b"password\nsecond\n");
    let elsewhere = rig.home("elsewhere");
    elsewhere.run(["login", "alice", "password"]).expect(0);
    alice.run(["change_password", "--password-file", "passwords"]).expect(0);
    alice.run(["whoami"]).expect(0);
    elsewhere.run(["whoami"]).expect(3);
    elsewhere.run(["login", "alice", "password"]).expect(3);
    elsewhere.run(["login", "alice", "second"]).expect(0);
}

#[test]
fn without_its_tracker_a_node_stays_and_says_so() {
    let mut rig = TestRig::new();
    let (home, node) = rig.user("alice");
    rig.kill_tracker();
    let ended = home.run(["list_groups"]).expect(7);
    assert!(ended.err.contains("no tracker can be reached"), "{}", ended.err);
    let status = home.run(["status"]).expect(0);
    assert!(status.out.contains("alice") && status.out.contains("waits for a tracker"), "{}", status.out);
    assert!(status.out.contains(&node.address.to_string()));
}

#[test]
fn a_prompt_fetches_in_the_background() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig);
    let source = rig.file("f", &bytes(PIECE + 1, 7));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let said = bob.prompt("download_file g f copy\n").expect(0);
    assert!(said.out.contains("is being downloaded"), "{} {}", said.out, said.err);
    // Given again, the command joins the download or finds it complete.
    bob.run(["download_file", "g", "f", "copy"]).expect(0);
    same(&source, &rig.path("copy"));
}

#[test]
fn a_stopped_share_is_not_served() {
    let rig = TestRig::new();
    let ((alice, _a), (bob, _b)) = alice_and_bob(&rig);
    rig.file("f", &bytes(PIECE, 9));
    alice.run(["upload_file", "g", "f"]).expect(0);
    assert_eq!(bob.run(["get_peers", "g", "f"]).expect(0).out.lines().count(), 1);
    let alone = alice.run(["get_peers", "g", "f"]).expect(0);
    assert!(alone.out.is_empty() && alone.err.contains("no other node has it"), "{}", alone.err);
    alice.run(["stop_share", "g", "f"]).expect(0);
    for home in [&alice, &bob] {
        let none = home.run(["get_peers", "g", "f"]).expect(0);
        assert!(none.out.is_empty() && none.err.contains("no other node"), "{}", none.err);
    }
    bob.run(["download_file", "g", "f", "copy", "--wait", "15"]).expect(8);
    alice.run(["remove_file", "g", "f"]).expect(0);
    assert_eq!(bob.run(["list_files", "g"]).expect(0).out, "");
}

#[test]
fn a_pause_of_the_users_outlasts_another_users_login() {
    let rig = TestRig::new();
    let (alice, _a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &bytes(PIECE, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    alice.run(["stop_share", "g", "f"]).expect(0);
    let (bob, _b) = rig.user("bob");
    bob.run(["join_group", "g"]).expect(0);
    bob.prompt("download_file g f copy\n").expect(0);
    until("the download waits for a peer", || bob.downloads().starts_with("[W] [g] f"));
    bob.run(["create_user", "carol", "password"]).expect(0);
    bob.run(["login", "carol", "password"]).expect(0);
    assert!(bob.downloads().starts_with("[W] [g] f (its user bob is not logged in"), "{}", bob.downloads());
    for words in [&["resume", "g", "f"][..], &["download_file", "g", "f", "copy"]] {
        let refused = bob.run(words).expect(if words.len() == 3 { 3 } else { 6 });
        assert!(refused.err.contains("of bob") || refused.err.contains("by bob"), "{}", refused.err);
    }
    bob.run(["pause", "g", "f"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    assert!(bob.downloads().starts_with("[P] [g] f (by you)"), "{}", bob.downloads());
}

#[test]
fn a_destination_that_is_not_a_file_is_reported_and_kept() {
    let rig = TestRig::new();
    let (alice, _a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &bytes(PIECE, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let (bob, _b) = rig.user("bob");
    bob.run(["join_group", "g"]).expect(0);
    std::os::unix::fs::symlink(rig.path("f"), rig.path("link")).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, rig.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (name, what) in
        [("link", "is a symbolic link, which is never replaced"), ("pipe", "is a fifo, which")]
    {
        for overwrite in [&[][..], &["--overwrite"]] {
            let words = ["download_file", "g", "f", name].into_iter().chain(overwrite.iter().copied());
            let ended = bob.run(words).expect(6);
            assert!(ended.err.contains(what) && !ended.err.contains("add `--overwrite`"), "{}", ended.err);
        }
    }
    assert!(rig.path("link").is_symlink());
}

#[test]
fn a_mistyped_file_is_missing_even_where_a_file_has_the_groups_name() {
    let rig = TestRig::new();
    let (alice, _a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("g", b"by chance");
    let ended = alice.run(["upload_file", "g", "report.txt"]).expect(5);
    assert!(ended.err.contains("report.txt"), "{}", ended.err);
    // In the other order the words name an existing group and file.
    rig.file("other", b"x");
    alice.run(["upload_file", "other", "g"]).expect(0);
    assert_eq!(alice.run(["list_files", "g"]).expect(0).out, "other\n");
}
