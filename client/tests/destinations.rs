//! What other programs do to a download's files while it runs, is paused, or after its node was killed.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rig::{PIECE, RunningNode, TestRig, UserHome, pieces, until};

const PIECES: usize = 16;

/// Bytes a second: a download takes long enough for a test to interfere.
const SLOW: &[&str] = &["--limit-down", "1M"];

/// Alice's `f` in the group `g`, and Bob, a member with a slow node.
struct FetchScenario {
    rig: TestRig,
    alice: UserHome,
    alices: RunningNode,
    bob: UserHome,
    content: Vec<u8>,
}

impl FetchScenario {
    fn new() -> (FetchScenario, RunningNode) {
        let rig = TestRig::new();
        let (alice, alices) = rig.user("alice");
        alice.run(["create_group", "g"]).expect(0);
        let content = pieces(PIECES, 1);
        rig.file("f", &content);
        alice.run(["upload_file", "g", "f"]).expect(0);
        let bob = rig.home("bob");
        let node = bob.serve(SLOW);
        bob.run(["create_user", "bob", "password"]).expect(0);
        bob.run(["login", "bob", "password"]).expect(0);
        bob.run(["join_group", "g"]).expect(0);
        fs::create_dir(rig.path("into")).unwrap();
        (FetchScenario { rig, alice, alices, bob, content }, node)
    }

    /// Starts a download to `into/` and waits until some pieces are there.
    fn begin(&self) {
        self.bob.prompt("download_file g f into/\n").expect(0);
        self.wait_for_pieces();
    }

    fn wait_for_pieces(&self) {
        until("some pieces are there", || {
            verified(&self.bob) > 4 * PIECE as u64 && self.part("into").is_some()
        });
    }

    /// The partial file in a directory.
    fn part(&self, directory: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(self.rig.path(directory)).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension() == Some(OsStr::new("part")))
    }

    /// Writes zeros over all of the partial file, as a restore of an older copy would, and sets its time of the last
    /// write back.
    fn clear_part(&self) {
        let part = File::options().write(true).open(self.part("into").unwrap()).unwrap();
        let before = part.metadata().unwrap();
        part.write_all_at(&vec![0; usize::try_from(before.len()).unwrap()], 0).unwrap();
        part.set_modified(before.modified().unwrap()).unwrap();
    }

    fn assert_complete(&self, path: &str) {
        until("the download is complete", || state(&self.bob) == "complete");
        assert!(fs::read(self.rig.path(path)).unwrap() == self.content, "{path} is another file");
    }
}

fn state(home: &UserHome) -> String {
    home.status()["downloads"][0]["state"].as_str().unwrap_or_default().to_owned()
}

fn verified(home: &UserHome) -> u64 {
    home.status()["downloads"][0]["verified_bytes"].as_u64().unwrap_or_default()
}

fn shown_path(home: &UserHome) -> PathBuf {
    PathBuf::from(home.status()["downloads"][0]["path"].as_str().unwrap_or_default())
}

fn canonical(path: &Path) -> PathBuf {
    path.parent().unwrap().canonicalize().unwrap().join(path.file_name().unwrap())
}

#[test]
fn a_partial_file_that_was_rewritten_after_a_kill_is_hashed_again() {
    let (scene, node) = FetchScenario::new();
    scene.begin();
    node.kill();
    scene.clear_part();
    let _node = scene.bob.serve(&[]);
    scene.assert_complete("into/f");
}

#[test]
fn a_partial_file_that_was_rewritten_after_a_clean_stop_is_hashed_again() {
    let (scene, mut node) = FetchScenario::new();
    scene.begin();
    scene.bob.run(["quit"]).expect(0);
    node.wait();
    scene.clear_part();
    let _node = scene.bob.serve(&[]);
    scene.assert_complete("into/f");
}

