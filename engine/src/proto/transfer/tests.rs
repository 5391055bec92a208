//! Simulated swarms: a transfer with peers that are slow, silent, corrupt or gone.

mod fluid;
mod random;
mod silences;
mod simulated;
mod stuck;
mod swarms;

use super::super::frame::{ByeCode, RefusedCode, RejectCode};
use super::super::limits::{DEFERRED_MAX, HAVE_MAX_RANGES, OUTSTANDING_MAX_PIECES};
use super::super::manifest::FileName;
use super::super::peer_trouble::ConnectFailure;
use super::super::session::Violation;
use super::super::ticket::PeerKey;
use super::super::units::PIECE_BYTES;
use super::*;
use scheduler::FIRST_OFFER_MS;
use simulated::Behaviour::{Corrupt, CorruptAt, Honest, Refusing, Rejecting, Silent, TurningAway, Vanishing};
use simulated::{Swarm, distinct, manifest};

#[test]
fn seeders_get_requests_in_proportion_to_their_speed() {
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
fn a_peer_is_banned_after_two_bad_pieces_and_reported() {
    let mut swarm = Swarm::new(&distinct(200), &[(Corrupt, 1), (Honest, 4)]);
    swarm.prove();
    assert_eq!(swarm.transfer.take_banned(), [swarm.peers[0].address]);
}

#[test]
fn a_wrong_piece_is_fetched_from_another_peer() {
    for last in 1..20 {
        // A second request for the piece would get the first peer banned, also when it is idle, or for a duplicate.
        let mut swarm = Swarm::new(&distinct(20), &[(CorruptAt(PieceIndex(last)), 1), (Honest, 400)]);
        swarm.prove();
        assert_eq!(swarm.transfer.take_banned(), []);
    }
}

#[test]
fn a_peer_that_defers_every_request_is_called_less_and_less_often() {
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
fn with_only_a_corrupt_peer_the_status_says_so() {
    let mut swarm = Swarm::new(&distinct(20), &[(Corrupt, 1)]);
    swarm.run(5_000);
    let expected =
        TransferStatus::NoPeers { missing: PieceCount(20), first: PieceIndex(0), after_bad_pieces: true };
    assert_eq!(swarm.transfer.status(), expected);
}

/// The first call of a transfer that knows one seeder.
fn call_of_seeder(transfer: &mut Transfer, address: PeerAddress) -> (ConnectionId, u64) {
    transfer.add_peers(Moment::default(), [NamedPeer { address, is_seeder: true }]);
    let called = transfer.take_actions();
    let [TransferAction::Connect { connection, timeout_ms, .. }] = called[..] else { panic!("{called:?}") };
    (connection, timeout_ms)
}

fn poll_until(transfer: &mut Transfer, from_ms: u64, to_ms: u64) {
    (from_ms..=to_ms).step_by(100).for_each(|ms| transfer.poll(Moment::default().plus_ms(ms), false));
}

#[test]
fn what_became_of_an_unreachable_peer_is_told_while_it_is_called_again() {
    let address = PeerAddress { address: ([10, 77, 0, 11], 40_603).into(), key: PeerKey([1; 32]) };
    let mut transfer = Transfer::new(distinct(3), 1, Moment::default());
    let (connection, timeout_ms) = call_of_seeder(&mut transfer, address);
    assert_eq!(transfer.status(), TransferStatus::Active, "the first call may be answered");
    poll_until(&mut transfer, 0, timeout_ms);
    let mut now = Moment::default().plus_ms(timeout_ms);
    let failure = ConnectFailure::TimedOut { after_ms: timeout_ms };
    transfer.connection_closed(now, connection, &DisconnectReason::Unreachable(failure));
    for _ in 0..20 {
        now = now.plus_ms(100);
        transfer.poll(now, false);
        assert!(matches!(transfer.status(), TransferStatus::NoPeers { .. }), "a repeated call is no news");
        let told = transfer.peer_troubles().to_string();
        assert_eq!(
            told,
            "10.77.0.11:40603 has it but does not answer: timed out after 2 s; is that port open?"
        );
    }
    let again = transfer.take_actions();
    let [TransferAction::Connect { connection, timeout_ms: later_ms, .. }] = again[..] else {
        panic!("{again:?}")
    };
    assert!(later_ms > timeout_ms, "a full link may need longer");
    let file = ProviderFile { length: 3 * u64::from(PIECE_BYTES), pieces: Bitfield::full(PieceCount(3)) };
    transfer.connection_opened(now, connection, file);
    assert!(transfer.peer_troubles().is_empty(), "it answers now");
    assert_eq!(transfer.status(), TransferStatus::Active);
}

#[test]
fn a_first_call_without_an_answer_is_told_before_it_ends() {
    let address = PeerAddress { address: ([10, 77, 0, 11], 40_603).into(), key: PeerKey([1; 32]) };
    let mut transfer = Transfer::new(distinct(3), 1, Moment::default());
    call_of_seeder(&mut transfer, address);
    poll_until(&mut transfer, 100, 2_400);
    assert_eq!(transfer.status(), TransferStatus::Active);
    poll_until(&mut transfer, 2_500, 3_100);
    assert!(matches!(transfer.status(), TransferStatus::NoPeers { .. }));
    let told = transfer.peer_troubles();
    assert!(told.to_string().contains("nothing came for 3 s"), "{told}");
}

#[test]
fn a_silent_peer_loses_its_requests() {
    let mut swarm = Swarm::new(&distinct(100), &[(Silent, 1), (Honest, 1)]);
    swarm.prove();
    assert!(swarm.ms < 5_000, "{} ms", swarm.ms);
}

#[test]
fn a_transfer_waits_for_a_vanished_source_and_goes_on() {
    let mut swarm = Swarm::new(&distinct(100), &[(Vanishing(30), 1), (Rejecting, 1), (Refusing, 1)]);
    swarm.run(20_000);
    let TransferStatus::NoPeers { missing, after_bad_pieces: false, .. } = swarm.transfer.status() else {
        panic!("{:?}", swarm.transfer.status());
    };
    assert!((70..80).contains(&missing.0), "30 were served, and pieces on the wire are lost: {missing}");
    swarm.peers[0].behaviour = Honest;
    swarm.prove();
}

#[test]
fn a_rejecting_peer_is_not_asked_again_and_again() {
    let mut swarm = Swarm::new(&distinct(50), &[(Rejecting, 1)]);
    swarm.run(10_000);
    assert_eq!(swarm.transfer.counts().received_bytes, 0);
    assert!(swarm.arrivals.is_empty());
    assert!(matches!(swarm.transfer.status(), TransferStatus::NoPeers { .. }));
}

#[test]
fn announced_pieces_are_requested_from_partial_holders() {
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
        assert_eq!(swarm.transfer.handle_message(now, connection, &have), Ok(None));
    }
    swarm.run(2_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn peers_without_pieces_do_not_keep_others_from_being_called() {
    // As many as missing pieces, as many as there may be connections, and more.
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
fn a_silent_peer_does_not_keep_others_from_being_called() {
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
fn a_transfer_on_hold_does_nothing() {
    let mut swarm = Swarm::new(&distinct(500), &[(Honest, 1)]);
    swarm.run(100);
    swarm.transfer.suspend(swarm.now());
    let held = swarm.transfer.held().count();
    swarm.run(5_000);
    assert_eq!(swarm.transfer.held().count(), held);
    swarm.transfer.resume(swarm.now());
    swarm.run(10_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn a_bad_link_discards_the_chain_and_bans_no_peer() {
    let mut swarm = Swarm::new(&distinct(3), &[(Honest, 1)]);
    swarm.bad_link = Some(PieceIndex(1));
    swarm.run(5_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Unverified);
    assert_eq!(swarm.transfer.take_banned(), []);
}

#[test]
fn pieces_that_were_not_requested_are_violations() {
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
        Ok(Some(ByeCode::Shutdown))
    );
}

#[test]
fn announcements_that_overlap_or_are_not_ascending_are_violations() {
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
        assert_eq!(told(right), Ok(None));
    }
}

#[test]
fn the_requests_of_a_violator_go_to_another_peer() {
    let mut swarm = Swarm::new(&distinct(30), &[(Silent, 1), (Honest, 1)]);
    swarm.carry_out();
    let now = swarm.now();
    let violator = *swarm.links.iter().find(|(_, link)| link.0 == 0).unwrap().0;
    let index = *swarm.transfer.scheduler.connections.open(violator).unwrap().pending.keys().next().unwrap();
    let cancelled = Message::Reject { index, code: RejectCode::Cancelled };
    let violation = swarm.transfer.handle_message(now, violator, &cancelled).unwrap_err();
    swarm.links.remove(&violator);
    swarm.transfer.connection_closed(now, violator, &DisconnectReason::Violated(violation));
    assert_eq!(swarm.transfer.begin_piece(violator, index, u32::MAX), Err(Violation::Unrequested(index)));
    swarm.run(10_000);
    assert_eq!(swarm.transfer.status(), TransferStatus::Complete);
}

#[test]
fn a_peer_is_banned_for_bad_pieces_after_it_disconnected() {
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
    assert_eq!(swarm.transfer.take_banned(), [swarm.peers[0].address]);
}

#[test]
fn a_crawling_connection_loses_its_requests_to_an_idle_one() {
    // The first peer has all requests before the second is known, and needs an hour for each piece.
    const HOUR_MS: u64 = 3_600_000;
    let mut swarm = Swarm::new(&distinct(20), &[(Honest, HOUR_MS), (Honest, 1)]);
    let late = swarm.peers[1].address;
    swarm.transfer = Transfer::new(distinct(20), 1, swarm.now());
    swarm.transfer.add_peers(swarm.now(), &[swarm.peers[0].address]);
    while swarm.ms < 20_000 && !swarm.transfer.held().is_full() {
        let until_ms = swarm.ms + 100;
        swarm.run(until_ms);
        let now = swarm.now();
        // One byte now and then: the connection is not silent.
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
fn a_new_transfer_waits_a_moment_for_its_first_peers() {
    let start = Moment::default();
    let mut transfer = Transfer::new(distinct(3), 1, start);
    transfer.poll(start.plus_ms(FIRST_OFFER_MS - 1), false);
    assert_eq!(transfer.status(), TransferStatus::Active);
    transfer.poll(start.plus_ms(FIRST_OFFER_MS), false);
    assert!(matches!(transfer.status(), TransferStatus::NoPeers { .. }));
}

#[test]
fn a_ticket_that_expires_on_an_open_connection_shows_in_the_status() {
    let mut swarm = Swarm::new(&distinct(30), &[(Honest, 1)]);
    swarm.carry_out();
    let connection = *swarm.links.keys().next().unwrap();
    let index =
        *swarm.transfer.scheduler.connections.open(connection).unwrap().pending.keys().next().unwrap();
    let expired = Message::Reject { index, code: RejectCode::Expired };
    let now = swarm.now();
    assert_eq!(swarm.transfer.handle_message(now, connection, &expired), Ok(None));
    let close = TransferAction::Close { connection, code: ByeCode::Expired };
    assert!(swarm.transfer.take_actions().contains(&close));
    for other in swarm.transfer.scheduler.connections.ids() {
        swarm.transfer.connection_closed(now, other, &DisconnectReason::Refused(RefusedCode::Expired));
    }
    assert_eq!(swarm.transfer.status(), TransferStatus::TicketRefused);
}

#[test]
fn an_empty_file_is_complete_without_peers() {
    let name = FileName::new("f").unwrap();
    let whole = FileProof::Whole(super::super::manifest::EMPTY_DIGEST);
    let empty = Arc::new(Manifest::new(name, Some(0), vec![], whole, None).unwrap());
    let mut transfer = Transfer::new(empty, 1, Moment::default());
    assert_eq!(transfer.status(), TransferStatus::Complete);
    transfer.poll(Moment::default(), false);
    assert_eq!(transfer.take_actions(), []);
}

#[test]
fn restored_pieces_are_gained_and_not_fetched() {
    let manifest = manifest(502, true);
    let mut swarm = Swarm::new(&manifest, &[(Honest, 1)]);
    let mut pieces = Bitfield::empty(manifest.pieces());
    for index in 0..100 {
        pieces.insert(PieceIndex(index));
    }
    for (links_hold, standing) in [(true, TransferStatus::Complete), (false, TransferStatus::Unverified)] {
        let held = ResumedPieces { pieces: pieces.clone(), links_match: links_hold, length: None };
        swarm.transfer = Transfer::resumed(Arc::clone(&manifest), &held, 11, Moment::default());
        swarm.transfer.suspend(swarm.now());
        swarm.transfer.restore_piece(PieceIndex(100), true);
        swarm.transfer.finish_restore();
        let address = swarm.peers[0].address;
        swarm.transfer.add_peers(swarm.now(), &[address]);
        assert_eq!(swarm.transfer.take_actions(), [], "no peer is called while pieces are restored");
        assert_eq!(swarm.transfer.take_gained(), [PieceRange::new(PieceIndex(0), PieceIndex(100)).unwrap()]);
        assert_eq!(swarm.transfer.pieces_to_copy().len(), 101, "each of them has one equal piece");
        swarm.transfer.resume(swarm.now());
        let served = swarm.served();
        swarm.ms = 0;
        swarm.peers[0].free_at = 0;
        swarm.links.clear();
        swarm.run(60_000);
        assert_eq!(swarm.transfer.status(), standing);
        assert_eq!(swarm.served() - served, 251, "one piece of each content is missing");
    }
}

#[test]
fn pieces_lost_from_the_disk_are_fetched_again() {
    let mut swarm = Swarm::new(&distinct(40), &[(Honest, 1)]);
    swarm.prove();
    let lost = [PieceIndex(3), PieceIndex(39)];
    assert!(!swarm.transfer.discard_pieces(&lost), "pieces are discarded only on hold");
    swarm.transfer.suspend(swarm.now());
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
