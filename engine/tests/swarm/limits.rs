//! Nodes that may move little in a second: they take their time, and nobody is blamed or left for it.

use engine::config::IoChoice;
use engine::stats::{DownloadPhase, WaitReason};

use crate::PIECE;
use crate::rig::{Node, back_ends, bytes, wait_for};

/// So little that a piece takes a second, and a few of them at once as many.
const LITTLE: u64 = PIECE as u64;

#[test]
fn a_sparing_seeder_finishes_pieces_before_it_begins_others() {
    for io in back_ends() {
        let seeder = Node::sparing(1, io, LITTLE / 8);
        let leechers = [2, 3, 4].map(|seed| Node::start(seed, io));
        let manifest = seeder.upload("f", &bytes(16 * PIECE, 21));
        let downloads = leechers.each_ref().map(|leecher| leecher.fetch(&manifest, &[&seeder]));
        // Each leecher has several connections: were all of them served at once, a dozen pieces would be half sent by now.
        let any_proven = || downloads.iter().any(|download| download.progress().verified_bytes > 0);
        wait_for(&downloads[0], |_| any_proven());
        let sent = seeder.engine.shares()[0].sent_bytes;
        assert!(sent < 6 * PIECE as u64, "{sent} bytes were sent before one piece was whole");
        // Whoever waited for its turn all that time has not been lost.
        wait_for(&downloads[0], |_| downloads.iter().all(|download| download.progress().peers > 0));
    }
}

#[test]
fn a_leecher_that_may_fetch_little_blames_nobody() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::slow(2, LITTLE / 8));
    let content = bytes(2 * PIECE, 22);
    let manifest = seeder.upload("f", &content);
    let download = leecher.fetch(&manifest, &[&seeder]);
    let progress = wait_for(&download, |progress| {
        let blamed = matches!(&progress.phase, DownloadPhase::Waiting(wait) if wait.is_for_peers());
        assert!(!blamed || progress.received_bytes == 0, "the seeder is well: {progress:?}");
        progress.phase.is_end()
    });
    assert_eq!(progress.phase, DownloadPhase::Durable);
    // Once each, or a silent moment of this machine may have cost a piece.
    let most = content.len() + 2 * PIECE;
    assert!(progress.received_bytes < most as u64, "what came was left, again and again: {progress:?}");
}

#[test]
fn a_source_that_changes_in_the_middle_of_a_piece_is_told_as_such() {
    for io in back_ends() {
        for limited in [false, true] {
            let seeder = if limited { Node::sparing(1, io, LITTLE / 8) } else { Node::start(1, io) };
            // Without a limit it is so long that the first pieces are there before the last have left.
            let content = bytes(if limited { 3 } else { 100 } * PIECE, 23);
            let manifest = seeder.upload("f", &content);
            let leecher = if limited { Node::start(2, io) } else { Node::slow(2, 4 * LITTLE) };
            let download = leecher.fetch(&manifest, &[&seeder]);
            wait_for(&download, |progress| progress.received_bytes > 0);
            std::fs::File::options().write(true).open(seeder.path("f")).unwrap().set_len(7).unwrap();
            wait_for(&download, |progress| {
                matches!(progress.phase, DownloadPhase::Waiting(WaitReason::SourceChanged { .. }))
            });
            assert!(seeder.engine.shares()[0].source_change.is_some());
        }
    }
}
