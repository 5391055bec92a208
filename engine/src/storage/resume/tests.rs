//! Records: what they claim after a crash at any moment, damaged ones, and their removal.

use std::fs::FileTimes;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use super::*;
use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::{FileName, FileProof};
use crate::proto::units::{ChainState, Digest, PIECE_BYTES, PieceCount};
use crate::storage::destination::Destination;
use crate::storage::target::TargetLayout;

mod copied;
mod crashes;
mod format_page;

const PIECE: u64 = PIECE_BYTES as u64;
const GROUP: &str = "g";

/// Attempts to take a lock that only a process being started may still hold, until its `exec` …
const LOCKED_LOOKS_MAX: u32 = 6_000;

/// … and the time between two.
const LOCKED_LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(10);

fn manifest_with(pieces: u8, chain: Option<u8>) -> Manifest {
    let digests: Vec<Digest> = (0..pieces).map(|byte| Digest([byte + 1; 20])).collect();
    let chain = chain.map(|byte| vec![ChainState([byte; 20]); usize::from(pieces) - 1]);
    let whole = FileProof::Whole(Digest([77; 20]));
    let length = u64::from(pieces) * PIECE;
    Manifest::new(FileName::new("f").unwrap(), Some(length), digests, whole, chain).unwrap()
}

fn manifest(pieces: u8) -> Manifest {
    manifest_with(pieces, Some(5))
}

fn open(directory: &std::path::Path, manifest: &Manifest) -> (Target, ResumeJournal, PriorProgress) {
    let place = || Destination::resolve(directory, manifest.name()).unwrap();
    let content = manifest.proof().id();
    remove_orphaned_record(&place(), GROUP, content).unwrap();
    let plan = TargetLayout { length: manifest.geometry().length(), reserved_ranges: &[] };
    let mut looks = 0;
    let target = loop {
        match Target::open(place(), GROUP, content, plan) {
            // A process that another test is starting may hold the lock of a file closed here, until its
            // `exec`.
            Err(error) if matches!(error.kind, StorageErrorKind::Locked) => {
                looks += 1;
                assert!(looks < LOCKED_LOOKS_MAX, "{error}");
                std::thread::park_timeout(LOCKED_LOOK_EVERY);
            }
            opened => break opened.unwrap(),
        }
    };
    let (journal, progress) = ResumeJournal::open(&target, GROUP, manifest).unwrap();
    (target, journal, progress)
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn claim(target: &Target) -> RecordClaim {
    RecordClaim { links_hold: true, exact_length: None, file_state: target.settled_state() }
}

/// Flushes and records.
fn record(target: &Target, journal: &ResumeJournal) {
    journal.write_record(|| target.sync(), || claim(target)).unwrap();
}

fn write(target: &Target, journal: &ResumeJournal, index: u32) {
    journal.note_begun(PieceIndex(index)).unwrap();
    target.write_piece(u64::from(index) * PIECE, b"a piece").unwrap();
    journal.note_written(PieceIndex(index));
}

fn held(progress: &PriorProgress) -> Vec<u32> {
    progress.held.pieces.iter().map(|index| index.0).collect()
}

fn to_check(progress: &PriorProgress) -> Vec<u32> {
    progress.to_check.iter().map(|index| index.0).collect()
}

fn broken_flush(target: &Target) -> Result<(), StorageError> {
    Err(to_storage_error(StorageOperation::Sync, &target.path())(StorageErrorKind::FlushFailed))
}

#[test]
fn an_unchanged_file_keeps_the_pieces_of_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(9);
    let (target, journal, progress) = open(directory.path(), &manifest);
    assert!(held(&progress).is_empty() && to_check(&progress).is_empty(), "a new file has no pieces");
    write(&target, &journal, 3);
    write(&target, &journal, 5);
    assert!(journal.has_new_claims());
    record(&target, &journal);
    assert!(!journal.has_new_claims());
    journal.note_begun(PieceIndex(7)).unwrap();
    drop((target, journal));
    for _ in 0..3 {
        let (_target, journal, progress) = open(directory.path(), &manifest);
        assert_eq!((held(&progress), to_check(&progress)), (vec![3, 5], vec![7]));
        assert!(progress.held.links_match && progress.is_complete);
        assert!(journal.is_begun(PieceIndex(7)) && !journal.is_begun(PieceIndex(3)));
    }
}

