//! Tests of the peer table: candidates, connection limits, bans and retries.

use super::super::limits::CONNECTIONS_PER_PEER;
use super::super::ticket::PeerKey;
use super::*;

fn address(port: u16) -> PeerAddress {
    PeerAddress { address: ([127, 0, 0, 1], port).into(), key: PeerKey([1; 32]) }
}

fn peers(count: u16) -> PeerTable {
    let mut peers = PeerTable::default();
    let all: Vec<_> = (1..=count).map(address).collect();
    peers.add_peers(Moment::default(), &all);
    peers
}

#[test]
fn a_single_peer_gets_more_connections_once_it_answers() {
    let mut peers = peers(1);
    let now = Moment::default();
    let first = peers.next_calls(now, 99);
    assert_eq!(first.len(), 1);
    assert_eq!(peers.next_calls(now, 99), []);
    peers.connection_opened(first[0].0);
    assert_eq!(peers.next_calls(now, 99).len(), CONNECTIONS_PER_PEER - 1);
}

#[test]
fn many_peers_get_one_connection_each_up_to_the_limit() {
    let mut peers = peers(100);
    assert_eq!(peers.next_calls(Moment::default(), 3).len(), 3);
    assert_eq!(peers.next_calls(Moment::default(), usize::MAX).len(), CONNECTIONS_MAX - 3);
}

#[test]
fn each_failure_doubles_the_pause_between_calls() {
    let mut peers = peers(1);
    let mut now = Moment::default();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let number = peers.next_calls(now, 1)[0].0;
        peers.connection_ended(now, number, false, &DisconnectReason::Lost);
        let pause = (0..).find(|ms| peers.known[&PeerNumber(0)].retry_at <= now.plus_ms(*ms)).unwrap();
        pauses.push(pause);
        now = now.plus_ms(pause);
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
}

#[test]
fn a_retry_ends_the_pauses_except_of_banned_peers() {
    let mut peers = peers(3);
    let now = Moment::default();
    let calls = peers.next_calls(now, 3);
    calls.iter().for_each(|(number, _)| peers.connection_opened(*number));
    let banned = (0..BAD_PIECES_MAX).filter_map(|piece| peers.sent_bad_piece(calls[0].0, PieceIndex(piece)));
    assert_eq!(banned.count(), 1);
    let reasons =
        [DisconnectReason::Lost, DisconnectReason::Refused(RefusedCode::OtherDigest), DisconnectReason::Lost];
    for ((number, _), reason) in calls.iter().zip(&reasons).skip(1) {
        peers.connection_ended(now, *number, true, reason);
    }
    peers.connection_released(calls[0].0, true);
    assert_eq!(peers.next_calls(now, 3), []);
    peers.end_pauses(now);
    let called: Vec<_> = peers.next_calls(now, 3).into_iter().map(|(number, _)| number).collect();
    assert_eq!(called, [calls[1].0, calls[2].0]);
    // Earlier failures do not count any more.
    peers.connection_ended(now, called[1], false, &DisconnectReason::Lost);
    assert_eq!(peers.next_calls(now.plus_ms(RETRY_FIRST_MS), 3).len(), 1);
}

#[test]
fn connections_that_break_together_count_as_one_failure() {
    let mut peers = peers(1);
    let mut now = Moment::default();
    for pause_ms in [1_000, 2_000] {
        let first = peers.next_calls(now, 99);
        peers.connection_opened(first[0].0);
        let all: Vec<_> = first.into_iter().chain(peers.next_calls(now, 99)).collect();
        assert_eq!(all.len(), CONNECTIONS_PER_PEER);
        all[1..].iter().for_each(|(number, _)| peers.connection_opened(*number));
        all.iter()
            .for_each(|(number, _)| peers.connection_ended(now, *number, true, &DisconnectReason::Lost));
        assert_eq!(peers.next_calls(now.plus_ms(pause_ms - 1), 1), []);
        now = now.plus_ms(pause_ms);
    }
    assert_eq!(peers.next_calls(now, 99).len(), 1);
}

