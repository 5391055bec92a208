//! Records: what they claim after a crash at any moment, what is made of damaged ones, and where they go.

use super::record::PieceNote;
use super::*;
use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::{FileName, FileProof};
use crate::proto::units::{ChainState, Digest, PIECE_BYTES, PieceCount};
use crate::storage::destination::Destination;
use crate::storage::target::TargetLayout;

mod copied;
mod crashes;

const PIECE: u64 = PIECE_BYTES as u64;
const GROUP: &str = "g";

/// So often a lock is looked at again that nobody holds but a program that is being started …
const LOCKED_LOOKS_MAX: u32 = 6_000;

/// … with so much between two.
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

/// Of this boot, and of the next.
const HERE: Option<PageCacheId> = Some(PageCacheId([1; 24]));
const NEXT_BOOT: Option<PageCacheId> = Some(PageCacheId([2; 24]));

fn open(directory: &std::path::Path, manifest: &Manifest) -> (Target, ResumeJournal, PriorProgress) {
    open_in(HERE, directory, manifest)
}

fn open_in(
    cache: Option<PageCacheId>,
    directory: &std::path::Path,
    manifest: &Manifest,
) -> (Target, ResumeJournal, PriorProgress) {
    let place = || Destination::resolve(directory, manifest.name()).unwrap();
    let content = manifest.proof().id();
    remove_orphaned_record(&place(), GROUP, content).unwrap();
    let plan = TargetLayout { length: manifest.geometry().length(), reserved_ranges: &[] };
    let mut looks = 0;
    let target = loop {
        match Target::open(place(), GROUP, content, plan) {
            // A program that another test is just starting may hold the lock of what was closed here, until its `exec`.
            Err(error) if matches!(error.kind, StorageErrorKind::Locked) => {
                looks += 1;
                assert!(looks < LOCKED_LOOKS_MAX, "{error}");
                std::thread::park_timeout(LOCKED_LOOK_EVERY);
            }
            opened => break opened.unwrap(),
        }
    };
    let (ledger, left) = ResumeJournal::open_in(cache, &target, GROUP, manifest).unwrap();
    (target, ledger, left)
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn claim() -> RecordClaim {
    RecordClaim { links_hold: true, exact_length: None }
}

fn write(target: &Target, ledger: &ResumeJournal, index: u32) {
    ledger.note_begun(PieceIndex(index)).unwrap();
    target.write_piece(u64::from(index) * PIECE, b"a piece").unwrap();
    ledger.note_written(PieceIndex(index), true);
}

fn held(left: &PriorProgress) -> Vec<u32> {
    left.held.pieces.iter().map(|index| index.0).collect()
}

fn to_check(left: &PriorProgress) -> Vec<u32> {
    left.to_check.iter().map(|index| index.0).collect()
}

fn broken_flush(target: &Target) -> Result<(), StorageError> {
    Err(to_storage_error(StorageOperation::Sync, &target.path())(StorageErrorKind::FlushFailed))
}

#[test]
fn after_a_kill_only_what_was_being_written_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(9);
    let (target, ledger, left) = open(directory.path(), &manifest);
    assert!(held(&left).is_empty() && to_check(&left).is_empty(), "a new file has nothing");
    write(&target, &ledger, 3);
    write(&target, &ledger, 5);
    assert!(ledger.has_new_claims());
    ledger.write_record(|| target.sync(), claim).unwrap();
    assert!(!ledger.has_new_claims());
    write(&target, &ledger, 1);
    ledger.note_begun(PieceIndex(7)).unwrap();
    drop((target, ledger));
    for _ in 0..3 {
        let (_target, ledger, left) = open(directory.path(), &manifest);
        assert_eq!((held(&left), to_check(&left)), (vec![1, 3, 5], vec![7]), "however often it is killed");
        assert!(left.held.links_match && left.is_complete);
        assert!(ledger.has_new_claims(), "what is trusted is not recorded yet");
        assert!(ledger.is_begun(PieceIndex(7)) && !ledger.is_begun(PieceIndex(1)));
    }
}

