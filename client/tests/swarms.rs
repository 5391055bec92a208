//! Swarms of several nodes. Traffic is asserted in bytes, not in time.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::fs;
use std::path::Path;

use rig::{CommandResult, RunningNode, TestRig, UserHome, until};
use serde_json::Value;

const PIECE: usize = 524_288;

/// One piece with content that is unique to the seed.
fn piece(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flat_map(|word| [word[0], word[1], word[2]]).take(PIECE).collect()
}

/// `count` users of the group `g`; the first owns it.
fn members(rig: &TestRig, count: usize) -> Vec<(UserHome, RunningNode)> {
    let users: Vec<(UserHome, RunningNode)> = (0..count).map(|n| rig.user(&format!("user{n}"))).collect();
    users[0].0.run(["create_group", "g"]).expect(0);
    users[1..].iter().for_each(|(home, _)| drop(home.run(["join_group", "g"]).expect(0)));
    users
}

/// The result: the last line of a `--json` download.
fn result(ended: &CommandResult) -> Value {
    serde_json::from_str(ended.out.lines().last().unwrap()).unwrap()
}

fn bytes(result: &Value, field: &str) -> u64 {
    result[field].as_u64().unwrap()
}

fn same(one: &Path, other: &Path) {
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} is another file", other.display());
}

#[test]
fn three_seeders_serve_300_pieces_together() {
    let rig = TestRig::new();
    let users = members(&rig, 4);
    let content: Vec<u8> = (0..300).flat_map(piece).collect();
    let source = rig.file("big", &content);
    users[0].0.run(["upload_file", "g", "big"]).expect(0);
    for n in [1, 2] {
        users[n].0.run(["download_file", "g", "big", &format!("copy{n}")]).expect(0);
    }
    assert_eq!(users[3].0.run(["get_peers", "g", "big"]).expect(0).out.lines().count(), 3);
    let done = result(&users[3].0.run(["download_file", "g", "big", "copy3", "--json"]).expect(0));
    same(&source, &rig.path("copy3"));
    assert_eq!(done["result"], "downloaded");
    assert_eq!(done["sequential_passes"], 0, "the chain proves the whole");
    // Pieces of a stalled seeder are requested elsewhere and may arrive twice. At the end, one more piece per connection may have
    // been in flight.
    let length = content.len() as u64;
    let (received, twice) = (bytes(&done, "received_bytes"), bytes(&done, "duplicate_bytes"));
    assert!(received - twice <= length + 12 * PIECE as u64, "{done}");
    assert!(received < 2 * length, "nearly everything arrived twice: {done}");
}

#[test]
fn identical_pieces_travel_once_and_zeros_never() {
    let rig = TestRig::new();
    let users = members(&rig, 2);
    let (one, two, zeros) = (piece(1), piece(2), vec![0; PIECE]);
    let content =
        [&one, &zeros, &two, &one, &one, &zeros, &two, &zeros].map(Vec::as_slice).concat().repeat(8);
    let source = rig.file("f", &content);
    users[0].0.run(["upload_file", "g", "f"]).expect(0);
    let done = result(&users[1].0.run(["download_file", "g", "f", "copy", "--json"]).expect(0));
    same(&source, &rig.path("copy"));
    // Of 64 pieces 40 are not zeros. On a machine that stalls, each of the two distinct ones may be requested on every connection;
    // `proofs` asserts that no others are.
    assert!(bytes(&done, "received_bytes") <= 10 * PIECE as u64, "{done}");

    let empty = rig.path("sparse");
    fs::File::create(&empty).unwrap().set_len(100 * PIECE as u64 + 7).unwrap();
    users[0].0.run(["upload_file", "g", "sparse"]).expect(0);
    let done = result(&users[1].0.run(["download_file", "g", "sparse", "sparse copy", "--json"]).expect(0));
    same(&empty, &rig.path("sparse copy"));
    assert!(bytes(&done, "received_bytes") < PIECE as u64, "a piece of zeros was sent: {done}");
}

