//! Files of shares that change, in content or in attributes alone, and files that no consumer needs.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use super::rig::{Node, PATIENCE, Patience, back_ends, bytes, durable, key, loader};
use super::*;
use engine::stats::ShareStatus;

/// Waits until the only share of a node is as wanted.
#[track_caller]
fn until_share(node: &Node, what: &str, is_wanted: impl Fn(&ShareStatus) -> bool) -> ShareStatus {
    let patience = Patience::new();
    loop {
        let share = node.engine.shares().remove(0);
        if is_wanted(&share) {
            return share;
        }
        assert!(patience.is_left(), "{what} within {PATIENCE:?}: {share:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Writes one byte in place and sets the modification time back.
fn edit_unseen(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[0x5A], 7).unwrap();
    file.set_modified(modified).unwrap();
}

/// Descriptors and mappings of this process that lead into a directory.
fn open_files(directory: &Path) -> Vec<String> {
    let of = |target: std::path::PathBuf| target.to_string_lossy().into_owned();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut found: Vec<String> =
        descriptors.filter_map(|entry| entry.ok()?.path().read_link().ok()).map(of).collect();
    found.extend(std::fs::read_to_string("/proc/self/maps").unwrap().lines().map(str::to_owned));
    let directory = directory.to_str().unwrap();
    found.retain(|place| place.contains(directory));
    found
}

#[test]
fn a_fetched_file_that_is_edited_or_removed_is_no_longer_served() {
    for io in back_ends() {
        let (seeder, third) = (Node::start(1, io), Node::start(3, io));
        let manifest = seeder.upload("f", &bytes(5 * PIECE, 1));
        let (edited, removed) = (Node::start(4, io), Node::start(5, io));
        for node in [&edited, &removed] {
            durable(&node.fetch(&manifest, &[&seeder]));
        }
        edit_unseen(&edited.path("f"));
        std::fs::remove_file(removed.path("f")).unwrap();
        let share = until_share(&edited, "the edit is noticed", |share| share.source_change.is_some());
        assert!(share.source_change.unwrap().contains("changed after it was hashed"));
        let share = until_share(&removed, "the removal is noticed", |share| share.source_change.is_some());
        assert!(share.source_change.unwrap().contains("removed or renamed"));
        let download = third.fetch(&manifest, &[&edited, &removed]);
        let progress = wait_for(&download, |progress| {
            matches!(progress.phase, DownloadPhase::Waiting(WaitReason::SourceChanged { .. }))
        });
        assert_eq!(progress.received_bytes, 0);
        assert_eq!(download.take_suspects(), [], "its owner is no liar");
    }
}

#[test]
fn a_file_with_new_attributes_is_hashed_before_it_is_served_again() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let content = bytes(40 * PIECE + 1, 2);
    let manifest = seeder.upload("f", &content);
    let before = seeder.engine.shares()[0].fingerprint;
    std::fs::set_permissions(seeder.path("f"), Permissions::from_mode(0o600)).unwrap();
    let share = until_share(&seeder, "it is hashed again", |share| share.fingerprint != before);
    assert_eq!((share.held, share.source_change), (manifest.pieces(), None));
    durable(&leecher.fetch(&manifest, &[&seeder]));
    assert!(std::fs::read(leecher.path("f")).unwrap() == content);
    // At a restart the same holds.
    let again = Node::start(3, IoChoice::Auto);
    let restored = |node: &Node| {
        let path = seeder.path("f");
        node.engine.share_file(key("f"), &path, &manifest, before.unwrap(), loader(&manifest)).unwrap();
    };
    restored(&again);
    until_share(&again, "it is hashed", |share| share.held == manifest.pieces());
    edit_unseen(&seeder.path("f"));
    let last = Node::start(4, IoChoice::Auto);
    restored(&last);
    assert!(last.engine.shares()[0].held < manifest.pieces(), "nothing is served before it was hashed");
    until_share(&last, "the edit is found", |share| share.source_change.is_some());
}

#[test]
fn a_provider_whose_pieces_are_wrong_at_a_consumer_looks_at_its_own_file() {
    for io in back_ends() {
        let (honest, wrong, leecher) = (Node::start(1, io), Node::start(2, io), Node::start(3, io));
        let content = bytes(30 * PIECE, 3);
        let manifest = honest.upload("f", &content);
        // Its file has become another in a way that no fingerprint shows.
        std::fs::write(wrong.path("f"), bytes(30 * PIECE, 4)).unwrap();
        let fingerprint = engine::storage::fingerprint::Fingerprint::at(&wrong.path("f")).unwrap();
        let share =
            || wrong.engine.share_file(key("f"), &wrong.path("f"), &manifest, fingerprint, loader(&manifest));
        share().unwrap();
        let download = leecher.fetch(&manifest, &[&wrong]);
        until_share(&wrong, "it finds its file changed", |share| share.source_change.is_some());
        download.add_peers(&[honest.address()]);
        durable(&download);
        assert!(std::fs::read(leecher.path("f")).unwrap() == content);
    }
}

#[test]
fn files_are_open_only_while_consumers_fetch_and_finished_downloads_release_theirs() {
    let (seeder, leecher, third) =
        (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto), Node::start(3, IoChoice::Auto));
    let directories = [seeder.directory.path(), leecher.directory.path(), third.directory.path()];
    let manifest = seeder.upload("f", &bytes(20 * PIECE, 5));
    assert_eq!(open_files(directories[0]), [""; 0]);
    let download = leecher.fetch(&manifest, &[&seeder]);
    durable(&download);
    let other = third.fetch(&manifest, &[&leecher]);
    durable(&other);
    let patience = Patience::new();
    while directories.iter().any(|directory| !open_files(directory).is_empty()) {
        assert!(patience.is_left(), "{:?}", directories.map(open_files));
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let progress = download.progress();
    assert!(progress.durable_after.is_some() && download.fingerprint().is_some());
    assert_eq!((progress.phase, progress.verified_bytes), (DownloadPhase::Durable, 20 * PIECE as u64));
    assert_eq!(download.latency().len(), 20);
}
