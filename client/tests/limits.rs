//! Limits of the system that a node meets in ordinary use: no room for mappings, for open files, for long files.
//! The limits are set on the running node.
#![allow(clippy::unwrap_used, reason = "a file or process of the test's own that fails is a failed test")]

mod rig;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use rig::{Heard, PIECE, RunningNode, TestRig, UserHome, pieces, until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Address space that a limited node may add: its buffers and threads find room, the file below does not.
const ROOM_BYTES: u64 = 160 << 20;

/// Pieces of a file that does not fit there.
const LONG_PIECES: usize = 448;

fn limit(pid: u32, resource: Resource, value: u64) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    prlimit(Some(pid), resource, Rlimit { current: Some(value), maximum: Some(value) }).unwrap();
}

/// Address space of a process, in bytes.
fn address_space(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A logged-in user, whose node cannot map the long file.
fn cramped_user(rig: &TestRig, name: &str) -> (UserHome, RunningNode, Heard) {
    let home = rig.home(name);
    let (node, said) = home.serve_and_hear();
    home.run(["create_user", name, "password"]).expect(0);
    home.run(["login", name, "password"]).expect(0);
    limit(node.pid(), Resource::As, address_space(node.pid()) + ROOM_BYTES);
    (home, node, said)
}

/// A sparse file whose pieces all differ.
fn long_file(path: &Path) {
    let file = File::create(path).unwrap();
    for index in 0..LONG_PIECES {
        file.write_all_at(&(index as u64 + 1).to_be_bytes(), (index * PIECE + index) as u64).unwrap();
    }
    file.set_len((LONG_PIECES * PIECE) as u64).unwrap();
}

fn same(one: &Path, other: &Path) {
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} is another file", other.display());
}

#[test]
fn without_room_for_mappings_files_are_read_and_it_is_said_once() {
    let rig = TestRig::new();
    let (alice, node, said) = cramped_user(&rig, "alice");
    long_file(&rig.path("f"));
    alice.run(["create_group", "g"]).expect(0);
    alice.run(["upload_file", "g", "f"]).expect(0);
    assert!(said.has("read instead"), "the file was mapped, so the limit is too high");
    let (bob, bobs_node, bob_said) = cramped_user(&rig, "bob");
    bob.run(["join_group", "g"]).expect(0);
    bob.run(["download_file", "g", "f", "of-bob"]).expect(0);
    same(&rig.path("f"), &rig.path("of-bob"));
    // Comparing reads it as well: the same command finds the same file there.
    bob.run(["download_file", "g", "f", "of-bob"]).expect(0);
    node.kill();
    let (carol, _carols_node) = rig.user("carol");
    carol.run(["join_group", "g"]).expect(0);
    carol.run(["download_file", "g", "f", "of-carol"]).expect(0);
    same(&rig.path("f"), &rig.path("of-carol"));
    bobs_node.kill();
    for said in [said, bob_said] {
        assert_eq!(said.all().matches("read instead").count(), 1);
    }
}

#[test]
fn a_partial_file_is_served_without_a_mapping() {
    let rig = TestRig::new();
    let alice = rig.home("alice");
    let node = alice.serve(&["--limit-up", "20MiB"]);
    alice.run(["create_user", "alice", "password"]).expect(0);
    alice.run(["login", "alice", "password"]).expect(0);
    long_file(&rig.path("f"));
    alice.run(["create_group", "g"]).expect(0);
    alice.run(["upload_file", "g", "f"]).expect(0);
    let (bob, _bobs_node, said) = cramped_user(&rig, "bob");
    bob.run(["join_group", "g"]).expect(0);
    let _bobs_command = bob.spawn(&["download_file", "g", "f", "of-bob"]);
    let verified = |home: &UserHome| home.status()["downloads"][0]["verified_bytes"].as_u64().unwrap_or(0);
    until("bob has some pieces", || verified(&bob) > 0);
    node.kill();
    assert!(said.has("read instead"), "the file was mapped, so the limit is too high");
    let (carol, _carols_node) = rig.user("carol");
    carol.run(["join_group", "g"]).expect(0);
    let _carols_command = carol.spawn(&["download_file", "g", "f", "of-carol"]);
    until("carol has what bob has", || verified(&carol) > 0 && verified(&carol) == verified(&bob));
}

#[test]
fn a_file_longer_than_the_user_may_write_is_refused_by_that_limit() {
    let rig = TestRig::new();
    let (alice, _alices_node) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &pieces(3, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let (bob, bobs_node) = rig.user("bob");
    bob.run(["join_group", "g"]).expect(0);
    limit(bobs_node.pid(), Resource::Fsize, 1 << 20);
    let refused = bob.run(["download_file", "g", "f", "copy"]).expect(10).err;
    assert!(
        refused.contains("more than 1.0 MiB (`ulimit -f`)") && !refused.contains("check the disk"),
        "{refused}"
    );
    assert_eq!(bob.status()["user"], "bob", "its node goes on");
}

#[test]
fn a_node_without_descriptors_names_the_limit() {
    let rig = TestRig::new();
    let (alice, _alices_node) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &pieces(1, 2));
    // The prompt is a node itself, so its commands need no further descriptor for a connection.
    let prompt = rig.home("bob");
    prompt.run(["create_user", "bob", "password"]).expect(0);
    prompt.run(["login", "bob", "password"]).expect(0);
    prompt.run(["join_group", "g"]).expect(0);
    let mut command = prompt.command(std::iter::empty::<&str>());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // Its answer shows that the node listens and that its connection to the tracker is open.
    stdin.write_all(b"list_files g\nstatus\n").unwrap();
    let mut line = String::new();
    while !line.starts_with("node") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "the prompt ended");
    }
    let descriptors = format!("/proc/{}/fd", child.id());
    let is_free = |number: &u64| !Path::new(&descriptors).join(number.to_string()).is_symlink();
    // Which of the command's descriptors is refused depends on what the node does meanwhile.
    let most = (0..).find(is_free).unwrap();
    limit(child.id(), Resource::Nofile, most);
    stdin.write_all(format!("upload_file g {}\n", rig.path("f").display()).as_bytes()).unwrap();
    drop(stdin);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    child.wait().unwrap();
    let limit = format!("only {most} files open (`ulimit -n`)");
    assert!(said.contains(&limit) && said.contains("ulimit -n 65536"), "{said}");
    assert!(!said.contains("check the disk"), "{said}");
}