#[test]
fn after_further_writes_recorded_and_noted_pieces_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(9);
    let (target, journal, _) = open(directory.path(), &manifest);
    write(&target, &journal, 3);
    record(&target, &journal);
    write(&target, &journal, 1);
    journal.note_begun(PieceIndex(7)).unwrap();
    drop((target, journal));
    for expected in [vec![1, 3, 7], (0..9).collect()] {
        let (_target, journal, progress) = open(directory.path(), &manifest);
        assert_eq!((held(&progress), to_check(&progress)), (vec![], expected), "the check is cut short");
        assert!(journal.is_begun(PieceIndex(1)), "it has to be written again even if it hashes right");
        assert!(!journal.is_begun(PieceIndex(3)), "it was flushed");
    }
}

#[test]
fn what_another_program_did_to_the_file_is_checked() {
    let rewrite = |file: &File| file.write_all_at(b"a piece", PIECE).unwrap();
    let changes: [fn(&File); 4] = [
        |file| file.write_all_at(b"a piece", PIECE).unwrap(),
        |file| {
            let modified = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"another", PIECE).unwrap();
            file.set_modified(modified).unwrap();
        },
        |file| {
            let length = file.metadata().unwrap().len();
            file.set_len(0).unwrap();
            file.set_len(length).unwrap();
        },
        |file| file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = manifest(4);
        let (target, journal, _) = open(directory.path(), &manifest);
        write(&target, &journal, 1);
        record(&target, &journal);
        let part = target.partial_path();
        drop((target, journal));
        change(&File::options().write(true).open(&part).unwrap());
        let (target, journal, progress) = open(directory.path(), &manifest);
        assert_eq!((held(&progress), to_check(&progress)), (vec![], vec![1]), "change {number}");
        // While it is open too.
        rewrite(&File::options().write(true).open(&part).unwrap());
        let refused = |result: Result<(), StorageError>| {
            let error = result.unwrap_err();
            assert!(matches!(error.kind, StorageErrorKind::ChangedOutside), "{error}");
        };
        refused(target.check_unchanged());
        refused(target.write_piece(0, b"a piece"));
        refused(target.zero_range(0..PIECE));
        refused(target.set_length(PIECE));
        drop(journal);
    }
}

#[test]
fn unrecorded_pieces_are_not_claimed_before_a_flush() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, journal, _) = open(directory.path(), &manifest);
    write(&target, &journal, 2);
    drop((target, journal));
    drop(open(directory.path(), &manifest));
    let (target, journal, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![], vec![2]));
    journal.note_written(PieceIndex(2));
    record(&target, &journal);
    drop((target, journal));
    assert_eq!(held(&open(directory.path(), &manifest).2), [2]);
}

#[test]
fn a_failed_link_is_remembered() {
    for links_hold in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let manifest = manifest(4);
        let (target, journal, _) = open(directory.path(), &manifest);
        write(&target, &journal, 2);
        let claim = || RecordClaim { links_hold, ..claim(&target) };
        journal.write_record(|| target.sync(), claim).unwrap();
        drop((target, journal));
        for _ in 0..2 {
            let (_, _, progress) = open(directory.path(), &manifest);
            assert_eq!((held(&progress), progress.held.links_match), (vec![2], links_hold));
        }
    }
}

#[test]
fn a_recorded_last_piece_keeps_the_exact_length() {
    let directory = tempfile::tempdir().unwrap();
    let stated = manifest(4);
    let (name, digests) = (stated.name().clone(), stated.digests().to_vec());
    let manifest = Manifest::new(name, None, digests, stated.proof(), None).unwrap();
    let exact = 3 * PIECE + 7;
    let (target, journal, _) = open(directory.path(), &manifest);
    write(&target, &journal, 1);
    write(&target, &journal, 3);
    journal
        .write_record(|| target.sync(), || RecordClaim { exact_length: Some(exact), ..claim(&target) })
        .unwrap();
    drop((target, journal));
    let (_target, _journal, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![1, 3], vec![]));
    assert_eq!(progress.held.length, Some(exact));
}

#[test]
fn a_removed_record_never_reappears() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(2);
    let (target, journal, _) = open(directory.path(), &manifest);
    assert_eq!(names(directory.path()).len(), 2);
    write(&target, &journal, 0);
    journal
        .write_record(
            || {
                journal.remove()?;
                target.sync()
            },
            || claim(&target),
        )
        .unwrap();
    target.finish(false).unwrap();
    assert_eq!(names(directory.path()), ["f"]);
    journal.note_begun(PieceIndex(1)).unwrap();
    journal.note_written(PieceIndex(1));
    assert_eq!(names(directory.path()), ["f"], "a late piece writes no note");
}