#[test]
fn after_a_crash_of_the_machine_all_that_was_noted_is_checked() {
    for (before, after) in [(HERE, NEXT_BOOT), (HERE, None), (None, HERE), (None, None)] {
        let directory = tempfile::tempdir().unwrap();
        let manifest = manifest(9);
        let (target, ledger, _) = open_in(before, directory.path(), &manifest);
        write(&target, &ledger, 3);
        ledger.write_record(|| target.sync(), claim).unwrap();
        write(&target, &ledger, 1);
        ledger.note_begun(PieceIndex(7)).unwrap();
        drop((target, ledger));
        for cache in [after, HERE, after] {
            let (_target, ledger, left) = open_in(cache, directory.path(), &manifest);
            assert_eq!((held(&left), to_check(&left)), (vec![3], vec![1, 7]));
            assert!(ledger.is_begun(PieceIndex(1)));
        }
    }
}

#[test]
fn what_a_kill_left_unrecorded_is_not_claimed_before_it_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, ledger, _) = open(directory.path(), &manifest);
    write(&target, &ledger, 2);
    drop((target, ledger));
    drop(open(directory.path(), &manifest));
    let (_, _, left) = open_in(NEXT_BOOT, directory.path(), &manifest);
    assert_eq!(
        (held(&left), to_check(&left)),
        (vec![], vec![2]),
        "the machine crashed after the second start"
    );
    let (target, ledger, _) = open_in(NEXT_BOOT, directory.path(), &manifest);
    ledger.note_written(PieceIndex(2), true);
    ledger.write_record(|| target.sync(), claim).unwrap();
    drop((target, ledger));
    assert_eq!(held(&open(directory.path(), &manifest).2), [2]);
}

#[test]
fn a_link_that_did_not_hold_is_remembered() {
    for (link_holds, recorded) in [(true, false), (false, false), (true, true), (false, true)] {
        let directory = tempfile::tempdir().unwrap();
        let manifest = manifest(4);
        let (target, ledger, _) = open(directory.path(), &manifest);
        ledger.note_begun(PieceIndex(2)).unwrap();
        target.write_piece(2 * PIECE, b"a piece").unwrap();
        ledger.note_written(PieceIndex(2), link_holds);
        if recorded {
            let claim = || RecordClaim { links_hold: link_holds, exact_length: None };
            ledger.write_record(|| target.sync(), claim).unwrap();
        }
        drop((target, ledger));
        for _ in 0..2 {
            let (_, _, left) = open(directory.path(), &manifest);
            assert_eq!((held(&left), left.held.links_match), (vec![2], link_holds));
        }
    }
}

#[test]
fn a_recorded_last_piece_of_unknown_length_is_held_with_its_length() {
    let directory = tempfile::tempdir().unwrap();
    let stated = manifest(4);
    let (name, digests) = (stated.name().clone(), stated.digests().to_vec());
    let manifest = Manifest::new(name, None, digests, stated.proof(), None).unwrap();
    let exact = 3 * PIECE + 7;
    let (target, ledger, _) = open(directory.path(), &manifest);
    write(&target, &ledger, 1);
    write(&target, &ledger, 3);
    ledger
        .write_record(|| target.sync(), || RecordClaim { links_hold: true, exact_length: Some(exact) })
        .unwrap();
    drop((target, ledger));
    for cache in [HERE, NEXT_BOOT] {
        let (_target, _ledger, left) = open_in(cache, directory.path(), &manifest);
        assert_eq!((held(&left), to_check(&left)), (vec![1, 3], vec![]));
        assert_eq!(left.held.length, Some(exact));
    }
}

#[test]
fn it_goes_with_its_file_and_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(2);
    let (target, ledger, _) = open(directory.path(), &manifest);
    assert_eq!(names(directory.path()).len(), 2);
    write(&target, &ledger, 0);
    ledger
        .write_record(
            || {
                ledger.remove()?;
                target.sync()
            },
            claim,
        )
        .unwrap();
    target.finish(false).unwrap();
    assert_eq!(names(directory.path()), ["f"]);
    ledger.note_begun(PieceIndex(1)).unwrap();
    ledger.note_written(PieceIndex(1), true);
    assert_eq!(names(directory.path()), ["f"], "a late piece leaves no note");
}

