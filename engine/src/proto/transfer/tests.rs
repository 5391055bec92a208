//! Simulated swarms: what a transfer does with peers that are slow, silent, corrupt or gone.

mod fluid;
mod random;
mod silences;
mod simulated;
mod stuck;
mod swarms;

use super::super::frame::{RefusedCode, RejectCode};
use super::super::limits::{DEFERRED_MAX, HAVE_MAX_RANGES, OUTSTANDING_MAX_PIECES};
use super::super::manifest::FileName;
use super::super::session::Violation;
use super::super::units::PIECE_BYTES;
use super::*;
use simulated::Behaviour::{Corrupt, CorruptAt, Honest, Refusing, Rejecting, Silent, TurningAway, Vanishing};
use simulated::{Swarm, distinct, manifest};

#[test]
fn three_seeders_share_the_work_by_their_speed() {
    let mut swarm = Swarm::new(&distinct(1_000), &[(Honest, 1), (Honest, 1), (Honest, 8)]);
    swarm.prove();
    assert!(swarm.ms < 600, "the limit is 471 ms, this took {}", swarm.ms);
    assert!(swarm.served() <= 1_000 + 1_000 / 200, "{} pieces crossed the links", swarm.served());
}

#[test]
fn equal_pieces_cross_the_wire_once() {
    let mut swarm = Swarm::new(&manifest(502, true), &[(Honest, 1)]);
    swarm.prove();
    assert_eq!(swarm.served(), 251);
    assert_eq!(swarm.transfer.counts().verified_bytes, 502 * u64::from(PIECE_BYTES));
}

#[test]
fn a_peer_of_bad_pieces_is_dropped_after_the_second_and_named() {
    let mut swarm = Swarm::new(&distinct(200), &[(Corrupt, 1), (Honest, 4)]);
    swarm.prove();
    assert_eq!(swarm.transfer.take_dropped(), [swarm.peers[0].address]);
}

#[test]
fn a_piece_that_came_wrong_is_fetched_elsewhere() {
    for last in 1..20 {
        // Asked again, the first would be dropped: neither when it has nothing else to do, nor for a duplicate.
        let mut swarm = Swarm::new(&distinct(20), &[(CorruptAt(PieceIndex(last)), 1), (Honest, 400)]);
        swarm.prove();
        assert_eq!(swarm.transfer.take_dropped(), []);
    }
}

#[test]
fn who_keeps_everything_for_others_is_left_and_called_ever_more_seldom() {
    let mut swarm = Swarm::new(&distinct(200), &[(TurningAway, 1), (Honest, 40)]);
    swarm.prove();
    let mut swarm = Swarm::new(&distinct(200), &[(TurningAway, 1)]);
    swarm.run(20_000);
    assert!(
        matches!(swarm.transfer.status(), TransferStatus::NoPeers { .. }),
        "{:?}",
        swarm.transfer.status()
    );
    let each_call = 4 * (2 * DEFERRED_MAX + OUTSTANDING_MAX_PIECES as usize);
    assert!((swarm.served() as usize) < 5 * each_call, "{} rejections", swarm.served());
}

#[test]
fn with_nobody_but_a_corrupt_peer_it_says_so() {
    let mut swarm = Swarm::new(&distinct(20), &[(Corrupt, 1)]);
    swarm.run(5_000);
    let expected =
        TransferStatus::NoPeers { missing: PieceCount(20), first: PieceIndex(0), after_bad_pieces: true };
    assert_eq!(swarm.transfer.status(), expected);
}

#[test]
fn a_silent_peer_loses_its_requests() {
    let mut swarm = Swarm::new(&distinct(100), &[(Silent, 1), (Honest, 1)]);
    swarm.prove();
    assert!(swarm.ms < 5_000, "{} ms", swarm.ms);
}

#[test]
fn when_the_last_source_vanishes_it_waits_and_goes_on() {
    let mut swarm = Swarm::new(&distinct(100), &[(Vanishing(30), 1), (Rejecting, 1), (Refusing, 1)]);
    swarm.run(20_000);
    let TransferStatus::NoPeers { missing, after_bad_pieces: false, .. } = swarm.transfer.status() else {
        panic!("{:?}", swarm.transfer.status());
    };
    assert!((70..80).contains(&missing.0), "30 were served, and what was under way is lost: {missing}");
    swarm.peers[0].behaviour = Honest;
    swarm.prove();
}

