//! Hashes that a disk gave and gives no more: nobody is to blame for what they do not match, and nothing that is there is given
//! up or replaced for it.

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
use crate::liar::Liar;
use crate::rig::{Node, bytes, durable, far_future, finish, nothing_is_spawned, ticket};
use crate::wire::{assert_no_worker_panicked, watch_workers};

const PIECES: usize = 40;

/// Bytes of which one value turns to zeros: at once, or when somebody has asked whether anything was lost.
#[derive(Debug)]
struct Failing {
    bytes: Vec<u8>,
    value: usize,
    fails: AtomicBool,
    lost: AtomicBool,
}

impl BackingBytes for Failing {
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

/// The manifest, with the digest of this piece, or the state after it, on a failing disk.
fn failing(right: &Manifest, piece: usize, of_chain: bool, at_once: bool) -> Arc<Manifest> {
    let kept = |bytes: Vec<u8>| -> Arc<dyn BackingBytes> {
        let (fails, lost) = (AtomicBool::new(at_once), AtomicBool::new(false));
        Arc::new(Failing { bytes, value: piece, fails, lost })
    };
    let (digests, chain) = (right.digests(), right.chain().unwrap());
    let (digests, chain) = if of_chain {
        let bytes = kept(join_values(&chain.to_vec()));
        (digests.clone(), Sha1List::from_backing(bytes, 0, chain.len()).unwrap())
    } else {
        (
            Sha1List::from_backing(kept(join_values(&digests.to_vec())), 0, digests.len()).unwrap(),
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

/// With zeros at the start and the end, which are proven and never fetched.
fn content() -> Vec<u8> {
    let zeros = vec![0; PIECE];
    [&zeros[..], &bytes((PIECES - 2) * PIECE, 31), &zeros].concat()
}

#[test]
fn a_download_whose_hashes_are_lost_ends_without_blame_and_goes_on_with_new_ones() {
    watch_workers();
    let content = content();
    let right = Node::start(1, IoChoice::Auto).upload("f", &content);
    let provider = Liar::honest(&Arc::new(content.clone()));
    // A digest, a state between two pieces that are fetched, one that holes need.
    for (piece, of_chain) in [(PIECES / 2, false), (PIECES / 2, true), (0, true)] {
        // Else a program that is just being started may hold the lock of what is opened again.
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
        // With the last handle of the engine goes its thread that makes records.
        drop((download, first));
        let record = left_beside(directory, ".record").expect("what was fetched is still known");
        assert!(left_beside(directory, ".part").is_some());
        // What is there is looked at by hashes that are lost: that gives nothing up.
        std::fs::remove_file(record).unwrap();
        let second = Node::start(3, IoChoice::Auto);
        let download = second.engine.download(order(&second, &failing(&right, 1, false, false), directory));
        assert_lost(&finish(&download.unwrap()));
        // Its handle was that statement's; what else worked for it ends here.
        drop(second);
        let third = Node::start(4, IoChoice::Auto);
        let download = third.engine.download(order(&third, &right, directory)).unwrap();
        download.add_peers(&[provider.peer]);
        let progress = durable(&download);
        assert_eq!(progress.sequential_passes, 0, "the chain is as good as ever");
        assert!(std::fs::read(directory.join("f")).unwrap() == content);
    }
    assert_no_worker_panicked();
}

#[test]
fn a_download_by_hashes_that_are_lost_already_does_not_begin() {
    let right = Node::start(1, IoChoice::Auto).upload("f", &content());
    let leecher = Node::start(2, IoChoice::Auto);
    let order = order(&leecher, &failing(&right, 3, false, true), leecher.directory.path());
    let refused = leecher.engine.download(order).err().unwrap().to_string();
    assert!(refused.contains("/the/failing/disk"), "{refused}");
    assert_eq!(leecher.directory.path().read_dir().unwrap().count(), 0, "nothing is left of it");
}

#[test]
fn a_file_that_is_there_does_not_differ_for_lost_hashes() {
    let node = Node::start(1, IoChoice::Auto);
    let right = node.upload("f", &content());
    let failing = failing(&right, PIECES - 1, false, true);
    let refused =
        node.engine.compare_existing(node.directory.path(), &failing, &|_| ControlFlow::Continue(()));
    assert!(refused.unwrap_err().to_string().contains("/the/failing/disk"));
}