#[test]
fn once_it_was_removed_nothing_is_made_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (target, ledger, _) = open(directory.path(), &manifest(2));
    write(&target, &ledger, 0);
    let next = directory.path().join(&ledger.next_name);
    // Making the next record would begin by removing this.
    let removed_meanwhile = || {
        ledger.remove().unwrap();
        std::fs::write(&next, b"another's").unwrap();
        claim()
    };
    ledger.write_record(|| target.sync(), removed_meanwhile).unwrap();
    assert_eq!(std::fs::read(&next).unwrap(), b"another's");
}

#[test]
fn a_record_without_its_file_means_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, ledger, _) = open(directory.path(), &manifest);
    write(&target, &ledger, 2);
    ledger.write_record(|| target.sync(), claim).unwrap();
    std::fs::remove_file(target.partial_path()).unwrap();
    drop((target, ledger));
    let place = || Destination::resolve(directory.path(), manifest.name()).unwrap();
    remove_orphaned_record(&place(), GROUP, manifest.proof().id()).unwrap();
    let plan = TargetLayout { length: manifest.geometry().length(), reserved_ranges: &[] };
    drop(Target::open(place(), GROUP, manifest.proof().id(), plan).unwrap());
    // Here the next attempt is killed: its new file has no record yet.
    let (_, _, left) = open(directory.path(), &manifest);
    assert_eq!((held(&left), to_check(&left)), (vec![], vec![0, 1, 2, 3]));
}

#[test]
fn a_file_that_was_cut_has_what_it_still_has() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, ledger, _) = open(directory.path(), &manifest);
    (0..4).for_each(|index| write(&target, &ledger, index));
    ledger.write_record(|| target.sync(), claim).unwrap();
    let file = std::fs::File::options().write(true).open(target.partial_path()).unwrap();
    file.set_len(2 * PIECE + 7).unwrap();
    drop((target, ledger));
    let (_, _, left) = open(directory.path(), &manifest);
    assert_eq!(held(&left), [0, 1]);
}

#[test]
fn another_chain_costs_the_links_and_other_digests_cost_the_trust() {
    for (other, links_hold) in [
        (manifest_with(4, Some(5)), true),
        (manifest_with(4, Some(6)), false),
        (manifest_with(4, None), false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (target, ledger, _) = open(directory.path(), &manifest(4));
        write(&target, &ledger, 2);
        ledger.write_record(|| target.sync(), claim).unwrap();
        drop((target, ledger));
        for _ in 0..2 {
            let (_, _, left) = open(directory.path(), &other);
            assert_eq!((held(&left), left.held.links_match), (vec![2], links_hold));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &manifest(4)));
    let digests = vec![Digest([9; 20]); 4];
    let other = manifest(4);
    let other = Manifest::new(other.name().clone(), Some(4 * PIECE), digests, other.proof(), None).unwrap();
    let (_, _, left) = open(directory.path(), &other);
    assert_eq!((held(&left), to_check(&left)), (vec![], vec![0, 1, 2, 3]), "all of it may be there");
}

#[test]
fn an_unfinished_check_of_everything_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(4);
    let (target, ledger, _) = open(directory.path(), &manifest);
    ledger.remove().unwrap();
    drop((target, ledger));
    let (target, ledger, left) = open(directory.path(), &manifest);
    assert_eq!(to_check(&left), [0, 1, 2, 3]);
    ledger.note_written(PieceIndex(0), true);
    ledger.write_record(|| target.sync(), claim).unwrap();
    ledger.note_written(PieceIndex(2), true);
    drop((target, ledger));
    let (target, ledger, left) = open(directory.path(), &manifest);
    assert_eq!((held(&left), to_check(&left)), (vec![0, 2], vec![1, 3]));
    ledger.mark_all_checked();
    assert!(ledger.has_new_claims(), "that nothing else is there is worth a record");
    ledger.write_record(|| target.sync(), claim).unwrap();
    drop((target, ledger));
    assert_eq!(to_check(&open(directory.path(), &manifest).2), [] as [u32; 0]);
}

#[test]
fn notes_are_few_bytes_and_go_with_the_next_record() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(u8::MAX);
    let (target, ledger, _) = open(directory.path(), &manifest);
    let length = || std::fs::metadata(&ledger.path).unwrap().len();
    let before = length();
    for _ in 0..3 {
        (0..255).for_each(|index| write(&target, &ledger, index));
    }
    assert_eq!(length() - before, 255 * 2 * NOTE_BYTES as u64, "one before each write and one after it");
    ledger.write_record(|| target.sync(), claim).unwrap();
    assert_eq!(length(), before);
}

