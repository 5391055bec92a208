//! How the last steps end: also when no task waits for them, and when they are taken a second time.

use sha1::Digest as _;

use super::super::context::tests::epoll_context;
use super::super::download::OpenedFiles;
use super::super::flush::{flush_download, record_on_stop};
use super::*;
use crate::proto::manifest::{FileKey, FileName, Manifest};
use crate::proto::ticket::Ticket;
use crate::proto::units::PieceIndex;
use crate::stats::WaitReason;
use crate::storage::destination::Destination;
use crate::storage::resume::ResumeJournal;
use crate::storage::target::{Target, TargetLayout};

const PIECES: usize = 3;

/// A download of a file without a chain.
struct FinishFixture {
    directory: tempfile::TempDir,
    context: NodeContext,
    download: ActiveDownload,
    content: Vec<u8>,
}

/// All pieces are written.
fn written_fixture() -> FinishFixture {
    let fixture = empty_fixture();
    fixture.download.manifest.pieces().indices().for_each(|index| fixture.write_piece(index));
    fixture
}

impl FinishFixture {
    fn write_piece(&self, index: PieceIndex) {
        self.download.journal.note_begun(index).unwrap();
        self.end_write(index);
    }

    fn end_write(&self, index: PieceIndex) {
        let FinishFixture { download, content, .. } = self;
        let start = download.manifest.geometry().offset(index);
        let bytes = &content[index.as_usize() * PIECE_BYTES as usize..][..PIECE_BYTES as usize];
        download.target.write_piece(start, bytes).unwrap();
        download.journal.note_written(index);
        download.pieces_found(&[(index, true)], 0);
    }
}

/// No piece is written.
fn empty_fixture() -> FinishFixture {
    let directory = tempfile::tempdir().unwrap();
    let context = epoll_context();
    let piece = |byte: usize| vec![u8::try_from(byte).unwrap() + 1; PIECE_BYTES as usize];
    let content: Vec<u8> = (0..PIECES).flat_map(piece).collect();
    let digest = |bytes: &[u8]| Digest(sha1::Sha1::digest(bytes).into());
    let digests = content.chunks(PIECE_BYTES as usize).map(digest).collect();
    let (name, whole) = (FileName::new("f").unwrap(), FileProof::Whole(digest(&content)));
    let manifest = Manifest::new(name.clone(), Some(content.len() as u64), digests, whole, None).unwrap();
    let place = Destination::resolve(directory.path(), &name).unwrap();
    let layout = TargetLayout { length: content.len() as u64, reserved_ranges: &[] };
    let target = Target::open(place, "g", manifest.proof().id(), layout).unwrap();
    let (journal, prior) = ResumeJournal::open(&target, "g", &manifest).unwrap();
    let opened = OpenedFiles { target, journal, held: prior.held, is_checking: false };
    let (key, manifest) = (FileKey { group: "g".into(), name }, Arc::new(manifest));
    let download =
        ActiveDownload::new(key, Arc::clone(&manifest), opened, false, Ticket(vec![]), 1, context.clock);
    FinishFixture { directory, context, download, content }
}

#[test]
fn last_steps_end_in_a_phase_without_a_waiting_task() {
    let FinishFixture { directory, context, download, content } = written_fixture();
    assert!(run_last_steps(&context, &download, true));
    let progress = download.progress();
    assert_eq!((progress.phase, progress.sequential_passes), (DownloadPhase::Durable, 1));
    assert!(std::fs::read(directory.path().join("f")).unwrap() == content);
}

#[test]
fn a_detached_download_is_not_finished() {
    for is_unverified in [false, true] {
        let FinishFixture { directory, context, download, .. } = written_fixture();
        let before = download.progress().phase;
        download.detach();
        assert!(!run_last_steps(&context, &download, is_unverified), "the next attempt finishes it");
        assert_eq!(download.progress().phase, before);
        assert!(!directory.path().join("f").exists() && download.partial_path().exists());
        // As when the node stops: the next attempt finds all pieces.
        record_on_stop(&download);
    }
}

#[test]
fn a_whole_that_was_proven_is_not_read_again() {
    let FinishFixture { directory, context, download, .. } = written_fixture();
    let in_the_way = directory.path().join("f");
    std::fs::write(&in_the_way, "mine").unwrap();
    assert!(run_last_steps(&context, &download, true));
    assert!(matches!(download.progress().phase, DownloadPhase::Failed(DownloadFailure::Exists { .. })));
    assert_eq!(download.progress().sequential_passes, 1);
    std::fs::remove_file(in_the_way).unwrap();
    // As if the last steps had been postponed: the phase before them.
    download.enter_phase(DownloadPhase::Transferring);
    assert!(run_last_steps(&context, &download, true));
    let progress = download.progress();
    assert_eq!((progress.phase, progress.sequential_passes), (DownloadPhase::Durable, 1));
}

#[test]
fn a_write_that_outlasts_a_failed_flush_is_repeated_before_the_end() {
    let fixture = empty_fixture();
    [0, 1].map(PieceIndex).into_iter().for_each(|index| fixture.write_piece(index));
    // The last piece is in a long write while a flush fails. All others are written again before it ends.
    let late = PieceIndex(2);
    fixture.download.journal.note_begun(late).unwrap();
    fixture.download.storage_failed(&fixture.download.target.simulate_flush_failure());
    record_download(&fixture.download).unwrap_err();
    flush_download(&fixture.download, fixture.context.hasher);
    assert!(fixture.download.storage_wait().is_none() && !fixture.download.journal.has_suspect_pieces());
    fixture.end_write(late);
    let FinishFixture { directory, context, download, content } = fixture;
    assert!(!run_last_steps(&context, &download, true), "no flush covers the last piece");
    assert!(!directory.path().join("f").exists());
    assert!(download.storage_wait().is_some(), "the download's task then flushes again");
    flush_download(&download, context.hasher);
    assert!(download.storage_wait().is_none() && !download.journal.has_suspect_pieces());
    assert!(run_last_steps(&context, &download, true));
    assert!(std::fs::read(directory.path().join("f")).unwrap() == content);
}

#[test]
fn a_failed_last_flush_makes_the_download_wait_for_the_disk() {
    let FinishFixture { directory, context, download, content } = written_fixture();
    // A flush on another thread has failed, and the download does not know that yet.
    download.target.simulate_flush_failure();
    assert!(!run_last_steps(&context, &download, true));
    assert!(matches!(download.storage_wait(), Some(WaitReason::Io(_))));
    assert!(!directory.path().join("f").exists());
    flush_download(&download, context.hasher);
    assert!(run_last_steps(&context, &download, true));
    assert_eq!(download.progress().phase, DownloadPhase::Durable);
    assert!(std::fs::read(directory.path().join("f")).unwrap() == content);
}
