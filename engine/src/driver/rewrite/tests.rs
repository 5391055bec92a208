//! Suspects after a failed flush: written again, or reported as lost.

use super::*;
use crate::hash::Hasher;
use crate::proto::manifest::{FileName, FileProof};
use crate::proto::units::Digest;
use crate::storage::destination::Destination;
use crate::storage::error::{StorageErrorKind, StorageOperation};
use crate::storage::resume::RecordClaim;
use crate::storage::target::TargetLayout;
use sha1::Digest as _;

const PIECE: usize = PIECE_BYTES as usize;
const PIECES: u8 = 20;

fn piece(index: PieceIndex) -> Vec<u8> {
    vec![u8::try_from(index.0).unwrap() + 1; PIECE]
}

fn claim(target: &Target) -> RecordClaim {
    RecordClaim { links_hold: false, exact_length: None, file_state: target.settled_state() }
}

fn manifest() -> Manifest {
    let digest = |index| Digest(sha1::Sha1::digest(piece(index)).into());
    let digests = (0..u32::from(PIECES)).map(|index| digest(PieceIndex(index))).collect();
    let length = u64::from(PIECES) * PIECE as u64;
    let whole = FileProof::Whole(Digest([7; 20]));
    Manifest::new(FileName::new("f").unwrap(), Some(length), digests, whole, None).unwrap()
}

#[test]
fn suspects_are_written_again_and_lost_pieces_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = manifest();
    let place = Destination::resolve(directory.path(), manifest.name()).unwrap();
    let geometry = manifest.geometry();
    let plan = TargetLayout { length: geometry.length(), reserved_ranges: &[] };
    let target = Target::open(place, "g", manifest.proof().id(), plan).unwrap();
    let (journal, _) = ResumeJournal::open(&target, "g", &manifest).unwrap();
    for index in manifest.pieces().indices() {
        journal.note_begun(index).unwrap();
        target.write_piece(geometry.offset(index), &piece(index)).unwrap();
        journal.note_written(index);
    }
    let broken = StorageError {
        operation: StorageOperation::Sync,
        path: target.path(),
        kind: StorageErrorKind::FlushFailed,
    };
    journal.write_record(|| Err(broken), || claim(&target)).unwrap_err();
    assert_eq!(journal.suspect_pieces().len(), usize::from(PIECES));
    // As if a page could not be written and was dropped from the page cache.
    target.write_piece(geometry.offset(PieceIndex(17)) + 4_096, &[0; 4_096]).unwrap();
    let lost = rewrite_suspects(&target, &journal, &manifest, geometry, Hasher::best()).unwrap();
    assert_eq!(lost, [PieceIndex(17)]);
    assert_eq!(journal.suspect_pieces(), lost, "a lost piece stays a suspect until it is noted as missing");
    journal.note_missing(PieceIndex(17));
    assert!(!journal.has_suspect_pieces() && journal.has_new_claims());
    journal.write_record(|| target.sync(), || claim(&target)).unwrap();
    drop((target, journal));
    let place = Destination::resolve(directory.path(), manifest.name()).unwrap();
    let target = Target::open(place, "g", manifest.proof().id(), plan).unwrap();
    let (_, left) = ResumeJournal::open(&target, "g", &manifest).unwrap();
    assert_eq!(left.held.pieces.count().0, u32::from(PIECES) - 1);
    assert!(left.to_check.is_empty());
}