#[test]
fn a_peer_that_is_named_again_is_called_again_soon() {
    let mut peers = peers(2);
    let mut now = Moment::default();
    let endings = [DisconnectReason::Lost, DisconnectReason::Refused(RefusedCode::OtherDigest)];
    for _ in 0..6 {
        for (number, _) in peers.next_calls(now, 99) {
            peers.connection_ended(now, number, false, &endings[number.0]);
        }
        now = now.plus_ms(RETRY_MAX_MS);
    }
    for (number, _) in peers.next_calls(now, 99) {
        peers.connection_ended(now, number, false, &endings[number.0]);
    }
    let soon = now.plus_ms(RETRY_FIRST_MS);
    peers.add_peers(now, &[address(1), address(2)]);
    assert_eq!(peers.next_calls(now, 99), []);
    let called = peers.next_calls(soon, 99);
    assert_eq!(
        called,
        [(PeerNumber(0), address(1))],
        "the pause of a peer with another file is not shortened"
    );
    peers.connection_ended(soon, PeerNumber(0), false, &DisconnectReason::Lost);
    peers.add_peers(soon, &[address(1)]);
    let later = peers.next_calls(soon.plus_ms(RETRY_MAX_MS - 1), 99);
    assert!(later.iter().all(|(_, at)| *at != address(1)), "the pause is shortened once");
}

#[test]
fn peers_that_refused_a_ticket_are_called_with_a_fresh_one() {
    let mut peers = peers(1);
    let now = Moment::default();
    let number = peers.next_calls(now, 1)[0].0;
    peers.connection_ended(now, number, false, &DisconnectReason::Refused(RefusedCode::Expired));
    assert!(peers.all_refused_ticket());
    assert_eq!(peers.next_calls(now, 1), []);
    peers.ticket_renewed(now);
    assert_eq!(peers.next_calls(now, 1).len(), 1);
}

#[test]
fn a_full_table_forgets_the_peer_that_failed_most() {
    let most = u16::try_from(PEERS_PER_DOWNLOAD).unwrap();
    let mut peers = peers(most);
    let now = Moment::default();
    let stranger = [address(most + 1)];
    peers.add_peers(now, &stranger);
    assert!(peers.known.values().all(|peer| peer.address != stranger[0]), "no peer has failed yet");
    let (bad, gone) = (peers.next_calls(now, 2)[0].0, peers.next_calls(now, 2).len());
    assert_eq!(gone, 0);
    peers.connection_ended(now, bad, false, &DisconnectReason::Lost);
    peers.add_peers(now, &stranger);
    assert_eq!(peers.known.len(), PEERS_PER_DOWNLOAD);
    assert!(peers.known.values().any(|peer| peer.address == stranger[0]));
    assert_eq!(
        peers.sent_bad_piece(bad, PieceIndex(0)),
        None,
        "the peer is forgotten, and its number is not reused"
    );
}

#[test]
fn the_pause_grows_until_a_piece_is_delivered() {
    let mut peers = peers(1);
    let mut now = Moment::default();
    for pause_ms in [1_000, 2_000, 1_000] {
        let number = peers.next_calls(now, 1)[0].0;
        peers.connection_opened(number);
        if pause_ms == 1_000 {
            peers.piece_delivered(number);
        }
        peers.connection_ended(now, number, true, &DisconnectReason::Lost);
        assert_eq!(peers.next_calls(now.plus_ms(pause_ms - 1), 1), []);
        now = now.plus_ms(pause_ms);
    }
}

#[test]
fn a_changed_source_is_reported_until_its_peer_delivers_again() {
    let mut peers = peers(1);
    let now = Moment::default();
    let number = peers.next_calls(now, 1)[0].0;
    peers.connection_opened(number);
    assert_eq!(peers.next_calls(now, 2).len(), 1);
    peers.connection_ended(now, number, true, &DisconnectReason::SourceChanged);
    // The second connection was accepted before the change was noticed on the first.
    peers.connection_opened(number);
    assert!(peers.any_source_changed());
    peers.connection_ended(now, number, true, &DisconnectReason::Refused(RefusedCode::NotShared));
    assert!(peers.any_source_changed());
    peers.piece_delivered(number);
    assert!(!peers.any_source_changed());
}

#[test]
fn the_connection_limit_of_this_node_is_no_failure_of_the_peer() {
    let mut peers = peers(1);
    let mut now = Moment::default();
    for _ in 0..5 {
        let number = peers.next_calls(now, 1)[0].0;
        peers.connection_ended(now, number, false, &DisconnectReason::ConnectionLimit);
        assert!(peers.any_at_connection_limit());
        now = now.plus_ms(RETRY_FIRST_MS);
    }
}

#[test]
fn the_second_bad_piece_bans_a_peer_for_good() {
    let mut peers = peers(1);
    let number = peers.next_calls(Moment::default(), 1)[0].0;
    assert_eq!(peers.sent_bad_piece(number, PieceIndex(1)), None);
    assert_eq!(peers.sent_bad_piece(number, PieceIndex(2)), Some(address(1)));
    peers.connection_released(number, false);
    peers.add_peers(Moment::default(), &[address(1)]);
    assert_eq!(peers.next_calls(Moment::default().plus_ms(1 << 40), 1), []);
}