#[test]
fn only_wrong_pieces_of_a_partial_file_are_fetched_again() {
    let (scene, node) = FetchScenario::new();
    scene.begin();
    node.kill();
    let path = scene.part("into").unwrap();
    let found = fs::read(&path).unwrap();
    let whole = scene.content.chunks(PIECE).zip(found.chunks(PIECE)).map(|(wanted, found)| wanted == found);
    let (whole, damaged): (Vec<bool>, _) = (whole.collect(), 2);
    let right: Vec<usize> = (0..PIECES).filter(|at| whole[*at]).collect();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"x", (right[damaged] * PIECE) as u64)
        .unwrap();
    let _node = scene.bob.serve(&[]);
    scene.assert_complete("into/f");
    let row = scene.bob.status()["downloads"][0].clone();
    let kept = (right.len() - 1) * PIECE;
    assert_eq!(row["resumed_bytes"], kept);
    let fetched = row["received_bytes"].as_u64().unwrap() - row["duplicate_bytes"].as_u64().unwrap();
    assert_eq!(fetched, (scene.content.len() - kept) as u64);
}

#[test]
fn a_partial_file_that_is_rewritten_while_it_is_fetched_is_hashed_again() {
    for is_paused in [false, true] {
        let (scene, _node) = FetchScenario::new();
        scene.begin();
        if is_paused {
            scene.bob.run(["pause", "g", "f"]).expect(0);
            until("it is paused", || state(&scene.bob) == "paused");
        }
        scene.clear_part();
        if is_paused {
            scene.bob.run(["resume", "g", "f"]).expect(0);
        }
        scene.assert_complete("into/f");
    }
}

#[test]
fn a_truncated_partial_file_is_fetched_again() {
    let (scene, _node) = FetchScenario::new();
    scene.begin();
    File::options().write(true).open(scene.part("into").unwrap()).unwrap().set_len(PIECE as u64).unwrap();
    scene.assert_complete("into/f");
}

#[test]
fn a_deleted_partial_file_ends_the_download_early() {
    let (scene, _node) = FetchScenario::new();
    let front = scene.bob.spawn(&["download_file", "g", "f", "into"]);
    scene.wait_for_pieces();
    fs::remove_file(scene.part("into").unwrap()).unwrap();
    let ended = front.ended().expect(10);
    assert!(ended.err.contains("it was deleted or replaced by another program"), "{}", ended.err);
    assert!(ended.err.contains("give the same command again"), "{}", ended.err);
    assert!(verified(&scene.bob) < scene.content.len() as u64, "everything was fetched in vain");
    scene.bob.run(["download_file", "g", "f", "into"]).expect(0);
    scene.assert_complete("into/f");
}

#[test]
fn a_moved_partial_file_is_named() {
    let (scene, _node) = FetchScenario::new();
    let front = scene.bob.spawn(&["download_file", "g", "f", "into"]);
    scene.wait_for_pieces();
    let part = scene.part("into").unwrap();
    let moved = scene.rig.path("moved.part");
    fs::rename(&part, &moved).unwrap();
    let ended = front.ended().expect(10);
    assert!(ended.err.contains("has moved it to") && ended.err.contains("moved.part"), "{}", ended.err);
    fs::rename(&moved, &part).unwrap();
    scene.bob.run(["download_file", "g", "f", "into"]).expect(0);
    scene.assert_complete("into/f");
}

#[test]
fn a_download_follows_its_directory() {
    let (scene, node) = FetchScenario::new();
    let front = scene.bob.spawn(&["download_file", "g", "f", "into"]);
    scene.wait_for_pieces();
    fs::rename(scene.rig.path("into"), scene.rig.path("moved")).unwrap();
    let new_path = canonical(&scene.rig.path("moved/f"));
    until("the new path is shown", || shown_path(&scene.bob) == new_path);
    // A restart looks there too.
    until("the new path is recorded", || {
        let records = fs::read_dir(scene.bob.state().join("downloads")).unwrap();
        let mut paths = records.map(|entry| entry.unwrap().path());
        // A new record has another ending until its rename.
        paths.any(|path| {
            path.extension() == Some(OsStr::new("json"))
                && fs::read_to_string(path).is_ok_and(|text| text.contains("moved/f"))
        })
    });
    node.kill();
    drop(front);
    let _node = scene.bob.serve(SLOW);
    scene.assert_complete("moved/f");
    assert_eq!(shown_path(&scene.bob), new_path);
}

