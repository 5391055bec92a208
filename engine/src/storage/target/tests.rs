//! Targets: what is on disk after each step, and locks.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use super::partial::{BLOCK_BYTES, is_on_tmpfs};
use super::*;
use crate::proto::manifest::{FileName, MAX_FILE_NAME_BYTES};

mod filesystems;

/// Attempts to take a lock that only a process being started may still hold, until its `exec` …
const LOCKED_LOOKS_MAX: u32 = 6_000;

/// … and the time between two.
const LOCKED_LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(10);

const CONTENT: Digest = Digest([9; 20]);
const MEBIBYTE: u64 = 1 << 20;

fn open_named(directory: &Path, name: &str, plan: TargetLayout<'_>) -> Result<Target, StorageError> {
    let destination = Destination::resolve(directory, &FileName::new(name).unwrap())?;
    Target::open(destination, "group", CONTENT, plan)
}

fn open(directory: &Path, length: u64) -> Result<Target, StorageError> {
    open_named(directory, "file", TargetLayout { length, reserved_ranges: &[] })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn finish_leaves_only_the_final_name() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 10).unwrap();
    assert!(target.is_new());
    let partial = names(directory.path());
    assert!(partial[0].starts_with("file.") && partial[0].ends_with(".part"), "{partial:?}");
    target.write_piece(5, b"world").unwrap();
    target.write_piece(0, b"hello").unwrap();
    target.start_writeback(0..10).unwrap();
    target.sync().unwrap();
    let path = target.finish(false).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"helloworld");
    assert_eq!(names(directory.path()), ["file"]);
    assert_eq!(target.finish(false).unwrap(), path, "finishing twice is allowed");
}

#[test]
fn flushed_pages_can_leave_the_page_cache() {
    const LENGTH: usize = 4 << 20;
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), LENGTH as u64).unwrap();
    if is_on_tmpfs(&target.partial.file) {
        eprintln!("skipped: temporary files are on a tmpfs, which has no disk");
        return;
    }
    target.write_piece(0, &[7; LENGTH]).unwrap();
    let reader = target.reader().unwrap();
    let (first, second) = (0..LENGTH as u64 / 2, LENGTH as u64 / 2..LENGTH as u64);
    target.sync().unwrap();
    assert!(reader.window(first.clone()).is_resident());
    target.drop_cached(first.clone()).unwrap();
    assert!(!reader.window(first).is_resident(), "the first half is dropped");
    assert!(reader.window(second).is_resident(), "the second half is not");
    assert_eq!(std::fs::read(target.finish(false).unwrap()).unwrap(), [7; LENGTH]);
}

#[test]
fn an_empty_file_is_finished_too() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 0).unwrap();
    assert_eq!(target.reader().unwrap().length(), 0);
    assert_eq!(std::fs::read(target.finish(false).unwrap()).unwrap(), b"");
}

#[test]
fn only_wanted_ranges_are_reserved() {
    let directory = tempfile::tempdir().unwrap();
    let length = 100 * MEBIBYTE;
    let wanted = [MEBIBYTE..2 * MEBIBYTE, 50 * MEBIBYTE..52 * MEBIBYTE];
    let target =
        open_named(directory.path(), "file", TargetLayout { length, reserved_ranges: &wanted }).unwrap();
    let metadata = target.partial.file.metadata().unwrap();
    assert_eq!(metadata.len(), length);
    let allocated = metadata.blocks() * BLOCK_BYTES;
    assert!(allocated < 4 * MEBIBYTE, "{allocated} bytes are allocated");
}

#[test]
fn a_crash_at_any_step_leaves_nothing_or_the_complete_file() {
    for steps_done in 0..=FINISH_ORDER.len() {
        let directory = tempfile::tempdir().unwrap();
        let target = open(directory.path(), 4).unwrap();
        target.write_piece(0, b"data").unwrap();
        for step in &FINISH_ORDER[..steps_done] {
            target.run_step(*step, false).unwrap();
        }
        // A process that ends releases its lock and changes nothing else.
        drop(target);
        let renamed = FINISH_ORDER[..steps_done].contains(&FinishStep::Rename);
        if renamed {
            assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), b"data");
            assert_eq!(names(directory.path()), ["file"]);
        } else {
            assert!(!directory.path().join("file").exists());
            let again = open(directory.path(), 4).unwrap();
            assert!(!again.is_new());
            let path = again.finish(false).unwrap();
            assert_eq!(std::fs::read(path).unwrap(), b"data", "after {steps_done} steps");
        }
    }
}

#[test]
fn the_claim_comes_after_the_flush() {
    let position = |wanted| FINISH_ORDER.iter().position(|step| *step == wanted).unwrap();
    assert!(position(FinishStep::FlushFile) < position(FinishStep::Rename));
    assert!(position(FinishStep::Rename) < position(FinishStep::FlushDirectory));
}

