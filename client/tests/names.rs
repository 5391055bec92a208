//! Names that users type at a tracker: groups, files and users that are swapped or mistyped, names that cannot be listed,
//! and what a new user is told.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be made is a failed test")]

mod rig;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use rig::{TestRig, UserHome};

/// Alice, who owns the group `weights`, which is empty.
fn alice(rig: &TestRig) -> (UserHome, rig::RunningNode) {
    let (home, node) = rig.user("alice");
    home.run(["create_group", "weights"]).expect(0);
    (home, node)
}

#[test]
fn a_new_user_is_logged_in_unless_another_one_is() {
    let rig = TestRig::new();
    let home = rig.home("a");
    let first = home.run(["create_user", "alice", "password"]).expect(0).out;
    assert!(first.contains("alice is logged in here"), "{first}");
    assert!(home.run(["whoami"]).expect(0).out.starts_with("alice"));
    let second = home.run(["create_user", "bob", "password"]).expect(0).out;
    assert!(second.contains("alice stays logged in here"), "{second}");
    assert!(home.run(["whoami"]).expect(0).out.starts_with("alice"));
    home.run(["login", "alice", "password"]).expect(0);
    assert!(home.run(["create_user", "alice", "password"]).expect(6).out.is_empty());
}

#[test]
fn trackers_are_remembered_at_login_and_a_file_comes_first() {
    let rig = TestRig::new();
    let home = rig.home("a");
    let away = rig.path("away/from/here");
    fs::create_dir_all(&away).unwrap();
    let run_away = |words: &[&str]| {
        let output = home.command(words).current_dir(&away).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(run_away(&["list_groups"]).0, Some(2), "no trackers are known yet");
    home.run(["create_user", "alice", "password"]).expect(0);
    assert_eq!(run_away(&["whoami"]), (Some(0), "alice\n".into(), String::new()));
    let doctor = run_away(&["doctor"]).1;
    assert!(doctor.contains("answers; of the last login"), "{doctor}");
    // A logout keeps them, so that the next login finds them.
    home.run(["logout"]).expect(0);
    assert_eq!(run_away(&["login", "alice", "password"]).0, Some(0));
    let (_reserved, nowhere) = rig::unused_address();
    fs::write(away.join("tracker_info.txt"), format!("{nowhere}\n")).unwrap();
    let (code, _, said) = run_away(&["list_groups"]);
    assert!(code == Some(7) && said.contains(&format!("{nowhere}: ")), "{said}");
    assert!(said.contains("away/from/here/tracker_info.txt"), "{said}");
    let named = rig.tracker().to_string();
    assert_eq!(run_away(&["whoami", "--trackers", &named]).0, Some(0));
    fs::write(away.join("tracker_info.txt"), "nonsense\n").unwrap();
    assert_eq!(run_away(&["list_groups"]).0, Some(2), "a broken file is not passed over");
}

#[test]
fn roles_and_empty_lists_are_told() {
    let rig = TestRig::new();
    let (alice, _node) = rig.user("alice");
    let none = alice.run(["list_groups"]).expect(0);
    assert!(none.out.is_empty() && none.err.contains("`client create_group GROUP`"), "{}", none.err);
    alice.run(["create_group", "weights"]).expect(0);
    let files = alice.run(["ls", "weights"]).expect(0);
    assert!(files.out.is_empty() && files.err.contains("`client upload_file weights FILE`"), "{}", files.err);
    let asking = alice.run(["list_requests", "weights", "--quiet"]).expect(0);
    assert!(asking.out.is_empty() && asking.err.is_empty(), "{}", asking.err);
    let (bob, _node) = rig.user("bob");
    bob.run(["join_group", "weights"]).expect(0);
    for (home, owned) in [(&alice, true), (&bob, false)] {
        let out = home.run(["list_groups", "--json"]).expect(0).out;
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        let row = &answer["groups"][0];
        assert_eq!((&row["member"], &row["owned"]), (&true.into(), &owned.into()), "{row}");
    }
    assert_eq!(bob.run(["list_groups"]).expect(0).out, "weights\n");
    let exists = |home: &UserHome| home.run(["create_group", "weights"]).expect(6).err;
    assert!(exists(&alice).contains("you are in it: `client list_files weights`"), "{}", exists(&alice));
    let zoe = rig.home("zoe");
    let stranger = zoe.run(["list_groups"]).expect(3).err;
    assert!(stranger.contains("`client create_user USER`"), "{stranger}");
    zoe.run(["create_user", "zoe", "password"]).expect(0);
    assert!(exists(&zoe).contains("`client join_group weights`"), "{}", exists(&zoe));
}

#[test]
fn a_script_leaves_a_group_without_being_asked() {
    let rig = TestRig::new();
    let (alice, _node) = alice(&rig);
    alice.run(["leave_group", "weights"]).expect(0);
    assert!(alice.run(["list_groups"]).expect(0).out.is_empty());
    alice.run(["create_group", "weights"]).expect(0);
    alice.run(["leave_group", "weights", "--yes"]).expect(0);
}

#[test]
fn swapped_and_mistyped_names_get_a_suggestion() {
    let rig = TestRig::new();
    let (alice, _node) = alice(&rig);
    let file = rig.file("base-70b.bin", b"x");
    alice.run([OsStr::new("upload_file"), OsStr::new("weights"), file.as_os_str()]).expect(0);
    let directory = rig.path("");
    let directory = directory.to_str().unwrap().trim_end_matches('/');
    for (words, meant) in [
        (&["download_file", "base-70b.bin", "weights"][..], "download_file weights base-70b.bin"),
        (&["get", "wieghts", "base-70b.bin", "d"], "download_file weights base-70b.bin d"),
        (&["download_file", "weights", "base-7b.bin"], "download_file weights base-70b.bin"),
        (&["remove_file", "weights", "base-70b"], "remove_file weights base-70b.bin"),
        (&["list_files", "weigths"], "list_files weights"),
        (&["join_group", "weight"], "join_group weights"),
        (&["accept_request", "bob", "weights"], "accept_request weights bob"),
    ] {
        let said = alice.run(words).expect(5).err;
        assert!(said.contains(&format!("did you mean `client {meant}`?")), "{words:?}: {said}");
    }
    let mistyped = format!("did you mean `client upload_file weights {directory}/base-70b.bin`?");
    let said = alice.run(["upload_file", "wieghts", &format!("{directory}/base-70b.bin")]).expect(5).err;
    assert!(said.contains(&mistyped), "{said}");
    let nothing_near = alice.run(["list_files", "photos"]).expect(5).err;
    assert!(!nothing_near.contains("did you mean"), "{nothing_near}");
    // A file that was removed was named right, however near another name is.
    alice.run(["put", "weights", "base-70b.bin", "--as", "base-71b.bin"]).expect(0);
    alice.run(["remove_file", "weights", "base-71b.bin"]).expect(0);
    let removed = alice.run(["download_file", "weights", "base-71b.bin"]).expect(5).err;
    assert!(removed.contains("by alice") && !removed.contains("did you mean"), "{removed}");
    let no_file = alice.run(["put", "nofile", "weights"]).expect(5).err;
    let swapped = "`client upload_file weights nofile`";
    assert!(no_file.contains("/nofile: ") && no_file.contains(swapped), "{no_file}");
    let at_the_prompt = alice.prompt("get base-70b.bin weights\n").expect(5).err;
    assert!(at_the_prompt.contains("did you mean `download_file weights base-70b.bin`?"), "{at_the_prompt}");
}

#[test]
fn a_file_is_listed_under_another_name_and_fetched_into_the_current_directory() {
    let rig = TestRig::new();
    let (alice, _node) = alice(&rig);
    let name = OsStr::from_bytes(b"caf\xe9.bin");
    fs::write(rig.path(name), "content").unwrap();
    let upload = [OsStr::new("upload_file"), OsStr::new("weights"), name];
    let refused = alice.run(upload).expect(2).err;
    assert!(refused.contains(r"caf\xE9.bin") && refused.contains("--as caf_.bin`"), "{refused}");
    // The suggested command, as a shell runs it.
    let command = refused.split('`').nth(1).unwrap().replacen("client", rig::CLIENT, 1);
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &command]).current_dir(rig.path(""));
    for (name, value) in alice.command(std::iter::empty::<&str>()).get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(alice.run(["list_files", "weights"]).expect(0).out, "caf_.bin\n");
    let swapped = [name, OsStr::new("weights"), OsStr::new("--as"), OsStr::new("second")];
    alice.run(std::iter::once(OsStr::new("put")).chain(swapped)).expect(0);
    let (bob, _node) = rig.user("bob");
    bob.run(["join_group", "weights"]).expect(0);
    fs::create_dir(rig.path("here")).unwrap();
    let fetched =
        bob.command(["download_file", "weights", "second"]).current_dir(rig.path("here")).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert_eq!(fs::read(rig.path("here/second")).unwrap(), b"content");
}

