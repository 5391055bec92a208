//! Engines that fetch from each other over loopback sockets: sizes, several peers, faults.

mod limits;
mod long_links;
#[path = "../rig/relay.rs"]
mod relay;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../rig/scripted_provider.rs"]
mod scripted_provider;
mod watched;
#[path = "../rig/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::config::IoChoice;
use engine::proto::units::PIECE_BYTES;
use engine::stats::{DownloadPhase, WaitReason};
use rig::{Node, back_ends, bytes, durable, far_future, key, ticket, wait_for};
use scripted_provider::ScriptedProvider;

const PIECE: usize = PIECE_BYTES as usize;

#[test]
fn files_of_boundary_sizes_arrive_whole() {
    for io in back_ends() {
        let (seeder, leecher) = (Node::start(1, io), Node::start(2, io));
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 4 * PIECE, 300 * PIECE - 17] {
            let name = format!("{length} bytes – größe.bin");
            let content = bytes(length, length as u64);
            let manifest = seeder.upload(&name, &content);
            let progress = durable(&leecher.fetch(&manifest, &[&seeder]));
            assert!(std::fs::read(leecher.path(&name)).unwrap() == content, "{name} by {io:?}");
            assert_eq!(progress.sequential_passes, 0, "a good chain proves {name}");
            assert_eq!(progress.verified_bytes, length as u64);
            assert_eq!(
                std::fs::read_dir(leecher.directory.path()).unwrap().count(),
                1,
                "a partial file is left"
            );
            std::fs::remove_file(leecher.path(&name)).unwrap();
        }
    }
}

#[test]
fn equal_pieces_are_fetched_once_and_zeros_never() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let (a, b) = (bytes(PIECE, 1), bytes(PIECE, 2));
    let content =
        [&a, &vec![0; PIECE], &b, &a, &vec![0; PIECE], &a, &vec![0; 1_000]].map(Vec::as_slice).concat();
    let manifest = seeder.upload("copies", &content);
    let (provider, asked) = ScriptedProvider::recording(&Arc::new(content.clone()));
    let download = leecher.fetch(&manifest, &[]);
    download.add_peers(&[provider.peer]);
    let progress = durable(&download);
    assert!(std::fs::read(leecher.path("copies")).unwrap() == content);
    let asked: BTreeSet<u32> = asked.lock().unwrap().iter().map(|index| index.0).collect();
    assert!(asked.len() == 2 && asked.contains(&2), "one piece of each content is requested: {asked:?}");
    assert_eq!(asked.iter().filter(|index| [0, 3, 5].contains(*index)).count(), 1, "{asked:?}");
    assert_eq!(progress.sequential_passes, 0);
}

#[test]
fn a_third_node_fetches_from_the_second_after_the_first_has_gone() {
    let (first, second, third) =
        (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto), Node::start(3, IoChoice::Auto));
    let content = bytes(20 * PIECE + 5, 9);
    let manifest = first.upload("f", &content);
    durable(&second.fetch(&manifest, &[&first]));
    drop(first);
    durable(&third.fetch(&manifest, &[&second]));
    assert!(std::fs::read(third.path("f")).unwrap() == content);
}

#[test]
fn three_seeders_serve_one_leecher() {
    for io in back_ends() {
        let seeders = [1, 2, 3].map(|seed| Node::start(seed, io));
        let leecher = Node::start(4, io);
        let content = bytes(200 * PIECE, 3);
        let manifests = seeders.each_ref().map(|seeder| seeder.upload("f", &content));
        durable(&leecher.fetch(&manifests[0], &seeders.each_ref()));
        assert!(std::fs::read(leecher.path("f")).unwrap() == content);
    }
}

#[test]
fn each_of_three_providers_gets_requests() {
    for io in back_ends() {
        let (uploader, leecher) = (Node::start(1, io), Node::start(4, io));
        let content = Arc::new(bytes(200 * PIECE, 3));
        let manifest = uploader.upload("f", &content);
        let providers = ScriptedProvider::barrier(3, &content);
        let download = leecher.fetch(&manifest, &[]);
        download.add_peers(&providers.iter().map(|provider| provider.peer).collect::<Vec<_>>());
        durable(&download);
        assert!(std::fs::read(leecher.path("f")).unwrap() == *content);
    }
}

#[test]
fn two_leechers_feed_each_other() {
    let (seeder, a, b) =
        (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto), Node::start(3, IoChoice::Auto));
    let content = bytes(400 * PIECE, 3);
    let manifest = seeder.upload("f", &content);
    let (one, other) = (a.fetch(&manifest, &[&seeder, &b]), b.fetch(&manifest, &[&seeder, &a]));
    one.add_peers(&[b.address()]);
    durable(&one);
    durable(&other);
    for node in [&a, &b] {
        assert!(std::fs::read(node.path("f")).unwrap() == content);
    }
}