#[test]
fn finish_replaces_a_file_only_when_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 3).unwrap();
    target.write_piece(0, b"new").unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, b"old").unwrap();
    assert!(matches!(target.finish(false).unwrap_err().kind, StorageErrorKind::Exists));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    target.finish(true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn finish_never_replaces_a_link_or_a_directory() {
    for overwrite in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        let target = open(directory.path(), 3).unwrap();
        let path = directory.path().join("file");
        symlink(elsewhere.path(), &path).unwrap();
        let error = target.finish(overwrite).unwrap_err();
        assert!(matches!(error.kind, StorageErrorKind::NotAFile("a symbolic link")), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = target.finish(overwrite).unwrap_err();
        assert!(matches!(error.kind, StorageErrorKind::NotAFile("a directory")), "{error}");
        assert_eq!(elsewhere.as_file().metadata().unwrap().len(), 0);
    }
}

#[test]
fn a_partial_file_that_is_a_link_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let target = open(directory.path(), 3).unwrap();
    let partial = target.partial_path();
    target.discard().unwrap();
    symlink(elsewhere.path(), &partial).unwrap();
    let error = open(directory.path(), 3).unwrap_err();
    assert!(matches!(error.kind, StorageErrorKind::NotAFile("a symbolic link")), "{error}");
    assert_eq!(elsewhere.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn one_download_at_a_time_holds_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 3).unwrap();
    let reader = first.reader().unwrap();
    let error = open(directory.path(), 3).unwrap_err();
    assert!(matches!(error.kind, StorageErrorKind::Locked), "{error}");
    drop(first);
    unlocked(directory.path());
    assert_eq!(reader.check_now(), Ok(()), "a reader holds no lock");
}

#[test]
fn the_lock_excludes_other_processes() {
    let directory = tempfile::tempdir().unwrap();
    let partial = {
        let target = open(directory.path(), 3).unwrap();
        target.partial_path()
    };
    // `flock` runs `cat` under the lock. Its first byte back says that the lock is held.
    let holder = Command::new("flock")
        .arg(&partial)
        .args(["sh", "-c", "echo held; cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut holder) = holder else {
        eprintln!("skipped: there is no `flock` command here");
        return;
    };
    let mut byte = [0; 1];
    io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut byte).unwrap();
    assert!(matches!(open(directory.path(), 3).unwrap_err().kind, StorageErrorKind::Locked));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    unlocked(directory.path());
}

/// Opens a file that was just closed. A process that another test is starting may hold its lock until its
/// `exec`.
fn unlocked(directory: &Path) -> Target {
    for _ in 0..LOCKED_LOOKS_MAX {
        match open(directory, 3) {
            Err(error) if matches!(error.kind, StorageErrorKind::Locked) => {
                std::thread::park_timeout(LOCKED_LOOK_EVERY);
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("a closed file stays locked");
}

#[test]
fn a_reader_stays_valid_after_the_finish() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 2 * MEBIBYTE).unwrap();
    let reader = target.reader().unwrap();
    target.write_piece(MEBIBYTE, b"piece").unwrap();
    let copy = |bytes: &[u8]| bytes.to_vec();
    assert_eq!(reader.with_bytes(MEBIBYTE..MEBIBYTE + 5, copy).unwrap(), b"piece");
    target.set_length(MEBIBYTE + 5).unwrap();
    let path = target.finish(false).unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().len(), MEBIBYTE + 5);
    assert_eq!(reader.with_bytes(MEBIBYTE..MEBIBYTE + 5, copy).unwrap(), b"piece");
    assert_eq!(target.reader().unwrap().length(), MEBIBYTE + 5);
}

#[test]
fn a_removed_partial_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 3).unwrap();
    std::fs::remove_file(target.partial_path()).unwrap();
    assert!(matches!(target.finish(false).unwrap_err().kind, StorageErrorKind::Replaced));
    std::fs::write(target.partial_path(), b"forged").unwrap();
    assert!(matches!(target.finish(false).unwrap_err().kind, StorageErrorKind::Replaced));
    assert!(matches!(target.reader().unwrap_err().kind, StorageErrorKind::Replaced));
    target.discard().unwrap();
    assert!(target.partial_path().exists(), "a foreign file is not removed");
    assert!(!directory.path().join("file").exists());
}

#[test]
fn a_moved_or_removed_partial_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let target = open(&inner, 3).unwrap();
    target.examine().unwrap();
    let moved = directory.path().canonicalize().unwrap().join("moved");
    std::fs::rename(target.partial_path(), &moved).unwrap();
    let error = target.examine().unwrap_err();
    assert!(matches!(&error.kind, StorageErrorKind::Moved(path) if *path == moved), "{error}");
    std::fs::remove_file(&moved).unwrap();
    assert!(matches!(target.examine().unwrap_err().kind, StorageErrorKind::Replaced));
    std::fs::remove_dir(&inner).unwrap();
    assert!(matches!(target.examine().unwrap_err().kind, StorageErrorKind::DirectoryLost));
}

