//! Nodes with low rate limits: slow transfers go on, and no peer is blamed or dropped.

use engine::config::IoChoice;
use engine::stats::{DownloadPhase, WaitReason};

use crate::PIECE;
use crate::rig::{Node, back_ends, bytes, wait_for};

/// Bytes of one piece a second: a few pieces at once take a few seconds.
const LOW_RATE: u64 = PIECE as u64;

#[test]
fn a_limited_seeder_finishes_pieces_before_it_begins_others() {
    for io in back_ends() {
        let seeder = Node::with_upload_limit(1, io, LOW_RATE / 8);
        let leechers = [2, 3, 4].map(|seed| Node::start(seed, io));
        let manifest = seeder.upload("f", &bytes(16 * PIECE, 21));
        let downloads = leechers.each_ref().map(|leecher| leecher.fetch(&manifest, &[&seeder]));
        // Each leecher has several connections. Served all at once, a dozen pieces would be half sent by now.
        let any_proven = || downloads.iter().any(|download| download.progress().verified_bytes > 0);
        wait_for(&downloads[0], |_| any_proven());
        let sent = seeder.engine.shares()[0].sent_bytes;
        assert!(sent < 6 * PIECE as u64, "{sent} bytes were sent before one piece was whole");
        // Leechers that waited for a send slot are still connected.
        wait_for(&downloads[0], |_| downloads.iter().all(|download| download.progress().peers > 0));
    }
}

#[test]
fn a_limited_leecher_blames_no_peer() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::with_download_limit(2, LOW_RATE / 8));
    let content = bytes(2 * PIECE, 22);
    let manifest = seeder.upload("f", &content);
    let download = leecher.fetch(&manifest, &[&seeder]);
    let progress = wait_for(&download, |progress| {
        let blamed = matches!(&progress.phase, DownloadPhase::Waiting(wait) if wait.is_for_peers());
        assert!(!blamed || progress.received_bytes == 0, "the seeder was blamed: {progress:?}");
        progress.phase.is_end()
    });
    assert_eq!(progress.phase, DownloadPhase::Durable);
    // Each piece once; a pause of this machine may have cost a piece.
    let most = content.len() + 2 * PIECE;
    assert!(progress.received_bytes < most as u64, "pieces were dropped and fetched again: {progress:?}");
}

#[test]
fn a_source_that_changes_in_the_middle_of_a_piece_is_reported() {
    for io in back_ends() {
        for limited in [false, true] {
            let seeder =
                if limited { Node::with_upload_limit(1, io, LOW_RATE / 8) } else { Node::start(1, io) };
            // Without a limit the file is so long that the first pieces arrive before the last are sent.
            let content = bytes(if limited { 3 } else { 100 } * PIECE, 23);
            let manifest = seeder.upload("f", &content);
            let leecher =
                if limited { Node::start(2, io) } else { Node::with_download_limit(2, 4 * LOW_RATE) };
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
