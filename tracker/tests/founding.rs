//! Which tracker may found a cluster, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use rig::{Tracker, command, unused_address};
use tempfile::TempDir;

/// A directory with a cluster file: one line of this machine with a port chosen by the system, and `others`.
fn place(others: &[SocketAddr]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let lines = others.iter().map(|line| format!("{} {}\n", line.ip(), line.port()));
    let text: String = std::iter::once("127.0.0.1 0\n".to_owned()).chain(lines).collect();
    fs::write(dir.path().join("tracker_info.txt"), text).unwrap();
    dir
}

/// Error output of a tracker that refuses to start.
fn refusal(dir: &Path, args: &[&str]) -> String {
    refusal_unless_it_starts(dir, args).expect("the tracker must not start")
}

/// The same; `None` when the tracker started. It is ended then.
fn refusal_unless_it_starts(dir: &Path, args: &[&str]) -> Option<String> {
    let mut child = command(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if !line.is_empty() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    line.is_empty().then(|| String::from_utf8(output.stderr).unwrap())
}

/// Founds a cluster in a directory, ends its tracker, and returns the cluster's key.
fn found(dir: &Path) -> String {
    start(dir, &[]);
    fs::read_to_string(dir.join("tracker_data/cluster.key")).unwrap()
}

/// Starts a tracker and ends it when it listens.
fn start(dir: &Path, args: &[&str]) {
    let mut child = command(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("tracker listening on "), "{line:?}");
}

#[test]
fn the_first_line_founds_when_the_others_refuse_and_goes_on_with_its_key() {
    let (one, other) = (unused_address(), unused_address());
    let dir = place(&[one.1, other.1]);
    let key = found(dir.path());
    let mode = fs::metadata(dir.path().join("tracker_data/cluster.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(dir.path().join("tracker_data/127.0.0.1_0").is_dir());
    assert_eq!(found(dir.path()), key, "a second start founds nothing");
}

#[test]
fn a_founding_says_that_and_where_a_new_cluster_begins() {
    let dir = place(&[]);
    let said = |dir: &Path| {
        let mut child = command(dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.kill().unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
    };
    let place = dir.path().canonicalize().unwrap().join("tracker_data/127.0.0.1_0");
    let line = format!("a new cluster begins in {}", place.display());
    assert!(said(dir.path()).contains(&line));
    assert!(!said(dir.path()).contains("a new cluster begins"), "only the first start says it");
}

#[test]
fn only_the_first_line_founds_a_cluster() {
    let dir = place(&["127.0.0.2:0".parse().unwrap()]);
    let refused = refusal(dir.path(), &["tracker_info.txt", "2"]);
    assert!(refused.contains("only the first line"), "{refused}");
    assert!(!dir.path().join("tracker_data/cluster.key").exists());
}

#[test]
fn a_key_without_its_log_and_a_log_without_its_key_are_refused() {
    let dir = place(&[]);
    let key = found(dir.path());
    let data = dir.path().join("tracker_data");
    fs::remove_file(data.join("cluster.key")).unwrap();
    let refused = refusal(dir.path(), &[]);
    assert!(refused.contains("no cluster.key"), "{refused}");
    let other = place(&[]);
    fs::write(data.join("cluster.key"), found(other.path())).unwrap();
    let refused = refusal(dir.path(), &[]);
    assert!(refused.contains("belongs to cluster"), "{refused}");
    fs::write(data.join("cluster.key"), key).unwrap();
    fs::rename(data.join("127.0.0.1_0"), data.join("moved")).unwrap();
    let refused = refusal(dir.path(), &[]);
    assert!(refused.contains("from a backup") && refused.contains("moved"), "{refused}");
}

#[test]
fn a_cluster_is_not_founded_against_a_running_tracker() {
    let running = Tracker::start();
    let dir = place(&[running.address]);
    let refused = refusal(dir.path(), &[]);
    assert!(
        refused.contains(&running.address.to_string()) && refused.contains("take its line out"),
        "{refused}"
    );
    assert!(!dir.path().join("tracker_data/cluster.key").exists());
    // On a slow machine the tracker may not answer a probe within its second, and then `--found` founds. Then this is
    // repeated in another directory.
    let refused = (0..10).find_map(|_| {
        let dir = place(&[running.address]);
        let refused = refusal_unless_it_starts(dir.path(), &["--found"])?;
        assert!(!dir.path().join("tracker_data/cluster.key").exists());
        Some(refused)
    });
    let refused = refused.expect("--found founded against a running tracker, each time");
    assert!(refused.contains(&running.address.to_string()), "{refused}");
}

#[test]
fn another_program_on_a_line_counts_as_no_tracker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = place(&[listener.local_addr().unwrap()]);
    std::thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            let _ = connection.write_all(b"SSH-2.0-example\r\n");
        }
    });
    found(dir.path());
}

#[test]
fn a_line_that_does_not_answer_is_waited_for_unless_found_is_given() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = place(&[silent.local_addr().unwrap()]);
    let mut waiting = command(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let said = lines.find(|line| line.as_ref().unwrap().contains("--found"));
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    said.expect("it names --found").unwrap();
    assert!(!dir.path().join("tracker_data/cluster.key").exists());
    start(dir.path(), &["--found"]);
}