#[test]
fn nothing_is_created_after_the_removal() {
    let directory = tempfile::tempdir().unwrap();
    let (target, journal, _) = open(directory.path(), &manifest(2));
    write(&target, &journal, 0);
    let next = directory.path().join(&journal.next_name);
    // Creating the next record would remove this file first.
    let remove_during_flush = || {
        journal.remove().unwrap();
        std::fs::write(&next, b"another's").unwrap();
        claim(&target)
    };
    journal.write_record(|| target.sync(), remove_during_flush).unwrap();
    assert_eq!(std::fs::read(&next).unwrap(), b"another's");
}

#[test]
fn a_record_without_its_partial_file_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, journal, _) = open(directory.path(), &manifest);
    write(&target, &journal, 2);
    record(&target, &journal);
    std::fs::remove_file(target.partial_path()).unwrap();
    drop((target, journal));
    let place = || Destination::resolve(directory.path(), manifest.name()).unwrap();
    remove_orphaned_record(&place(), GROUP, manifest.proof().id()).unwrap();
    let plan = TargetLayout { length: manifest.geometry().length(), reserved_ranges: &[] };
    drop(Target::open(place(), GROUP, manifest.proof().id(), plan).unwrap());
    // The next attempt is killed here: its new file has no record yet.
    let (_, _, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![], vec![0, 1, 2, 3]));
}

#[test]
fn of_a_truncated_partial_file_the_first_pieces_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, journal, _) = open(directory.path(), &manifest);
    (0..4).for_each(|index| write(&target, &journal, index));
    record(&target, &journal);
    let file = std::fs::File::options().write(true).open(target.partial_path()).unwrap();
    file.set_len(2 * PIECE + 7).unwrap();
    drop((target, journal));
    let (_, _, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![], vec![0, 1]));
}

#[test]
fn another_chain_voids_the_links_and_other_digests_the_record() {
    for (other, links_hold) in [
        (manifest_with(4, Some(5)), true),
        (manifest_with(4, Some(6)), false),
        (manifest_with(4, None), false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (target, journal, _) = open(directory.path(), &manifest(4));
        write(&target, &journal, 2);
        record(&target, &journal);
        drop((target, journal));
        for _ in 0..2 {
            let (_, _, progress) = open(directory.path(), &other);
            assert_eq!((held(&progress), progress.held.links_match), (vec![2], links_hold));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &manifest(4)));
    let digests = vec![Digest([9; 20]); 4];
    let other = manifest(4);
    let other = Manifest::new(other.name().clone(), Some(4 * PIECE), digests, other.proof(), None).unwrap();
    let (_, _, progress) = open(directory.path(), &other);
    assert_eq!(
        (held(&progress), to_check(&progress)),
        (vec![], vec![0, 1, 2, 3]),
        "every piece may be there"
    );
}

#[test]
fn an_unfinished_full_check_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, journal, _) = open(directory.path(), &manifest);
    journal.remove().unwrap();
    drop((target, journal));
    let (target, journal, progress) = open(directory.path(), &manifest);
    assert_eq!(to_check(&progress), [0, 1, 2, 3]);
    journal.note_written(PieceIndex(0));
    record(&target, &journal);
    journal.note_written(PieceIndex(2));
    drop((target, journal));
    let (target, journal, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![0], vec![1, 2, 3]));
    journal.mark_all_checked();
    assert!(journal.has_new_claims(), "completeness is a new claim");
    record(&target, &journal);
    drop((target, journal));
    assert_eq!(to_check(&open(directory.path(), &manifest).2), [] as [u32; 0]);
}

#[test]
fn notes_are_short_and_end_with_the_next_record() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(u8::MAX);
    let (target, journal, _) = open(directory.path(), &manifest);
    let length = || std::fs::metadata(&journal.path).unwrap().len();
    let before = length();
    for _ in 0..3 {
        (0..255).for_each(|index| write(&target, &journal, index));
    }
    assert_eq!(length() - before, 255 * NOTE_BYTES as u64, "one note before the first write of each piece");
    record(&target, &journal);
    assert_eq!(length(), before);
}