#[test]
fn a_rejecting_peer_is_not_asked_in_a_circle() {
    let mut swarm = Swarm::new(&distinct(50), &[(Rejecting, 1)]);
    swarm.run(10_000);
    assert_eq!(swarm.transfer.counts().received_bytes, 0);
    assert!(swarm.arrivals.is_empty());
    assert!(matches!(swarm.transfer.status(), TransferStatus::NoPeers { .. }));
}

#[test]
fn partial_holders_are_asked_as_they_gain() {
    let manifest = distinct(10);
    let mut swarm = Swarm::new(&manifest, &[(Honest, 1)]);
    swarm.peers[0].has = Bitfield::empty(manifest.pieces());
    swarm.peers[0].has.insert(PieceIndex(3));
    swarm.run(1_000);
    assert_eq!(swarm.transfer.held().iter().collect::<Vec<_>>(), [PieceIndex(3)]);
    assert!(matches!(swarm.transfer.status(), TransferStatus::NoPeers { .. }));
    swarm.peers[0].has = Bitfield::full(manifest.pieces());
    let have = Message::Have { ranges: vec![PieceRange::new(PieceIndex(0), PieceIndex(9)).unwrap().into()] };
    for connection in swarm.links.keys().copied().collect::<Vec<_>>() {
        let now = swarm.now();
        assert_eq!(swarm.transfer.handle_message(now, connection, &have), Ok(true));
    }
    swarm.run(2_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn peers_with_nothing_to_give_keep_nobody_from_being_called() {
    // As many as pieces are missing, and as many as there may be connections, and more.
    for useless in [1, 2, 4, 32, 40] {
        let manifest = distinct(2);
        let mut swarm = Swarm::new(&manifest, &vec![(Honest, 1); useless + 1]);
        swarm.peers[..useless].iter_mut().for_each(|peer| peer.has = Bitfield::empty(manifest.pieces()));
        swarm.transfer = Transfer::new(manifest, 1, swarm.now());
        let addresses: Vec<_> = swarm.peers.iter().map(|peer| peer.address).collect();
        let (first, seeder) = addresses.split_at(useless);
        swarm.transfer.add_peers(swarm.now(), first);
        swarm.run(1_000);
        swarm.transfer.add_peers(swarm.now(), seeder);
        swarm.run(10_000);
        assert_eq!(swarm.transfer.status(), TransferStatus::Complete, "beside {useless}");
    }
}

#[test]
fn a_silent_peer_keeps_nobody_from_being_called() {
    let mut swarm = Swarm::new(&distinct(1), &[(Silent, 1), (Honest, 1)]);
    let addresses: Vec<_> = swarm.peers.iter().map(|peer| peer.address).collect();
    swarm.transfer = Transfer::new(distinct(1), 1, swarm.now());
    swarm.transfer.add_peers(swarm.now(), &addresses[..1]);
    swarm.run(1_000);
    swarm.transfer.add_peers(swarm.now(), &addresses[1..]);
    swarm.run(5_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn holding_stops_everything_until_it_ends() {
    let mut swarm = Swarm::new(&distinct(500), &[(Honest, 1)]);
    swarm.run(100);
    swarm.transfer.hold(swarm.now());
    let held = swarm.transfer.held().count();
    swarm.run(5_000);
    assert_eq!(swarm.transfer.held().count(), held);
    swarm.transfer.resume(swarm.now());
    swarm.run(10_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn a_bad_link_discards_the_chain_and_blames_nobody() {
    let mut swarm = Swarm::new(&distinct(3), &[(Honest, 1)]);
    swarm.bad_link = Some(PieceIndex(1));
    swarm.run(5_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Unverified);
    assert_eq!(swarm.transfer.take_dropped(), []);
}

#[test]
fn pieces_that_nobody_asked_for_are_violations() {
    let mut swarm = Swarm::new(&distinct(3), &[(Honest, 1)]);
    swarm.carry_out();
    let now = swarm.now();
    let connection = *swarm.links.keys().next().unwrap();
    swarm.transfer.begin_piece(connection, PieceIndex(0), PIECE_BYTES).unwrap();
    let unasked = Err(Violation::Unrequested(PieceIndex(0)));
    assert_eq!(swarm.transfer.begin_piece(connection, PieceIndex(0), 5), unasked);
    swarm.transfer.piece_received(now, connection, PieceIndex(0)).unwrap();
    assert_eq!(swarm.transfer.begin_piece(connection, PieceIndex(0), PIECE_BYTES), unasked);
    let cancelled = Message::Reject { index: PieceIndex(1), code: RejectCode::Cancelled };
    assert_eq!(
        swarm.transfer.handle_message(now, connection, &cancelled),
        Err(Violation::Unrequested(PieceIndex(1)))
    );
    let past_end = Message::Have { ranges: vec![super::super::frame::WireRange { first: 0, last: 3 }] };
    assert_eq!(swarm.transfer.handle_message(now, connection, &past_end), Err(Violation::Pieces));
    assert_eq!(
        swarm.transfer.handle_message(now, connection, &Message::Bye { code: ByeCode::Shutdown }),
        Ok(false)
    );
}

#[test]
fn announcements_that_repeat_pieces_or_go_back_are_violations() {
    let mut swarm = Swarm::new(&distinct(9_000), &[(Honest, 1)]);
    swarm.peers[0].has = Bitfield::empty(PieceCount(9_000));
    swarm.carry_out();
    let now = swarm.now();
    let connection = *swarm.links.keys().next().unwrap();
    let mut told = |ranges: Vec<(u32, u32)>| {
        let wire = |(first, last)| super::super::frame::WireRange { first, last };
        let ranges = ranges.into_iter().map(wire).collect();
        swarm.transfer.handle_message(now, connection, &Message::Have { ranges })
    };
    let many = |count: usize| (0..).step_by(2).map(|at| (at, at)).take(count).collect::<Vec<_>>();
    for wrong in [vec![(0, 5); 2], vec![(0, 5), (5, 6)], vec![(7, 8), (0, 1)], many(HAVE_MAX_RANGES + 1)] {
        assert_eq!(told(wrong), Err(Violation::Pieces));
    }
    for right in [vec![], vec![(0, 5), (6, 6), (8_000, 8_999)], vec![(0, 8_999)], many(HAVE_MAX_RANGES)] {
        assert_eq!(told(right), Ok(true));
    }
}

#[test]
fn a_piece_that_a_violator_owed_is_fetched_elsewhere() {
    let mut swarm = Swarm::new(&distinct(30), &[(Silent, 1), (Honest, 1)]);
    swarm.carry_out();
    let now = swarm.now();
    let violator = *swarm.links.iter().find(|(_, link)| link.0 == 0).unwrap().0;
    let index = *swarm.transfer.connections[&violator].open.as_ref().unwrap().pending.keys().next().unwrap();
    let cancelled = Message::Reject { index, code: RejectCode::Cancelled };
    let violation = swarm.transfer.handle_message(now, violator, &cancelled).unwrap_err();
    swarm.links.remove(&violator);
    swarm.transfer.connection_closed(now, violator, &DisconnectReason::Violated(violation));
    assert_eq!(swarm.transfer.begin_piece(violator, index, u32::MAX), Err(Violation::Unrequested(index)));
    swarm.run(10_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn who_hangs_up_before_its_pieces_are_judged_answers_for_them() {
    let mut swarm = Swarm::new(&distinct(9), &[(Honest, 1)]);
    swarm.carry_out();
    let now = swarm.now();
    let connection = *swarm.links.keys().next().unwrap();
    let jobs = [0, 1].map(|index| swarm.transfer.piece_received(now, connection, PieceIndex(index)).unwrap());
    swarm.transfer.connection_closed(now, connection, &DisconnectReason::Lost);
    let finding = PieceVerdict { digest_matches: false, links_match: false };
    for job in &jobs {
        assert!(!swarm.transfer.piece_checked(now, job, finding));
    }
    assert_eq!(swarm.transfer.take_dropped(), [swarm.peers[0].address]);
}

#[test]
fn whoever_crawls_loses_its_pieces_to_one_with_nothing_to_do() {
    // The first has all requests before the second is known, and needs an hour for each piece.
    const HOUR_MS: u64 = 3_600_000;
    let mut swarm = Swarm::new(&distinct(20), &[(Honest, HOUR_MS), (Honest, 1)]);
    let late = swarm.peers[1].address;
    swarm.transfer = Transfer::new(distinct(20), 1, swarm.now());
    swarm.transfer.add_peers(swarm.now(), &[swarm.peers[0].address]);
    while swarm.ms < 20_000 && !swarm.transfer.held().is_full() {
        let until_ms = swarm.ms + 100;
        swarm.run(until_ms);
        let now = swarm.now();
        // It drips.
        for connection in swarm.links.iter().filter(|(_, link)| link.0 == 0).map(|(id, _)| *id) {
            swarm.transfer.bytes_received(now, connection, 1);
        }
        if swarm.ms == 1_000 {
            swarm.transfer.add_peers(now, &[late]);
        }
    }
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn the_first_peers_have_a_moment_to_be_named() {
    let start = Moment::default();
    let mut transfer = Transfer::new(distinct(3), 1, start);
    transfer.poll(start.plus_ms(FIRST_OFFER_MS - 1), false);
    assert_eq!(transfer.status(), TransferStatus::Active);
    transfer.poll(start.plus_ms(FIRST_OFFER_MS), false);
    assert!(matches!(transfer.status(), TransferStatus::NoPeers { .. }));
}

#[test]
fn a_ticket_that_expired_on_an_open_connection_is_what_is_missing() {
    let mut swarm = Swarm::new(&distinct(30), &[(Honest, 1)]);
    swarm.carry_out();
    let connection = *swarm.links.keys().next().unwrap();
    let index =
        *swarm.transfer.connections[&connection].open.as_ref().unwrap().pending.keys().next().unwrap();
    let expired = Message::Reject { index, code: RejectCode::Expired };
    let now = swarm.now();
    assert_eq!(swarm.transfer.handle_message(now, connection, &expired), Ok(true));
    let close = TransferAction::Close { connection, code: ByeCode::Expired };
    assert!(swarm.transfer.take_actions().contains(&close));
    for other in swarm.transfer.connections.keys().copied().collect::<Vec<_>>() {
        swarm.transfer.connection_closed(now, other, &DisconnectReason::Refused(RefusedCode::Expired));
    }
    assert_eq!(swarm.transfer.status(), TransferStatus::TicketRefused);
}

#[test]
fn an_empty_file_needs_nobody() {
    let name = FileName::new("f").unwrap();
    let whole = FileProof::Whole(super::super::manifest::EMPTY_DIGEST);
    let empty = Arc::new(Manifest::new(name, Some(0), vec![], whole, None).unwrap());
    let mut transfer = Transfer::new(empty, 1, Moment::default());
    assert_eq!(transfer.status(), TransferStatus::Complete);
    transfer.poll(Moment::default(), false);
    assert_eq!(transfer.take_actions(), []);
}

#[test]
fn what_was_there_is_gained_and_not_fetched() {
    let manifest = manifest(502, true);
    let mut swarm = Swarm::new(&manifest, &[(Honest, 1)]);
    let mut pieces = Bitfield::empty(manifest.pieces());
    for index in 0..100 {
        pieces.insert(PieceIndex(index));
    }
    for (links_hold, standing) in [(true, TransferStatus::Complete), (false, TransferStatus::Unverified)] {
        let held = ResumedPieces { pieces: pieces.clone(), links_match: links_hold, length: None };
        swarm.transfer = Transfer::resumed(Arc::clone(&manifest), &held, 11, Moment::default());
        swarm.transfer.hold(swarm.now());
        swarm.transfer.restore_piece(PieceIndex(100), true);
        swarm.transfer.finish_restore();
        let address = swarm.peers[0].address;
        swarm.transfer.add_peers(swarm.now(), &[address]);
        assert_eq!(swarm.transfer.take_actions(), [], "nobody is called before the search is over");
        assert_eq!(swarm.transfer.take_gained(), [PieceRange::new(PieceIndex(0), PieceIndex(100)).unwrap()]);
        assert_eq!(swarm.transfer.pieces_to_copy().len(), 101, "each of them has a twin");
        swarm.transfer.resume(swarm.now());
        let served = swarm.served();
        swarm.ms = 0;
        swarm.peers[0].free_at = 0;
        swarm.links.clear();
        swarm.run(60_000);
        assert_eq!(swarm.transfer.status(), standing);
        assert_eq!(swarm.served() - served, 251, "of each content one piece is missing");
    }
}

#[test]
fn what_the_disk_lost_is_fetched_again() {
    let mut swarm = Swarm::new(&distinct(40), &[(Honest, 1)]);
    swarm.prove();
    let lost = [PieceIndex(3), PieceIndex(39)];
    assert!(!swarm.transfer.discard_pieces(&lost), "only on hold");
    swarm.transfer.hold(swarm.now());
    let bytes = swarm.transfer.counts().verified_bytes;
    assert!(swarm.transfer.discard_pieces(&lost));
    assert!(swarm.transfer.counts().verified_bytes < bytes);
    assert!(!swarm.transfer.held().has(lost[0]));
    let served = swarm.served();
    swarm.transfer.resume(swarm.now());
    swarm.run(120_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
    assert_eq!((swarm.served() - served, swarm.transfer.counts().verified_bytes), (2, bytes));
}