#[test]
fn a_sparse_file_of_5_gib_arrives_sparse() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let rig = TestRig::new();
    let users = members(&rig, 2);
    let length: u64 = 5 << 30;
    let source = fs::File::create(rig.path("disk.img")).unwrap();
    source.set_len(length).unwrap();
    // Around 4 GiB and at the end, where 32-bit arithmetic would overflow.
    source.write_all_at(&piece(1), (4 << 30) - 9).unwrap();
    source.write_all_at(b"the end", length - 7).unwrap();
    users[0].0.run(["upload_file", "g", "disk.img"]).expect(0);
    let done = result(&users[1].0.run(["download_file", "g", "disk.img", "copy.img", "--json"]).expect(0));
    assert_eq!(done["total_bytes"].as_u64(), Some(length));
    // Three of 10,240 pieces are not zeros. On a machine that stalls they may arrive more than once.
    assert!(bytes(&done, "received_bytes") <= 64 * PIECE as u64, "{done}");
    let copy = fs::File::open(rig.path("copy.img")).unwrap();
    assert!(copy.metadata().unwrap().blocks() * 512 < 64 << 20, "zeros were written");
    let mut end = [0; 7];
    copy.read_exact_at(&mut end, length - 7).unwrap();
    assert_eq!(&end, b"the end");
    let mut middle = vec![0; PIECE];
    copy.read_exact_at(&mut middle, (4 << 30) - 9).unwrap();
    assert!(middle == piece(1), "the bytes around 4 GiB differ");
}

#[test]
fn a_changed_source_is_not_served() {
    let rig = TestRig::new();
    let users = members(&rig, 2);
    let source = rig.file("f", &[piece(1), piece(2), piece(3)].concat());
    users[0].0.run(["upload_file", "g", "f"]).expect(0);
    fs::File::options().write(true).open(&source).unwrap().set_len(10).unwrap();
    users[1].0.run(["download_file", "g", "f", "copy", "--wait", "15"]).expect(8);
    // It is reported first and withdrawn afterwards.
    until("the share is not served", || {
        users[0].0.status()["shares"].as_array().unwrap().iter().all(|share| share["changed"].is_string())
    });
    assert!(!rig.path("copy").exists());
}

#[test]
fn shares_come_back_with_their_user() {
    let rig = TestRig::new();
    let users = members(&rig, 2);
    let (home, _node) = &users[0];
    let source = rig.file("f", &[piece(1), piece(2)].concat());
    home.run(["upload_file", "g", "f"]).expect(0);
    home.run(["logout"]).expect(0);
    assert_eq!(users[1].0.run(["get_peers", "g", "f"]).expect(0).out, "");
    home.run(["login", "user0", "password"]).expect(0);
    users[1].0.run(["download_file", "g", "f", "copy"]).expect(0);
    same(&source, &rig.path("copy"));
    // Another user of the node shares nothing of the first user's. The share returns with the first user's login.
    let other = rig.home("other");
    other.run(["create_user", "zoe", "password"]).expect(0);
    home.run(["login", "zoe", "password"]).expect(0);
    let shares = |home: &UserHome| {
        result(&home.run(["status", "--json"]).expect(0))["shares"].as_array().unwrap().len()
    };
    assert_eq!(shares(home), 0);
    home.run(["login", "user0", "password"]).expect(0);
    users[1].0.run(["download_file", "g", "f", "again"]).expect(0);
    same(&source, &rig.path("again"));
}

#[test]
fn both_back_ends_and_every_hash_work_together() {
    let rig = TestRig::new();
    let seeder = rig.home("seeder");
    let _seeding = seeder.serve(&["--io", "epoll", "--hash", "asm"]);
    seeder.run(["create_user", "s", "password"]).expect(0);
    seeder.run(["login", "s", "password"]).expect(0);
    seeder.run(["create_group", "g"]).expect(0);
    let status = result(&seeder.run(["status", "--json"]).expect(0));
    assert_eq!((&status["io"], &status["hash"]), (&Value::from("epoll"), &Value::from("asm")));
    let source = rig.file("f", &[piece(4), piece(5), piece(4), vec![9]].concat());
    seeder.run(["upload_file", "g", "f"]).expect(0);
    let (other, _node) = rig.user("other");
    other.run(["join_group", "g"]).expect(0);
    other.run(["download_file", "g", "f", "copy"]).expect(0);
    same(&source, &rig.path("copy"));
}