#[test]
fn a_record_is_due_when_so_much_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let pieces = u32::try_from(RECORD_DUE_PIECES).unwrap();
    let digests: Vec<Digest> = (0..pieces).map(|_| Digest([3; 20])).collect();
    let whole = FileProof::Whole(Digest([77; 20]));
    let length = u64::from(pieces) * PIECE;
    let manifest = Manifest::new(FileName::new("f").unwrap(), Some(length), digests, whole, None).unwrap();
    let (_, ledger, _) = open(directory.path(), &manifest);
    for index in 0..pieces {
        assert!(!ledger.is_record_due());
        ledger.note_written(PieceIndex(index), true);
    }
    assert!(ledger.is_record_due());
}

#[test]
fn after_a_failed_flush_all_that_is_not_recorded_is_written_again_first() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(9);
    let (target, ledger, _) = open(directory.path(), &manifest);
    write(&target, &ledger, 0);
    ledger.write_record(|| target.sync(), claim).unwrap();
    write(&target, &ledger, 1);
    write(&target, &ledger, 2);
    ledger.note_begun(PieceIndex(3)).unwrap();
    ledger.note_begun(PieceIndex(4)).unwrap();
    ledger.write_record(|| broken_flush(&target), claim).unwrap_err();
    assert_eq!(ledger.suspects(), [1, 2].map(PieceIndex));
    ledger.note_written(PieceIndex(3), true);
    assert_eq!(ledger.suspects(), [1, 2, 3].map(PieceIndex), "its write began before the flush failed");
    write(&target, &ledger, 4);
    write(&target, &ledger, 5);
    write(&target, &ledger, 1);
    ledger.note_missing(PieceIndex(2));
    assert_eq!(ledger.suspects(), [PieceIndex(3)]);
    ledger.write_record(|| target.sync(), claim).unwrap();
    assert_eq!(ledger.suspects(), [PieceIndex(3)], "no flush makes that good");
    drop((target, ledger));
    let (_, _, left) = open(directory.path(), &manifest);
    assert_eq!((held(&left), to_check(&left)), (vec![0, 1, 4, 5], vec![3]));
}

#[test]
fn a_kill_after_a_failed_flush_trusts_nothing_unrecorded() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(5);
    let (target, ledger, _) = open(directory.path(), &manifest);
    write(&target, &ledger, 0);
    ledger.write_record(|| target.sync(), claim).unwrap();
    write(&target, &ledger, 1);
    ledger.note_begun(PieceIndex(2)).unwrap();
    ledger.write_record(|| broken_flush(&target), claim).unwrap_err();
    write(&target, &ledger, 3);
    drop((target, ledger));
    for _ in 0..2 {
        let (_, ledger, left) = open(directory.path(), &manifest);
        assert_eq!((held(&left), to_check(&left)), (vec![0, 3], vec![1, 2]));
        assert!(ledger.is_begun(PieceIndex(1)), "found right, it is written again");
    }
}

#[test]
fn a_damaged_record_is_set_aside_and_everything_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest(5);
    let (target, ledger, _) = open(directory.path(), &manifest);
    let partial = target.partial_path();
    write(&target, &ledger, 1);
    ledger.write_record(|| target.sync(), claim).unwrap();
    write(&target, &ledger, 3);
    let path = ledger.path.clone();
    drop((target, ledger));
    let whole = std::fs::read(&path).unwrap();
    // The same file each time: in another one no record would count.
    let kept = directory.path().join("kept");
    std::fs::hard_link(&path, &kept).unwrap();
    let noted = whole.len() - 2 * NOTE_BYTES;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&kept, &path).unwrap();
        std::fs::write(&path, &damaged).unwrap();
        let (_, _, left) = open(directory.path(), &manifest);
        let (aside, expected) = match at {
            at if at < noted => (true, (vec![], vec![0, 1, 2, 3, 4])),
            at if at < noted + NOTE_BYTES => (false, (vec![1, 3], vec![])),
            _ => (false, (vec![1], vec![3])),
        };
        assert_eq!((held(&left), to_check(&left)), expected, "byte {at}");
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
fn names_fit_the_filesystem() {
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
