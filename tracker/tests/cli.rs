//! The tracker's command line: starting, ending and `status`.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod rig;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Output, Stdio};

use rig::{Tracker, command, unused_address};

fn run(dir: &std::path::Path, args: &[&str]) -> (Output, String) {
    let output = command(dir).args(args).output().unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    (output, errors)
}

/// Starts a tracker with this cluster file, and expects it to fail with a message that contains `expected`.
fn assert_fails(text: &str, args: &[&str], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("info.txt"), text).unwrap();
    let (output, errors) = run(dir.path(), &[args, &["--wait", "0"]].concat());
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn invalid_files_and_arguments_are_explained() {
    assert_fails("", &[], "no tracker_info.txt found");
    assert_fails("", &["missing.txt"], "missing.txt");
    assert_fails("", &["info.txt"], "names no tracker");
    assert_fails("127.0.0.1 0\nlocalhost 1\n", &["info.txt"], "line 2: `localhost 1`");
    assert_fails("127.0.0.1 0\n", &["info.txt", "2"], "give a number from 1 to 1");
    assert_fails("127.0.0.1 0\n", &["info.txt", "0"], "give a number from 1 to 1");
    assert_fails("240.0.0.1 8000\n", &["info.txt"], "240.0.0.1:8000 is not an address of this machine");
    assert_fails("240.0.0.1 8000\n", &["info.txt", "1"], "240.0.0.1:8000 is not an address of this machine");
    assert_fails("127.0.0.1 0\n", &["info.txt", "one"], "one");
}

#[test]
fn a_taken_address_is_skipped_or_reported() {
    let tracker = Tracker::start();
    let taken = tracker.address;
    assert_fails(&format!("{taken}\n"), &["info.txt"], "is taken by another program");
    assert_fails(&format!("{taken}\n"), &["info.txt", "1"], "is taken by another program");
    // The third line is chosen, but only the first line may found a cluster.
    let lines = format!("240.0.0.1 1\n{taken}\n127.0.0.1 0\n");
    assert_fails(&lines, &["info.txt"], "127.0.0.1:0 with tracker_data: only the first line");
}

#[test]
fn signals_end_the_tracker_cleanly() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut tracker = Tracker::start();
        let mut client = tracker.connect();
        client.ok("ping", serde_json::json!({}));
        let pid = rustix::process::Pid::from_raw(i32::try_from(tracker.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        client.ok("ping", serde_json::json!({}));
        rustix::process::kill_process(pid, signal).unwrap();
        assert!(tracker.wait().success());
    }
}

#[test]
fn the_cluster_file_is_found_in_the_parent_and_by_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(dir.path().join("tracker_info.txt"), "the one above").unwrap();
    let (_, errors) = run(&below, &[]);
    assert!(errors.contains("line 1: `the one above`"), "{errors}");
    std::fs::write(dir.path().join("named.txt"), "the named one").unwrap();
    let output = command(&below).env("SHOAL_TRACKERS", "../named.txt").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1: `the named one`"));
    let (_, errors) = run(&below, &["--trackers", "../named.txt"]);
    assert!(errors.contains("line 1: `the named one`"), "{errors}");
}

#[test]
fn status_queries_each_tracker() {
    let tracker = Tracker::start();
    let dir = tempfile::tempdir().unwrap();
    let (_bound, free) = unused_address();
    std::fs::write(dir.path().join("info.txt"), format!("{}\n{free}\n", tracker.address)).unwrap();
    let leads = format!("{}  leads; 1 voter", tracker.address);
    let mut lines = String::new();
    // On a slow machine the running tracker may also miss the time limit of two seconds.
    for _ in 0..10 {
        let (output, _) = run(dir.path(), &["status", "info.txt"]);
        lines = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.success(), lines.contains(&leads), "{lines}");
        if output.status.success() {
            break;
        }
    }
    assert!(lines.contains(&leads), "{lines}");
    assert!(lines.contains(&format!("{free}  no answer")), "{lines}");
    drop(tracker);
    let (output, _) = run(dir.path(), &["status", "info.txt"]);
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn status_names_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    // It takes connections and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    std::fs::write(dir.path().join("info.txt"), format!("{address}\n")).unwrap();
    let (output, _) = run(dir.path(), &["status", "info.txt"]);
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line, format!("{address}  no answer: nothing came within 2 s\n"));
}

#[test]
fn a_port_that_is_held_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (held, address) = unused_address();
    std::fs::write(dir.path().join("tracker_info.txt"), format!("{address}\n")).unwrap();
    let mut waiting = command(dir.path());
    let mut child = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains(&format!("{address} is taken by another program; trying again")), "{told}");
    drop(held);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line, format!("tracker listening on {address}\n"));
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (gone, without_reader) = std::io::pipe().unwrap();
    drop(gone);
    let (mut unread, with_reader) = std::io::pipe().unwrap();
    for stderr in [Stdio::from(full), Stdio::from(without_reader), Stdio::from(with_reader)] {
        let mut tracker = Tracker::with_log("trace", stderr);
        let mut client = tracker.connect();
        // Each logs something, far more in all than a pipe holds.
        for _ in 0..300 {
            client.ok("ping", serde_json::json!({}));
            tracker.connect().send_bytes(b"GET / HTTP/1.1\r\n\r\n");
        }
        client.ok("create_user", serde_json::json!({"user_id": "alice", "passwd": "secret"}));
        client.log_in("alice");
        let pid = rustix::process::Pid::from_raw(i32::try_from(tracker.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(tracker.wait().success());
    }
    let mut log = Vec::new();
    unread.read_to_end(&mut log).unwrap();
    assert!(log.len() > 32 * 1024, "the pipe held {} bytes", log.len());
}