#[test]
fn a_record_is_due_after_enough_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let pieces = u32::try_from(RECORD_DUE_PIECES).unwrap();
    let digests: Vec<Digest> = (0..pieces).map(|_| Digest([3; 20])).collect();
    let whole = FileProof::Whole(Digest([77; 20]));
    let length = u64::from(pieces) * PIECE;
    let manifest = Manifest::new(FileName::new("f").unwrap(), Some(length), digests, whole, None).unwrap();
    let (_, journal, _) = open(directory.path(), &manifest);
    for index in 0..pieces {
        assert!(!journal.is_record_due());
        journal.note_written(PieceIndex(index));
    }
    assert!(journal.is_record_due());
}

#[test]
fn after_a_failed_flush_unrecorded_pieces_are_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(9);
    let (target, journal, _) = open(directory.path(), &manifest);
    write(&target, &journal, 0);
    record(&target, &journal);
    write(&target, &journal, 1);
    write(&target, &journal, 2);
    journal.note_begun(PieceIndex(3)).unwrap();
    journal.note_begun(PieceIndex(4)).unwrap();
    journal.write_record(|| broken_flush(&target), || claim(&target)).unwrap_err();
    assert_eq!(journal.suspect_pieces(), [1, 2].map(PieceIndex));
    journal.note_written(PieceIndex(3));
    assert_eq!(
        journal.suspect_pieces(),
        [1, 2, 3].map(PieceIndex),
        "its write began before the flush failed"
    );
    write(&target, &journal, 4);
    write(&target, &journal, 5);
    write(&target, &journal, 1);
    journal.note_missing(PieceIndex(2));
    assert_eq!(journal.suspect_pieces(), [PieceIndex(3)]);
    record(&target, &journal);
    assert_eq!(journal.suspect_pieces(), [PieceIndex(3)], "no later flush clears it");
    drop((target, journal));
    let (_, _, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![0, 1, 4, 5], vec![3]));
}

#[test]
fn after_a_failed_flush_and_a_kill_every_written_piece_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(5);
    let (target, journal, _) = open(directory.path(), &manifest);
    write(&target, &journal, 0);
    record(&target, &journal);
    write(&target, &journal, 1);
    journal.note_begun(PieceIndex(2)).unwrap();
    journal.write_record(|| broken_flush(&target), || claim(&target)).unwrap_err();
    write(&target, &journal, 3);
    drop((target, journal));
    let (_, journal, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![], vec![0, 1, 2, 3]));
    assert!(journal.is_begun(PieceIndex(1)), "it has to be written again even if it hashes right");
}

#[test]
fn a_damaged_record_is_renamed_and_every_piece_checked() {
    const VERSION_AT: usize = 7;
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(5);
    let (target, journal, _) = open(directory.path(), &manifest);
    let partial = target.partial_path();
    write(&target, &journal, 1);
    record(&target, &journal);
    journal.note_begun(PieceIndex(3)).unwrap();
    let path = journal.path.clone();
    drop((target, journal));
    let whole = std::fs::read(&path).unwrap();
    // Use the same inode each time: in another file no record counts.
    let saved = directory.path().join("kept");
    std::fs::hard_link(&path, &saved).unwrap();
    let noted = whole.len() - NOTE_BYTES;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&saved, &path).unwrap();
        std::fs::write(&path, &damaged).unwrap();
        let (_, _, progress) = open(directory.path(), &manifest);
        let (aside, expected) = match at {
            // The version's digit: a record of another version is replaced.
            VERSION_AT => (false, (vec![], vec![0, 1, 2, 3, 4])),
            at if at < noted => (true, (vec![], vec![0, 1, 2, 3, 4])),
            _ => (false, (vec![1], vec![])),
        };
        assert_eq!((held(&progress), to_check(&progress)), expected, "byte {at}");
        let set_aside = PathBuf::from(format!("{}.damaged", path.display()));
        assert_eq!(set_aside.exists(), aside, "byte {at}");
        let _ = std::fs::remove_file(set_aside);
    }
    for end in 1..noted {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert_eq!(to_check(&open(directory.path(), &manifest).2).len(), 5, "cut at {end}");
    }
    assert!(partial.exists());
}

#[test]
fn long_names_fit_the_filesystem() {
    let directory = tempfile::tempdir().unwrap();
    let long = manifest(1);
    let name = FileName::new(&"é".repeat(127)).unwrap();
    let long = Manifest::new(name, Some(PIECE), long.digests().to_vec(), long.proof(), None).unwrap();
    drop(open(directory.path(), &long));
    let names = names(directory.path());
    assert_eq!(names.len(), 2);
    for ending in [".part", ".record"] {
        assert!(names.iter().any(|name| name.ends_with(ending)), "{names:?}");
    }
}