#[test]
fn a_share_whose_path_is_not_utf_8_survives_a_restart() {
    let rig = TestRig::new();
    let (alice, node) = alice(&rig);
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(rig.path(name), "content").unwrap();
    let words = ["upload_file", "weights", "--as", "cafe"].map(OsStr::new);
    alice.run(words.into_iter().chain([name])).expect(0);
    node.kill();
    let _node = alice.serve(&[]);
    rig::until("the share is served again", || {
        alice.status()["shares"][0]["held"] == 1 && alice.status()["shares"][0].get("changed").is_none()
    });
    assert_eq!(alice.status()["shares"][0]["file"], "cafe");
}

#[test]
fn new_names_that_hide_characters_are_refused() {
    let rig = TestRig::new();
    let (alice, _node) = alice(&rig);
    for (name, point, suggested) in [
        ("a\u{200B}b", "U+200B", "--as ab`"),
        ("\u{FEFF}x", "U+FEFF", "--as x`"),
        ("heart\u{FE0F}", "U+FE0F", "--as heart`"),
        ("\u{E0041}", "U+E0041", "--as NAME`"),
        ("object\u{FFFC}", "U+FFFC", "--as object`"),
        ("\u{301}e", "U+0301", "--as NAME`"),
        (" end", "blank", "--as end`"),
        ("end ", "blank", "--as end`"),
        ("a  b", "blank", "--as 'a b'`"),
    ] {
        rig.file(name, b"x");
        let refused = alice.run(["upload_file", "weights", name]).expect(2).err;
        assert!(refused.contains(point) && refused.contains(suggested), "{refused}");
        rig.file("plain", b"x");
        let named = alice.run(["upload_file", "weights", "plain", "--as", name]).expect(2).err;
        assert!(named.contains(point), "{named}");
    }
    assert!(alice.run(["list_files", "weights"]).expect(0).out.is_empty());
}
