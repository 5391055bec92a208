//! Starts with existing files: pieces without a record, copies, wrong places of zeros, a full disk, shares.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use engine::config::IoChoice;
use engine::proto::manifest::Manifest;
use engine::proto::units::PieceIndex;
use engine::stats::{DownloadPhase, WaitReason};
use engine::storage::error::{SourceChange, StorageErrorKind};

use rustix::fs::FallocateFlags;

use crate::PIECE;
use crate::leftovers;
use crate::partial_files::{AllButLast, ending, leave_part};
use crate::rig::{Node, bytes, durable, key, loader, try_spawn, wait_for};
use crate::scripted_provider::ScriptedProvider;

#[test]
fn existing_pieces_are_found_and_copied_without_a_record() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let (a, b) = (bytes(PIECE, 1), bytes(PIECE, 2));
    let (zeros, garbage) = (vec![0; PIECE], vec![7; PIECE]);
    let content = [&a, &zeros, &b, &a, &zeros, &a].map(Vec::as_slice).concat();
    let manifest = seeder.upload("f", &content);
    let there = [&a, &garbage, &garbage, &garbage, &garbage].map(Vec::as_slice).concat();
    leave_part(&manifest, leecher.directory.path(), &there);
    let (provider, asked) = ScriptedProvider::recording(&Arc::new(content.clone()));
    let download = leecher.fetch(&manifest, &[]);
    download.add_peers(&[provider.peer]);
    let progress = durable(&download);
    assert!(std::fs::read(leecher.path("f")).unwrap() == content, "garbage stayed in a piece of zeros");
    let asked: Vec<PieceIndex> = asked.lock().unwrap().iter().copied().collect();
    assert_eq!(asked, [PieceIndex(2)], "only one content is missing");
    assert_eq!(progress.resumed_bytes, PIECE as u64);
    assert_eq!(progress.checked_bytes, 4 * PIECE as u64, "all but the pieces of zeros");
    assert_eq!(progress.sequential_passes, 0);
}

#[test]
fn a_stopping_node_records_its_pieces() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let content = bytes(100 * PIECE, 9);
    let manifest = seeder.upload("f", &content);
    let source = AllButLast::start(3, &manifest, &content);
    let download = leecher.fetch(&manifest, &[]);
    download.add_peers(&[source.address()]);
    wait_for(&download, |progress| progress.verified_bytes == source.held);
    leecher.engine.stop();
    let right = leftovers::right_pieces(leecher.directory.path(), &content);
    let record = ending(leecher.directory.path(), ".record").unwrap();
    let recorded: Vec<usize> =
        leftovers::claims(&record, 100).durable.iter().map(|index| index.0 as usize).collect();
    assert_eq!(recorded.len(), 99);
    assert_eq!(recorded, right, "every written piece is durable");
    // The next attempt need not hash them, unless another program has written to the file.
    drop(download);
    for is_written in [false, true] {
        let again = Node::start(4, IoChoice::Auto);
        let directory = leecher.directory.path();
        if is_written {
            let part =
                std::fs::File::options().write(true).open(ending(directory, ".part").unwrap()).unwrap();
            part.write_all_at(&content[..9], 0).unwrap();
        }
        let order = engine::DownloadOrder { destination: directory.to_owned(), ..again.order(&manifest) };
        let download = again.engine.download(order).unwrap();
        let progress = wait_for(&download, |progress| progress.verified_bytes == source.held);
        assert_eq!(progress.checked_bytes, if is_written { source.held } else { 0 });
        again.engine.stop();
    }
}

#[test]
fn wrong_bytes_are_never_kept() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let content = bytes(20 * PIECE + 9, 3);
    let manifest = seeder.upload("f", &content);
    let mut there = content.clone();
    there.iter_mut().step_by(PIECE).step_by(2).for_each(|byte| *byte ^= 1);
    leave_part(&manifest, leecher.directory.path(), &there);
    let progress = durable(&leecher.fetch(&manifest, &[&seeder]));
    assert!(std::fs::read(leecher.path("f")).unwrap() == content);
    assert_eq!(progress.resumed_bytes, 10 * PIECE as u64);
}