#[test]
fn the_final_path_follows_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = (directory.path().join("before"), directory.path().join("after"));
    std::fs::create_dir(&before).unwrap();
    let target = open(&before, 4).unwrap();
    target.write_piece(0, b"data").unwrap();
    std::fs::rename(&before, &after).unwrap();
    target.examine().unwrap();
    assert_eq!(target.path(), after.canonicalize().unwrap().join("file"));
    std::fs::rename(&after, &before).unwrap();
    let path = target.finish(false).unwrap();
    assert_eq!(path, before.canonicalize().unwrap().join("file"));
    target.open_finished().unwrap().check_now().unwrap();
}

#[test]
fn one_download_at_a_time_writes_to_a_path() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 3).unwrap();
    let other = || {
        let destination = Destination::resolve(directory.path(), &FileName::new("file").unwrap()).unwrap();
        let layout = TargetLayout { length: 3, reserved_ranges: &[] };
        Target::open(destination, "group", Digest([10; 20]), layout)
    };
    let error = other().unwrap_err();
    assert!(
        matches!(&error.kind, StorageErrorKind::Claimed(part) if *part == first.partial_path()),
        "{error}"
    );
    assert_eq!(names(directory.path()).len(), 1, "nothing is left of the second");
    open_named(directory.path(), "file2", TargetLayout { length: 3, reserved_ranges: &[] }).unwrap();
    first.release();
    for _ in 0..LOCKED_LOOKS_MAX {
        match other() {
            Err(error) if matches!(error.kind, StorageErrorKind::Claimed(_)) => {
                std::thread::park_timeout(LOCKED_LOOK_EVERY);
            }
            opened => return drop(opened.unwrap()),
        }
    }
    panic!("a closed file keeps the path");
}

#[test]
fn a_changed_partial_file_is_not_finished() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 4).unwrap();
    target.write_piece(0, b"data").unwrap();
    let part = File::options().write(true).open(target.partial_path()).unwrap();
    for change in [b"DATA".as_slice(), b""] {
        part.set_len(change.len() as u64).unwrap();
        part.write_all_at(change, 0).unwrap();
        assert!(matches!(target.examine().unwrap_err().kind, StorageErrorKind::ChangedOutside));
        assert!(matches!(target.finish(false).unwrap_err().kind, StorageErrorKind::ChangedOutside));
        target.accept_changes().unwrap();
        target.examine().unwrap();
    }
    assert_eq!(std::fs::read(target.finish(false).unwrap()).unwrap(), [0; 4], "it has its length again");
}

#[test]
fn flushes_keep_failing_after_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 3).unwrap();
    target.sync().unwrap();
    let lost = target.flush(|_| Err(Errno::IO.into())).unwrap_err();
    assert!(matches!(lost.kind, StorageErrorKind::DiskFailed(_)), "{lost}");
    assert!(matches!(target.sync().unwrap_err().kind, StorageErrorKind::FlushFailed));
    assert!(matches!(target.finish(true).unwrap_err().kind, StorageErrorKind::FlushFailed));
    assert!(!directory.path().join("file").exists());
}

#[test]
fn the_finished_file_is_opened_and_no_other_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 5).unwrap();
    target.write_piece(0, b"whole").unwrap();
    let path = target.finish(false).unwrap();
    assert_eq!(target.open_finished().unwrap().with_bytes(0..5, <[u8]>::to_vec).unwrap(), b"whole");
    let other = directory.path().join("other");
    std::fs::write(&other, b"wrong").unwrap();
    std::fs::rename(other, path).unwrap();
    assert!(matches!(target.open_finished().unwrap_err().kind, StorageErrorKind::Replaced));
}

#[test]
fn a_partial_file_of_another_user_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let partial = open(directory.path(), 3).unwrap().partial_path();
    let other = rustix::fs::Uid::from_raw(rustix::process::geteuid().as_raw() + 1);
    if rustix::fs::chown(&partial, Some(other), None).is_err() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    assert!(matches!(open(directory.path(), 3).unwrap_err().kind, StorageErrorKind::WrongOwner));
}

#[test]
fn discarding_removes_it() {
    let directory = tempfile::tempdir().unwrap();
    let target = open(directory.path(), 3).unwrap();
    target.discard().unwrap();
    assert!(names(directory.path()).is_empty());
}

#[test]
fn the_longest_names_are_finished() {
    let longest = [
        "x".repeat(MAX_FILE_NAME_BYTES),
        "é".repeat(MAX_FILE_NAME_BYTES / 2),
        "漢".repeat(MAX_FILE_NAME_BYTES / 3),
        format!("{}🐟", "x".repeat(MAX_FILE_NAME_BYTES - 4)),
    ];
    for name in longest {
        let directory = tempfile::tempdir().unwrap();
        let target =
            open_named(directory.path(), &name, TargetLayout { length: 1, reserved_ranges: &[] }).unwrap();
        target.finish(false).unwrap();
        assert_eq!(names(directory.path()), [name]);
    }
}
