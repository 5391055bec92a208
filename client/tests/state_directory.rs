//! One state directory and several processes: which is the node, which connect to it, and what happens when the directory is
//! locked, full or read-only.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use rig::{PIECE, Running, TestRig, pieces, until};
use rustix::fs::{FlockOperation, flock};

#[test]
fn many_front_ends_are_answered_at_once() {
    let rig = TestRig::new();
    let (alice, _node) = rig.user("alice");
    let commands: Vec<Running> = (0..12)
        .map(|n| match n % 3 {
            0 => alice.spawn(&["create_group", &format!("group{n}")]),
            1 => alice.spawn(&["status"]),
            _ => alice.spawn(&["whoami"]),
        })
        .collect();
    for command in commands {
        command.ended().expect(0);
    }
    assert_eq!(alice.run(["list_groups"]).expect(0).out.lines().count(), 4);
}

#[test]
fn downloads_of_the_same_file_at_once_are_one_download() {
    let rig = TestRig::new();
    let (alice, _a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    const PIECES: u64 = 40;
    let source = rig.file("f", &pieces(40, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let (bob, _b) = rig.user("bob");
    bob.run(["join_group", "g"]).expect(0);
    let commands: Vec<Running> =
        (0..5).map(|_| bob.spawn(&["download_file", "g", "f", "copy", "--json"])).collect();
    for command in commands {
        command.ended().expect(0);
    }
    assert!(fs::read(source).unwrap() == fs::read(rig.path("copy")).unwrap());
    assert!(bob.downloads().starts_with("[C] [g] f  "), "{}", bob.downloads());
    // On a machine that stalls, a piece is requested again and arrives twice. It does not count as downloaded again.
    let (shown, share) = (bob.status()["downloads"][0].clone(), alice.status()["shares"][0].clone());
    let figure = |of: &serde_json::Value, name: &str| of[name].as_u64().unwrap();
    let twice = figure(&shown, "duplicate_bytes");
    for sent in [figure(&shown, "received_bytes"), figure(&share, "sent_bytes")] {
        assert!(sent - twice < 2 * PIECES * PIECE as u64, "{sent} bytes: it was fetched more than once");
    }
}

#[test]
fn serve_waits_for_a_lock_that_is_being_given_back() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    fs::create_dir(home.state()).unwrap();
    let lock = File::create(home.state().join("node.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut serving = home.spawn(&["serve", "--listen", "127.0.0.1"]);
    // Each pause between two attempts is one such call. A process that does not wait has ended.
    until("the process retries", || {
        assert!(serving.goes_on(), "the process ended instead of waiting");
        let status = fs::read_to_string(format!("/proc/{}/status", serving.pid())).unwrap();
        let paused = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        paused.is_some_and(|count| count.trim().parse::<u64>().unwrap() >= 8)
    });
    home.run(["status"]).expect(1);
    drop(lock);
    until("the new node answers", || home.run(["status"]).code == 0);
    home.run(["quit"]).expect(0);
    serving.ended().expect(0);
}

#[test]
fn remains_of_a_dead_node_do_not_matter() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    home.serve(&[]).kill();
    for left in ["node.lock", "node.sock"] {
        assert!(home.state().join(left).exists(), "{left}");
    }
    fs::write(home.state().join("node.lock"), "4711").unwrap();
    home.run(["status"]).expect(1);
    home.run(["show_downloads"]).expect(0);
    home.serve(&[]).kill();
    // Even another file in the socket's place.
    fs::remove_file(home.state().join("node.sock")).unwrap();
    fs::write(home.state().join("node.sock"), "").unwrap();
    let _node = home.serve(&[]);
    home.run(["status"]).expect(0);
}

/// A command in the mount namespace of a process.
fn beside(pid: u32, rig: &TestRig, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.args(["-t", &pid.to_string(), "-m"]).arg(format!("--wd={}", rig.path("").display()));
    inside.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside.stdin(Stdio::null());
    inside
}

/// Runs a command: exit code and stderr.
fn end_of(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Whether this process may mount in a namespace of its own.
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    tried.is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_or_read_only_state_directory_loses_nothing_silently() {
    if !may_mount() {
        eprintln!("skipped: it takes a mount namespace, and so root and `unshare`");
        return;
    }
    let rig = TestRig::new();
    let (alice, _a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &pieces(2, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    rig.file("mine", b"mine");
    let bob = rig.home("bob");
    let state = bob.state().to_str().unwrap().to_owned();
    fs::create_dir(&state).unwrap();
    // `exec` keeps the process id: the node has that of the started shell.
    let script = "mount -t tmpfs -o size=512k,mode=700 tmpfs \"$0\" && exec \"$@\"";
    let serve = bob.command(["serve", "--listen", "127.0.0.1"]);
    let mut node = Command::new("unshare");
    node.args(["-m", "sh", "-c", script, &state]).arg(serve.get_program()).args(serve.get_args());
    let node = rig.adopt(node, &serve);
    let run = |words: &[&str]| end_of(beside(node.pid(), &rig, &bob.command(words)));
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line, &state]);
        end_of(beside(node.pid(), &rig, &command))
    };
    for words in
        [&["create_user", "bob", "password"][..], &["login", "bob", "password"], &["join_group", "g"]]
    {
        assert_eq!(run(words).0, Some(0), "{words:?}");
    }
    let refused = |words: &[&str], exit| {
        let (code, said) = run(words);
        assert_eq!(code, Some(exit), "{words:?}: {said}");
        assert!(said.contains("cannot write the record") && said.contains("next: make room"), "{said}");
    };
    shell("head -c 1m /dev/zero > \"$0/ballast\"");
    refused(&["upload_file", "g", "mine"], 9);
    refused(&["download_file", "g", "f", "copy"], 9);
    assert_eq!(alice.run(["list_files", "g"]).expect(0).out, "f\n", "what is not recorded is not listed");
    assert!(!rig.path("copy").exists());
    assert_eq!(
        shell("rm \"$0/ballast\" && mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"").0,
        Some(0)
    );
    refused(&["upload_file", "g", "mine"], 10);
    refused(&["download_file", "g", "f", "copy"], 10);
    assert_eq!(shell("umount \"$0\"").0, Some(0));
    assert_eq!(run(&["upload_file", "g", "mine"]).0, Some(0));
    assert_eq!(run(&["download_file", "g", "f", "copy"]).0, Some(0));
}