#[test]
fn other_content_of_the_same_name_is_another_download() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let old = bytes(5 * PIECE, 4);
    let manifest = seeder.upload("f", &old);
    leave_part(&manifest, leecher.directory.path(), &old);
    let new = bytes(5 * PIECE, 5);
    std::fs::remove_file(seeder.path("f")).unwrap();
    let manifest = seeder.upload("f", &new);
    let progress = durable(&leecher.fetch(&manifest, &[&seeder]));
    assert!(std::fs::read(leecher.path("f")).unwrap() == new);
    assert_eq!((progress.resumed_bytes, progress.checked_bytes), (0, 0));
}

/// Writes to a file until the filesystem has no free block.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[1; 4_096]).is_ok() {}
    assert_eq!(rustix::fs::statvfs(path).unwrap().f_bavail, 0);
}

#[test]
fn a_disk_too_full_for_the_record_pauses_the_download() {
    let disk = tempfile::tempdir().unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=340m", "none"];
    let mounted = try_spawn(Command::new("mount").args(mount).arg(disk.path()).stderr(Stdio::null()));
    if !mounted.and_then(|mut mount| mount.wait()).is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a filesystem is forbidden here");
        return;
    }
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let content = bytes(600 * PIECE, 6);
    let manifest = seeder.upload("f", &content);
    let order = engine::DownloadOrder { destination: disk.path().to_owned(), ..leecher.order(&manifest) };
    let download = leecher.engine.download(order).unwrap();
    // The file is fully allocated. No space is left for the notes of so many pieces, which need more than the
    // record's first page, nor for the next record.
    let part = std::fs::File::options().write(true).open(ending(disk.path(), ".part").unwrap()).unwrap();
    rustix::fs::fallocate(&part, FallocateFlags::KEEP_SIZE, 0, content.len() as u64).unwrap();
    let filler = disk.path().join("filler");
    fill(&filler);
    download.add_peers(&[seeder.address()]);
    let full = |phase: &DownloadPhase| matches!(phase, DownloadPhase::Waiting(WaitReason::DiskFull { .. }));
    let progress = wait_for(&download, |progress| full(&progress.phase) || progress.phase.is_end());
    assert!(full(&progress.phase), "{progress:?}");
    std::fs::remove_file(filler).unwrap();
    let progress = durable(&download);
    assert_eq!(progress.sequential_passes, 0);
    assert!(std::fs::read(disk.path().join("f")).unwrap() == content);
    // Lazily: the file is still served.
    let _ = try_spawn(Command::new("umount").arg("-l").arg(disk.path())).and_then(|mut umount| umount.wait());
}

#[test]
fn unchanged_shares_are_restored_without_hashing() {
    let (seeder, again) = (Node::start(1, IoChoice::Auto), Node::start(3, IoChoice::Auto));
    let leecher = Node::start(2, IoChoice::Auto);
    let content = bytes(3 * PIECE + 1, 8);
    let path = seeder.path("f");
    std::fs::write(&path, &content).unwrap();
    let name = engine::proto::manifest::FileName::new("f").unwrap();
    let hashed = seeder.engine.hash_file(&path, name, &|_| {}).unwrap();
    let (kept, manifest) = (hashed.fingerprint().to_string(), hashed.manifest().to_bytes());
    seeder.engine.stop();
    let manifest = Arc::new(Manifest::from_bytes(&manifest).unwrap());
    again.engine.share_file(key("f"), &path, &manifest, kept.parse().unwrap(), loader(&manifest)).unwrap();
    let download = leecher.fetch(&manifest, &[&again]);
    durable(&download);
    assert!(std::fs::read(leecher.path("f")).unwrap() == content);
    let fingerprint = download.fingerprint().expect("the download is durable");
    again.engine.share_file(key("g"), &leecher.path("f"), &manifest, fingerprint, loader(&manifest)).unwrap();

    let mut changed = content;
    changed[5] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let error = again
        .engine
        .share_file(key("f"), &path, &manifest, kept.parse().unwrap(), loader(&manifest))
        .unwrap_err();
    assert!(matches!(error.kind, StorageErrorKind::Changed(SourceChange::Modified)), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = again
        .engine
        .share_file(key("f"), &path, &manifest, kept.parse().unwrap(), loader(&manifest))
        .unwrap_err();
    assert!(matches!(error.kind, StorageErrorKind::Missing), "{error}");
}
