//! Right and wrong manifests: chains, digests, lengths; and how many passes over the file each costs.

use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use engine::config::IoChoice;
use engine::hash::HashKind;
use engine::proto::hashes::Sha1List;
use engine::proto::limits::CONNECTIONS_WANTED;
use engine::proto::manifest::{FileProof, Manifest};
use engine::stats::{DownloadFailure, DownloadPhase, DownloadProgress, SuspectPeer};

use crate::PIECE;
use crate::rig::{Node, bytes, durable, finish};
use crate::scripted_provider::ScriptedProvider;
use crate::wire::{assert_no_worker_panicked, watch_workers};

/// Most bytes of repeated requests when a download ends: less than a piece on each connection but one.
const CUT_OFF_BYTES: u64 = ((CONNECTIONS_WANTED - 1) * PIECE) as u64;

/// The parts of a manifest, for changes.
#[derive(Clone)]
struct Statement {
    length: Option<u64>,
    digests: Vec<engine::proto::units::Digest>,
    proof: FileProof,
    chain: Option<Vec<engine::proto::units::ChainState>>,
}

/// Downloads `content` from a provider that has it, with a manifest that `change` has changed.
fn fetch(content: &[u8], change: impl FnOnce(&mut Statement)) -> (DownloadProgress, Node) {
    watch_workers();
    let leecher = Node::start(2, IoChoice::Auto);
    let right = Node::start(1, IoChoice::Auto).upload("f", content);
    let mut statement = Statement {
        length: Some(right.geometry().length()),
        digests: right.digests().to_vec(),
        proof: right.proof(),
        chain: right.chain().map(Sha1List::to_vec),
    };
    change(&mut statement);
    let Statement { length, digests, proof, chain } = statement;
    let manifest = Manifest::new(right.name().clone(), length, digests, proof, chain).unwrap();
    let provider = ScriptedProvider::honest(&Arc::new(content.to_vec()));
    let download = leecher.fetch(&Arc::new(manifest), &[]);
    download.add_peers(&[provider.peer]);
    let progress = finish(&download);
    assert_eq!(download.take_suspects(), Vec::<SuspectPeer>::new(), "a peer was blamed");
    if progress.phase == DownloadPhase::Durable {
        assert!(std::fs::read(leecher.path("f")).unwrap() == content, "the file is whole");
        assert_eq!(progress.total_bytes, content.len() as u64);
        assert_eq!(progress.verified_bytes, content.len() as u64);
    }
    assert_no_worker_panicked();
    (progress, leecher)
}

fn count_passes(content: &[u8], change: impl FnOnce(&mut Statement)) -> u32 {
    let (progress, _) = fetch(content, change);
    assert_eq!(progress.phase, DownloadPhase::Durable);
    progress.sequential_passes
}

/// Contents of one piece and of several.
fn contents() -> [Vec<u8>; 3] {
    [bytes(1, 1), bytes(PIECE, 2), bytes(9 * PIECE - 3, 3)]
}

#[test]
fn a_good_chain_costs_no_pass() {
    for content in contents() {
        assert_eq!(count_passes(&content, |_| {}), 0);
    }
}

#[test]
fn no_chain_costs_one_pass_except_for_a_single_piece() {
    for content in contents() {
        let single = content.len() <= PIECE;
        assert_eq!(count_passes(&content, |statement| statement.chain = None), u32::from(!single));
    }
}

#[test]
fn a_bad_link_costs_one_pass_and_blames_no_peer() {
    let content = bytes(9 * PIECE - 3, 3);
    for link in [0, 4, 7] {
        let change = |statement: &mut Statement| statement.chain.as_mut().unwrap()[link].0[19] ^= 1;
        assert_eq!(count_passes(&content, change), 1, "link {link}");
    }
}

#[test]
fn a_manifest_without_a_whole_digest_costs_no_pass() {
    for content in contents() {
        for with_chain in [false, true] {
            let pieces_only = |statement: &mut Statement| {
                statement.proof = FileProof::of_pieces(&statement.digests);
                if !with_chain {
                    statement.chain = None;
                }
            };
            assert_eq!(count_passes(&content, pieces_only), 0);
        }
    }
}

#[test]
fn an_unknown_length_is_learned_from_providers() {
    for content in contents() {
        assert_eq!(count_passes(&content, |statement| statement.length = None), 0);
        let pieces_only = |statement: &mut Statement| {
            statement.length = None;
            statement.chain = None;
            statement.proof = FileProof::of_pieces(&statement.digests);
        };
        assert_eq!(count_passes(&content, pieces_only), 0);
    }
}

#[test]
fn an_unknown_length_among_copies_and_zeros() {
    let a = bytes(PIECE, 1);
    let zeros = vec![0; PIECE];
    // The last piece is: a copy, zeros like the first, the only zeros, short zeros.
    let files = [
        [&a[..], &zeros, &a].concat(),
        [&zeros[..], &a, &zeros].concat(),
        [&a[..], &zeros].concat(),
        [&zeros[..], &a, &zeros[..100]].concat(),
        zeros.clone(),
    ];
    for content in files {
        assert_eq!(count_passes(&content, |statement| statement.length = None), 0);
    }
}

