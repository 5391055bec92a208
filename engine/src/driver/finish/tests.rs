//! How last steps end: also when nobody waits for them any more, and when they are taken a second time.

use sha1::Digest as _;

use super::super::backend::IoKind;
use super::super::context::NodeParts;
use super::super::download::OpenedFiles;
use super::*;
use crate::proto::manifest::{FileKey, FileName, Manifest};
use crate::proto::ticket::{SecretKey, Ticket};
use crate::proto::units::PieceIndex;
use crate::stats::WaitReason;
use crate::storage::destination::Destination;
use crate::storage::resume::ResumeJournal;
use crate::storage::target::{Target, TargetLayout};

const PIECES: usize = 3;

struct Scene {
    directory: tempfile::TempDir,
    context: NodeContext,
    download: ActiveDownload,
    content: Vec<u8>,
}

/// All pieces of a file without a chain are written.
fn scene() -> Scene {
    let scene = empty_scene();
    scene.download.manifest.pieces().indices().for_each(|index| scene.write(index));
    scene
}

impl Scene {
    /// A piece begins to be written, and is.
    fn write(&self, index: PieceIndex) {
        self.download.ledger.note_begun(index).unwrap();
        self.end_write(index);
    }

    fn end_write(&self, index: PieceIndex) {
        let Scene { download, content, .. } = self;
        let start = download.manifest.geometry().offset(index);
        let bytes = &content[index.as_usize() * PIECE_BYTES as usize..][..PIECE_BYTES as usize];
        download.target.write_piece(start, bytes).unwrap();
        download.ledger.note_written(index, true);
        download.pieces_found(&[(index, true)], 0);
    }
}

/// Of a file without a chain nothing is written.
fn empty_scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let context = NodeContext::new(NodeParts {
        io: IoKind::Epoll,
        zero_copy: crate::config::ZeroCopyChoice::Auto,
        secret: SecretKey::from_seed(&[1; 32]),
        hasher: Hasher::best(),
        limit_up: None,
        limit_down: None,
    })
    .unwrap();
    let piece = |byte: usize| vec![u8::try_from(byte).unwrap() + 1; PIECE_BYTES as usize];
    let content: Vec<u8> = (0..PIECES).flat_map(piece).collect();
    let digest = |bytes: &[u8]| Digest(sha1::Sha1::digest(bytes).into());
    let digests = content.chunks(PIECE_BYTES as usize).map(digest).collect();
    let (name, whole) = (FileName::new("f").unwrap(), FileProof::Whole(digest(&content)));
    let manifest = Manifest::new(name.clone(), Some(content.len() as u64), digests, whole, None).unwrap();
    let place = Destination::resolve(directory.path(), &name).unwrap();
    let plan = TargetLayout { length: content.len() as u64, reserved_ranges: &[] };
    let target = Target::open(place, "g", manifest.proof().id(), plan).unwrap();
    let (ledger, left) = ResumeJournal::open(&target, "g", &manifest).unwrap();
    let opened = OpenedFiles { target, ledger, held: left.held, is_checking: false };
    let (key, manifest) = (FileKey { group: "g".into(), name }, Arc::new(manifest));
    let download =
        ActiveDownload::new(key, Arc::clone(&manifest), opened, false, Ticket(vec![]), 1, context.clock);
    Scene { directory, context, download, content }
}

#[test]
fn whoever_concludes_says_how_it_ended_and_needs_nobody_to_wait() {
    let Scene { directory, context, download, content } = scene();
    assert!(run_last_steps(&context, &download, true));
    let progress = download.progress();
    assert_eq!((progress.phase, progress.sequential_passes), (DownloadPhase::Durable, 1));
    assert!(std::fs::read(directory.path().join("f")).unwrap() == content);
}

#[test]
fn what_nobody_looks_after_any_more_is_not_finished() {
    for unproven in [false, true] {
        let Scene { directory, context, download, .. } = scene();
        let before = download.progress().phase;
        download.detach();
        assert!(!run_last_steps(&context, &download, unproven), "the next attempt finishes it");
        assert_eq!(download.progress().phase, before);
        assert!(!directory.path().join("f").exists() && download.partial_path().exists());
        // As it does when the node goes down: the attempt that follows finds all of it.
        download.record_on_stop();
    }
}

#[test]
fn a_whole_that_was_proven_is_not_read_again() {
    let Scene { directory, context, download, .. } = scene();
    let in_the_way = directory.path().join("f");
    std::fs::write(&in_the_way, "mine").unwrap();
    assert!(run_last_steps(&context, &download, true));
    assert!(matches!(download.progress().phase, DownloadPhase::Failed(DownloadFailure::Exists { .. })));
    assert_eq!(download.progress().sequential_passes, 1);
    std::fs::remove_file(in_the_way).unwrap();
    // As if its last steps had been postponed then: the phase before them.
    download.enter_phase(DownloadPhase::Transferring);
    assert!(run_last_steps(&context, &download, true));
    assert_eq!(
        (download.progress().phase, download.progress().sequential_passes),
        (DownloadPhase::Durable, 1)
    );
}

#[test]
fn what_a_failed_flush_overtook_is_written_again_before_the_end() {
    let scene = empty_scene();
    [0, 1].map(PieceIndex).into_iter().for_each(|index| scene.write(index));
    // The last piece is in a long write while a flush fails; all others are made good before it ends.
    let late = PieceIndex(2);
    scene.download.ledger.note_begun(late).unwrap();
    scene.download.storage_failed(&scene.download.target.simulate_flush_failure());
    scene.download.record().unwrap_err();
    scene.download.flush(scene.context.hasher);
    assert!(scene.download.storage_wait().is_none() && !scene.download.ledger.has_suspects());
    scene.end_write(late);
    let Scene { directory, context, download, content } = scene;
    assert!(!run_last_steps(&context, &download, true), "no flush says that this piece is on the disk");
    assert!(!directory.path().join("f").exists());
    assert!(download.storage_wait().is_some(), "so that its task has it made good");
    download.flush(context.hasher);
    assert!(download.storage_wait().is_none() && !download.ledger.has_suspects());
    assert!(run_last_steps(&context, &download, true));
    assert!(std::fs::read(directory.path().join("f")).unwrap() == content);
}

#[test]
fn a_last_flush_that_fails_pauses_as_any_other_does() {
    let Scene { directory, context, download, content } = scene();
    // The flusher's flush has failed, and it has not said so yet.
    download.target.simulate_flush_failure();
    assert!(!run_last_steps(&context, &download, true));
    assert!(matches!(download.storage_wait(), Some(WaitReason::Io(_))));
    assert!(!directory.path().join("f").exists());
    download.flush(context.hasher);
    assert!(run_last_steps(&context, &download, true));
    assert_eq!(download.progress().phase, DownloadPhase::Durable);
    assert!(std::fs::read(directory.path().join("f")).unwrap() == content);
}
