//! Hash lists that become unreadable: no peer is blamed for pieces that do not match, and no file is discarded or replaced
//! because of it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::DownloadOrder;
use engine::config::IoChoice;
use engine::proto::hashes::{BackingBytes, HASH_BYTES, Sha1List, join_values};
use engine::proto::manifest::Manifest;
use engine::stats::{DownloadFailure, DownloadPhase, DownloadProgress, SuspectPeer};

use crate::PIECE;
use crate::rig::{Node, bytes, durable, far_future, finish, nothing_is_spawned, ticket};
use crate::scripted_provider::ScriptedProvider;
use crate::wire::{assert_no_worker_panicked, watch_workers};

const PIECES: usize = 40;

/// Bytes of which one hash reads as zeros: from the start, or after the first call of `unreadable_at`.
#[derive(Debug)]
struct FailingBytes {
    bytes: Vec<u8>,
    value: usize,
    fails: AtomicBool,
    lost: AtomicBool,
}

impl BackingBytes for FailingBytes {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.bytes[at..at + into.len()]);
        if at == self.value * HASH_BYTES && self.fails.load(Ordering::SeqCst) {
            into.fill(0);
            self.lost.store(true, Ordering::SeqCst);
        }
    }

    fn unreadable_at(&self) -> Option<String> {
        self.fails.store(true, Ordering::SeqCst);
        self.lost.load(Ordering::SeqCst).then(|| "/the/failing/disk".to_owned())
    }
}

/// The manifest with the digest of this piece, or the chain state after it, on a failing disk.
fn failing(right: &Manifest, piece: usize, of_chain: bool, at_once: bool) -> Arc<Manifest> {
    let backing = |bytes: Vec<u8>| -> Arc<dyn BackingBytes> {
        let (fails, lost) = (AtomicBool::new(at_once), AtomicBool::new(false));
        Arc::new(FailingBytes { bytes, value: piece, fails, lost })
    };
    let (digests, chain) = (right.digests(), right.chain().unwrap());
    let (digests, chain) = if of_chain {
        let bytes = backing(join_values(&chain.to_vec()));
        (digests.clone(), Sha1List::from_backing(bytes, 0, chain.len()).unwrap())
    } else {
        (
            Sha1List::from_backing(backing(join_values(&digests.to_vec())), 0, digests.len()).unwrap(),
            chain.clone(),
        )
    };
    let length = Some(right.geometry().length());
    Arc::new(Manifest::from_lists(right.name().clone(), length, digests, right.proof(), Some(chain)).unwrap())
}

fn order(node: &Node, manifest: &Arc<Manifest>, directory: &Path) -> DownloadOrder {
    let ticket = ticket(manifest, node.engine.peer_key(), far_future());
    DownloadOrder { destination: directory.to_owned(), ticket, ..node.order(manifest) }
}

fn assert_lost(progress: &DownloadProgress) {
    let DownloadPhase::Failed(DownloadFailure::Io(message)) = &progress.phase else {
        panic!("{:?}", progress.phase)
    };
    assert!(message.contains("/the/failing/disk"), "{message}");
}

fn left_beside(directory: &Path, ending: &str) -> Option<std::path::PathBuf> {
    let mut entries = directory.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.to_string_lossy().ends_with(ending))
}

/// Content with zero pieces at the start and the end, which are never fetched.
fn content() -> Vec<u8> {
    let zeros = vec![0; PIECE];
    [&zeros[..], &bytes((PIECES - 2) * PIECE, 31), &zeros].concat()
}

#[test]
fn a_download_with_lost_hashes_fails_without_blame_and_resumes_with_new_ones() {
    watch_workers();
    let content = content();
    let right = Node::start(1, IoChoice::Auto).upload("f", &content);
    let provider = ScriptedProvider::honest(&Arc::new(content.clone()));
    // A digest, a chain state between two fetched pieces, a chain state that zero pieces need.
    for (piece, of_chain) in [(PIECES / 2, false), (PIECES / 2, true), (0, true)] {
        // A program that is being started would hold the locks of files that are opened again.
        let _spawns = nothing_is_spawned();
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let first = Node::start(2, IoChoice::Auto);
        let download =
            first.engine.download(order(&first, &failing(&right, piece, of_chain, false), directory));
        let download = download.unwrap();
        download.add_peers(&[provider.peer]);
        assert_lost(&finish(&download));
        assert_eq!(download.take_suspects(), Vec::<SuspectPeer>::new(), "no peer is to blame");
        // The flush thread ends with the last handle of the engine.
        drop((download, first));
        let record = left_beside(directory, ".record").expect("the record is left");
        assert!(left_beside(directory, ".part").is_some());
        // A check of the partial file with lost hashes discards nothing.
        std::fs::remove_file(record).unwrap();
        let second = Node::start(3, IoChoice::Auto);
        let download = second.engine.download(order(&second, &failing(&right, 1, false, false), directory));
        assert_lost(&finish(&download.unwrap()));
        // Ends all other work for that download.
        drop(second);
        let third = Node::start(4, IoChoice::Auto);
        let download = third.engine.download(order(&third, &right, directory)).unwrap();
        download.add_peers(&[provider.peer]);
        let progress = durable(&download);
        assert_eq!(progress.sequential_passes, 0, "the chain still proves the file");
        assert!(std::fs::read(directory.join("f")).unwrap() == content);
    }
    assert_no_worker_panicked();
}

#[test]
fn a_download_with_hashes_that_are_lost_already_does_not_begin() {
    let right = Node::start(1, IoChoice::Auto).upload("f", &content());
    let leecher = Node::start(2, IoChoice::Auto);
    let order = order(&leecher, &failing(&right, 3, false, true), leecher.directory.path());
    let refused = leecher.engine.download(order).err().unwrap().to_string();
    assert!(refused.contains("/the/failing/disk"), "{refused}");
    assert_eq!(leecher.directory.path().read_dir().unwrap().count(), 0, "files are left");
}

#[test]
fn an_existing_file_does_not_differ_because_of_lost_hashes() {
    let node = Node::start(1, IoChoice::Auto);
    let right = node.upload("f", &content());
    let failing = failing(&right, PIECES - 1, false, true);
    let refused =
        node.engine.compare_existing(node.directory.path(), &failing, &|_| ControlFlow::Continue(()));
    assert!(refused.unwrap_err().to_string().contains("/the/failing/disk"));
}