#[test]
fn a_finished_download_names_its_true_path() {
    let (scene, _node) = FetchScenario::new();
    let front = scene.bob.spawn(&["download_file", "g", "f", "into"]);
    scene.wait_for_pieces();
    fs::rename(scene.rig.path("into"), scene.rig.path("moved")).unwrap();
    let ended = front.ended().expect(0);
    assert!(ended.out.contains("moved/f"), "{}", ended.out);
    scene.assert_complete("moved/f");
    // The share is of that path.
    scene.alice.run(["stop_share", "g", "f"]).expect(0);
    let (carol, _carols) = scene.rig.user("carol");
    carol.run(["join_group", "g"]).expect(0);
    carol.run(["download_file", "g", "f", "carols"]).expect(0);
}

#[test]
fn a_removed_directory_ends_the_download() {
    let (scene, _node) = FetchScenario::new();
    let front = scene.bob.spawn(&["download_file", "g", "f", "into"]);
    scene.wait_for_pieces();
    // The record may be replaced meanwhile.
    until("the directory is gone", || fs::remove_dir_all(scene.rig.path("into")).is_ok());
    let ended = front.ended().expect(10);
    assert!(
        ended.err.contains("directory was deleted") || ended.err.contains("was deleted or"),
        "{}",
        ended.err
    );
}

#[test]
fn two_downloads_to_one_path_are_refused_at_once() {
    let (scene, node) = FetchScenario::new();
    scene.rig.file("h", &pieces(2, 2));
    scene.alice.run(["upload_file", "g", "h"]).expect(0);
    scene.bob.prompt("download_file g f into/copy\n").expect(0);
    until("it has begun", || scene.part("into").is_some());
    std::os::unix::fs::symlink(scene.rig.path("into"), scene.rig.path("link")).unwrap();
    for path in ["into/copy", "link/copy"] {
        let refused = scene.bob.run(["download_file", "g", "h", path]).expect(6);
        assert!(refused.err.contains("another download, [g] f,"), "{}", refused.err);
    }
    // Another node of this machine.
    let (carol, _carols) = scene.rig.user("carol");
    carol.run(["join_group", "g"]).expect(0);
    let refused = carol.run(["download_file", "g", "h", "into/copy"]).expect(6);
    assert!(refused.err.contains("another download is fetching a file to it"), "{}", refused.err);
    // A paused download keeps its path, also after a restart.
    scene.bob.run(["pause", "g", "f"]).expect(0);
    node.kill();
    let _node = scene.bob.serve(&[]);
    scene.bob.run(["download_file", "g", "h", "into/copy"]).expect(6);
    scene.bob.run(["resume", "g", "f"]).expect(0);
    scene.assert_complete("into/copy");
}

#[test]
fn a_complete_partial_file_is_found_by_the_next_attempt() {
    let (scene, _node) = FetchScenario::new();
    let front = scene.bob.spawn(&["download_file", "g", "f", "into/copy"]);
    until("it has begun", || scene.part("into").is_some());
    scene.rig.file("into/copy", b"another program wrote this");
    let refused = front.ended().expect(6);
    assert!(refused.err.contains("the complete copy stays in"), "{}", refused.err);
    assert_eq!(fs::read(scene.rig.path("into/copy")).unwrap(), b"another program wrote this");
    scene.alices.kill();
    let found = scene.bob.run(["download_file", "g", "f", "into/copy", "--overwrite"]).expect(0);
    assert!(found.out.contains("were there already"), "{}", found.out);
    assert!(fs::read(scene.rig.path("into/copy")).unwrap() == scene.content);
}