#[test]
fn a_peer_without_a_valid_ticket_gets_no_byte() {
    let (seeder, stranger) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let manifest = seeder.upload("f", &bytes(3 * PIECE, 4));
    let stolen = ticket(&manifest, Node::start(3, IoChoice::Auto).engine.peer_key(), far_future());
    let expired = ticket(&manifest, stranger.engine.peer_key(), engine::proto::ticket::UnixSeconds(1_000));
    for bad in [stolen, expired] {
        let order = engine::DownloadOrder { ticket: bad, ..stranger.order(&manifest) };
        let download = stranger.engine.download(order).unwrap();
        download.add_peers(&[seeder.address()]);
        let progress =
            wait_for(&download, |progress| progress.phase == DownloadPhase::Waiting(WaitReason::Ticket));
        assert_eq!(progress.received_bytes, 0);
        download.cancel();
        rig::finish(&download);
    }
    assert_eq!(seeder.engine.shares()[0].sent_bytes, 0);
}

#[test]
fn a_source_truncated_while_it_is_served_costs_time_and_never_the_file() {
    for io in back_ends() {
        let (broken, whole, leecher) = (Node::start(1, io), Node::start(2, io), Node::start(3, io));
        let content = bytes(100 * PIECE, 5);
        let manifest = broken.upload("f", &content);
        std::fs::File::options().write(true).open(broken.path("f")).unwrap().set_len(7).unwrap();
        let download = leecher.fetch(&manifest, &[&broken]);
        wait_for(&download, |progress| {
            matches!(progress.phase, DownloadPhase::Waiting(WaitReason::SourceChanged { .. }))
        });
        assert!(broken.engine.shares()[0].source_change.is_some());
        whole.upload("f", &content);
        download.add_peers(&[whole.address()]);
        durable(&download);
        assert!(std::fs::read(leecher.path("f")).unwrap() == content);
    }
}

#[test]
fn a_pause_keeps_pieces_and_a_cancel_removes_the_partial_file() {
    let (seeder, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let manifest = seeder.upload("f", &bytes(50 * PIECE, 6));
    let download = leecher.fetch(&manifest, &[]);
    download.pause();
    download.add_peers(&[seeder.address()]);
    wait_for(&download, |progress| progress.phase == DownloadPhase::Paused);
    assert_eq!(download.progress().received_bytes, 0);
    download.resume();
    durable(&download);

    let other = seeder.upload("other", &bytes(PIECE, 7));
    let download = leecher.fetch(&other, &[]);
    download.cancel();
    assert_eq!(rig::finish(&download).phase, DownloadPhase::Cancelled);
    assert_eq!(std::fs::read_dir(leecher.directory.path()).unwrap().count(), 1);
    assert_eq!(leecher.engine.shares().len(), 1, "a cancelled download is not served");
    assert!(leecher.engine.unshare(&key("f")));
}

#[test]
fn a_download_of_an_own_shared_file_copies_it_and_leaves_the_share_alone() {
    for io in back_ends() {
        let (owner, third) = (Node::start(1, io), Node::start(3, io));
        let content = bytes(20 * PIECE + 5, 8);
        let manifest = owner.upload("f", &content);
        let elsewhere = tempfile::tempdir().unwrap();
        let order =
            || engine::DownloadOrder { destination: elsewhere.path().to_owned(), ..owner.order(&manifest) };

        // With this ticket it never begins, so it can be cancelled before its end.
        let expired = ticket(&manifest, owner.engine.peer_key(), engine::proto::ticket::UnixSeconds(1_000));
        let cancelled = engine::DownloadOrder { ticket: expired, ..order() };
        let cancelled = owner.engine.download(cancelled).unwrap();
        wait_for(&cancelled, |progress| progress.phase == DownloadPhase::Waiting(WaitReason::Ticket));
        cancelled.cancel();
        assert_eq!(rig::finish(&cancelled).phase, DownloadPhase::Cancelled);
        durable(&third.fetch(&manifest, &[&owner]));
        assert!(std::fs::read(third.path("f")).unwrap() == content);

        let copy = owner.engine.download(order()).unwrap();
        durable(&copy);
        assert!(std::fs::read(elsewhere.path().join("f")).unwrap() == content);
        std::fs::remove_file(elsewhere.path().join("f")).unwrap();
        let share = &owner.engine.shares()[0];
        assert!(
            share.source_change.is_none() && share.held == manifest.pieces(),
            "the first copy is still served"
        );
    }
}
