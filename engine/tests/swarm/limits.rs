//! Nodes that may move little in a second: they take their time, and nobody is blamed or left for it.

use engine::config::IoChoice;
use engine::stats::{Phase, Wait};

use crate::PIECE;
use crate::rig::{Node, back_ends, bytes, wait_for};

/// So little that a piece takes a second, and a few of them at once as many.
const LITTLE: u64 = PIECE as u64;

#[test]
fn leechers_of_a_sparing_seeder_get_whole_pieces_one_after_the_other() {
    for io in back_ends() {
        // A piece takes five seconds of this: whoever waits meanwhile must not be lost.
        let seeder = Node::sparing(1, io, LITTLE / 5);
        let leechers = [2, 3, 4].map(|seed| Node::start(seed, io));
        let content = bytes(2 * PIECE, 21);
        let manifest = seeder.upload("f", &content);
        let downloads = leechers.each_ref().map(|leecher| leecher.fetch(&manifest, &[&seeder]));
        for download in &downloads {
            wait_for(download, |progress| progress.verified_bytes > 0);
        }
        let received: u64 = downloads.iter().map(|download| download.progress().received_bytes).sum();
        assert!(received <= 8 * PIECE as u64, "what was sent was kept: {received} bytes");
    }
}

#[test]
fn a_leecher_that_may_fetch_little_blames_nobody() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::slow(2, LITTLE / 8));
    let content = bytes(2 * PIECE, 22);
    let manifest = seeder.upload("f", &content);
    let download = leecher.fetch(&manifest, &[&seeder]);
    let progress = wait_for(&download, |progress| {
        let blamed = matches!(&progress.phase, Phase::Waiting(wait) if wait.is_for_peers());
        assert!(!blamed || progress.received_bytes == 0, "the seeder is well: {progress:?}");
        progress.phase.is_end()
    });
    assert_eq!(progress.phase, Phase::Durable);
    assert!(progress.received_bytes <= content.len() as u64, "nothing came twice");
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
                matches!(progress.phase, Phase::Waiting(Wait::SourceChanged { .. }))
            });
            assert!(seeder.engine.shares()[0].changed.is_some());
        }
    }
}
