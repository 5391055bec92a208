//! A full disk: refused at the start by the reservation, or noticed later, when another program took the space.
//!
//! The tests mount a filesystem, which needs root; otherwise they are skipped with a message.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use engine::config::IoChoice;
use engine::stats::{DownloadPhase, WaitReason};
use engine::storage::error::StorageErrorKind;
use rustix::fs::FallocateFlags;

use crate::PIECE;
use crate::rig::{Node, bytes, durable, try_spawn, wait_for};
use crate::scripted_provider::ScriptedProvider;

/// Bytes of the small filesystem.
const DISK_BYTES: usize = 16 * 1024 * 1024;

/// A small filesystem, until it is dropped.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_BYTES}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(directory.path()).stderr(Stdio::null());
        let mounted =
            try_spawn(&mut mount).and_then(|mut mount| mount.wait()).is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: mounting a filesystem is forbidden here");
        }
        mounted.then_some(SmallDisk { directory })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file that leaves `left` bytes free.
    fn fill(&self, left: usize) -> PathBuf {
        let path = self.path().join("filler");
        let free = rustix::fs::statvfs(self.path()).unwrap();
        let free = usize::try_from(free.f_bavail * free.f_frsize).unwrap();
        std::fs::write(&path, vec![1; free - left]).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a worker may still have a file open there.
        let mut umount = Command::new("umount");
        let _ = try_spawn(umount.arg("-l").arg(self.path())).and_then(|mut umount| umount.wait());
    }
}

#[test]
fn a_file_that_does_not_fit_is_refused_at_the_start() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let content = bytes(DISK_BYTES / 2, 50);
    let manifest = seeder.upload("f", &content);
    let order = || engine::DownloadOrder { destination: disk.path().to_owned(), ..leecher.order(&manifest) };
    let filler = disk.fill(DISK_BYTES / 4);
    let refused = leecher.engine.download(order()).err().expect("there is not enough space");
    let StorageErrorKind::NoSpace { needed, free } = refused.kind else { panic!("{refused}") };
    assert!(needed > free, "{needed} and {free}");
    let left: Vec<_> = std::fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, std::slice::from_ref(&filler), "a partial file is left");
    std::fs::remove_file(filler).unwrap();
    let download = leecher.engine.download(order()).unwrap();
    download.add_peers(&[seeder.address()]);
    durable(&download);
    assert!(std::fs::read(disk.path().join("f")).unwrap() == content);
}

#[test]
fn a_disk_that_fills_up_later_is_waited_for() {
    let Some(disk) = SmallDisk::mount() else { return };
    let leecher = Node::start(2, IoChoice::Auto);
    let content = std::sync::Arc::new(bytes(DISK_BYTES / 2, 51));
    let manifest = Node::start(1, IoChoice::Auto).upload("f", &content);
    let order = engine::DownloadOrder { destination: disk.path().to_owned(), ..leecher.order(&manifest) };
    let download = leecher.engine.download(order).unwrap();
    // Releases the reservation, as if the filesystem could not reserve; then fills the disk.
    let mut paths = std::fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().path());
    let part = paths.find(|path| path.extension().is_some_and(|extension| extension == "part")).unwrap();
    let file = std::fs::File::options().write(true).open(&part).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file.as_fd(), punch, 0, content.len() as u64).unwrap();
    let filler = disk.fill(PIECE / 2);
    let seeder = ScriptedProvider::honest(&content);
    download.add_peers(&[seeder.peer]);
    let progress = wait_for(&download, |progress| {
        matches!(progress.phase, DownloadPhase::Waiting(WaitReason::DiskFull { .. }))
    });
    let DownloadPhase::Waiting(WaitReason::DiskFull { needed, free, directory }) = progress.phase else {
        unreachable!()
    };
    assert!(needed > free, "{needed} and {free}");
    assert_eq!(directory, disk.path());
    std::fs::remove_file(filler).unwrap();
    let progress = durable(&download);
    assert_eq!(progress.sequential_passes, 0);
    assert!(std::fs::read(disk.path().join("f")).unwrap() == *content);
    assert_eq!(download.take_suspects(), [], "a peer was blamed for a full disk");
}