#[test]
fn a_provider_cannot_lie_about_a_length_that_a_copy_proves() {
    watch_workers();
    let a = bytes(PIECE, 1);
    let content = Arc::new([&a[..], &bytes(PIECE, 2), &a].concat());
    let leecher = Node::start(2, IoChoice::Auto);
    let right = Node::start(1, IoChoice::Auto).upload("f", &content);
    let name = right.name().clone();
    for pieces_only in [false, true] {
        let proof = if pieces_only { FileProof::of_pieces(right.digests().iter()) } else { right.proof() };
        let chain = right.chain().map(Sha1List::to_vec);
        let manifest = Manifest::new(name.clone(), None, right.digests().to_vec(), proof, chain).unwrap();
        // It claims a short last piece and sends the first piece, which equals the true last one.
        let provider = ScriptedProvider::start(&content, |scene, wire| {
            scene.claim(wire, scene.length() - 5, scene.full_bits())?;
            scene.answer(wire, |scene, wire, index| wire.piece(index, scene.bytes(index)))
        });
        let download = leecher.fetch(&Arc::new(manifest), &[]);
        download.add_peers(&[provider.peer]);
        durable(&download);
        assert!(std::fs::read(leecher.path("f")).unwrap() == *content);
        assert!(leecher.engine.unshare(download.key()));
        std::fs::remove_file(leecher.path("f")).unwrap();
    }
}

#[test]
fn a_false_digest_of_the_whole_fails_after_one_pass_and_one_fetch() {
    for content in contents() {
        for with_chain in [false, true] {
            let (progress, leecher) = fetch(&content, |statement| {
                let mut whole = statement.proof.id();
                whole.0[0] ^= 1;
                statement.proof = FileProof::Whole(whole);
                if !with_chain {
                    statement.chain = None;
                }
            });
            let DownloadPhase::Failed(DownloadFailure::FalseManifest { found, stated }) = &progress.phase
            else {
                panic!("{:?}", progress.phase)
            };
            assert_ne!(found, stated);
            assert_eq!(progress.sequential_passes, 1);
            let received = progress.received_bytes - progress.duplicate_bytes;
            assert!(received < content.len() as u64 + CUT_OFF_BYTES, "it is fetched again: {received} bytes");
            assert!(!leecher.path("f").exists());
            assert_eq!(leecher.engine.shares().len(), 0, "a false file is served");
        }
    }
}

#[test]
fn holes_of_a_large_file_stay_holes() {
    const LENGTH: u64 = 5 << 30;
    /// `f_type` of tmpfs, from linux/magic.h.
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    if rustix::fs::statfs(seeder.directory.path()).unwrap().f_type == TMPFS_MAGIC {
        eprintln!("skipped: tmpfs allocates memory for each hole that is read through a mapping");
        return;
    }
    let path = seeder.path("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(LENGTH).unwrap();
    let mark = bytes(3 * PIECE, 8);
    let marks = [0, (1 << 31) - 7, (1 << 32) + 1, LENGTH - mark.len() as u64];
    for at in marks {
        file.write_all_at(&mark, at).unwrap();
    }
    drop(file);
    let manifest = seeder.share(&path, "sparse");
    let progress = durable(&leecher.fetch(&manifest, &[&seeder]));
    assert_eq!(progress.sequential_passes, 0);
    // Each mark touches at most four pieces.
    let most = (marks.len() * 4 * PIECE) as u64;
    let received = progress.received_bytes - progress.duplicate_bytes;
    assert!(received <= most + CUT_OFF_BYTES, "{received} bytes came");
    let copy = std::fs::File::open(leecher.path("sparse")).unwrap();
    let metadata = copy.metadata().unwrap();
    assert_eq!(metadata.len(), LENGTH);
    assert!(metadata.blocks() * 512 <= 2 * most, "{} blocks are on disk", metadata.blocks());
    // Ranges that are holes in both files are equal and not read.
    let source = std::fs::File::open(&path).unwrap();
    for written in [&source, &copy].into_iter().flat_map(extents) {
        for start in written.clone().step_by(PIECE) {
            let read = |file: &std::fs::File| {
                let mut bytes = vec![0; PIECE.min(usize::try_from(written.end - start).unwrap())];
                file.read_exact_at(&mut bytes, start).unwrap();
                bytes
            };
            assert!(read(&source) == read(&copy), "at {start}");
        }
    }
}

/// Byte ranges of a file that are not holes.
fn extents(file: &std::fs::File) -> Vec<Range<u64>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).unwrap();
        extents.push(start..at);
    }
    extents
}

#[test]
fn sha1_asm_verifies_a_file_on_both_sides() {
    let (seeder, leecher) = (
        Node::with_hash(1, IoChoice::Auto, Some(HashKind::Asm)),
        Node::with_hash(2, IoChoice::Auto, Some(HashKind::Asm)),
    );
    assert_eq!((seeder.engine.hash_name(), leecher.engine.hash_name()), ("asm", "asm"));
    let content = bytes(20 * PIECE + 5, 9);
    let manifest = seeder.upload("f", &content);
    let reference = Node::start(3, IoChoice::Auto).upload("f", &content);
    assert_eq!(manifest, reference, "hash back ends disagree");
    let progress = durable(&leecher.fetch(&manifest, &[&seeder]));
    assert_eq!(progress.sequential_passes, 0);
    assert!(std::fs::read(leecher.path("f")).unwrap() == content);
}
