//! The handshake with impostors, and the provider with greedy consumers.

use std::cell::Cell;

use super::super::frame::WireRange;
use super::super::limits::DEFERRED_MAX;
use super::super::units::{Digest, PIECE_BYTES};
use super::*;

const NOW: UnixSeconds = UnixSeconds(1_000);

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn trackers() -> SecretKey {
    secret(1)
}

fn consumer() -> SecretKey {
    secret(2)
}

fn provider() -> SecretKey {
    secret(3)
}

fn grant(expires: u64) -> Grant {
    Grant {
        user: "bob".into(),
        group: "g".into(),
        file_name: "f".into(),
        file_id: Digest([7; 20]),
        peer_key: consumer().peer_key(),
        expires: UnixSeconds(expires),
    }
}

fn geometry(pieces: u32) -> Geometry {
    Geometry::longest(PieceCount(pieces))
}

fn greeting(version: u32) -> Message {
    Message::Greeting { version, nonce: Nonce([8; 32]), peer_key: provider().peer_key() }
}

fn open_with(key: &SecretKey, expires: u64) -> Message {
    let ticket = Ticket::sign(grant(expires), &trackers());
    ConsumerHandshake::new(provider().peer_key(), Nonce([9; 32]))
        .answer_greeting(&greeting(PROTOCOL_VERSION), &ticket, key)
        .unwrap()
}

fn check(message: &Message) -> Result<(Grant, Nonce), RefusedCode> {
    check_open(message, Nonce([8; 32]), provider().peer_key(), trackers().tracker_key(), NOW)
}

#[test]
fn a_handshake_between_honest_peers_succeeds() {
    let (found, nonce) = check(&open_with(&consumer(), 2_000)).unwrap();
    assert_eq!(found, grant(2_000));
    let mut opening = ConsumerHandshake::new(provider().peer_key(), nonce);
    let ticket = Ticket::sign(grant(2_000), &trackers());
    opening.answer_greeting(&greeting(PROTOCOL_VERSION), &ticket, &consumer()).unwrap();
    let opened = Message::Opened {
        length: 3 * u64::from(PIECE_BYTES),
        bitfield: Bitfield::full(PieceCount(3)).to_bytes(),
        signature: ticket::sign_opened(&provider(), nonce),
    };
    assert!(opening.accept_opened(&opened, geometry(3), true).unwrap().pieces.is_full());
}

#[test]
fn a_stolen_ticket_is_refused() {
    assert_eq!(check(&open_with(&secret(66), 2_000)), Err(RefusedCode::Ticket));
}

#[test]
fn an_expired_ticket_is_refused() {
    assert_eq!(check(&open_with(&consumer(), 900)), Err(RefusedCode::Expired));
}

#[test]
fn a_proof_for_another_connection_is_refused() {
    let message = open_with(&consumer(), 2_000);
    let other = check_open(&message, Nonce([1; 32]), provider().peer_key(), trackers().tracker_key(), NOW);
    assert_eq!(other, Err(RefusedCode::Ticket));
}

#[test]
fn the_consumer_refuses_impostors_and_other_files() {
    let ticket = Ticket::sign(grant(2_000), &trackers());
    let start = || ConsumerHandshake::new(provider().peer_key(), Nonce([9; 32]));
    assert_eq!(start().answer_greeting(&greeting(9), &ticket, &consumer()), Err(Violation::Version(9)));
    let mut elsewhere = ConsumerHandshake::new(secret(5).peer_key(), Nonce([9; 32]));
    assert_eq!(
        elsewhere.answer_greeting(&greeting(PROTOCOL_VERSION), &ticket, &consumer()),
        Err(Violation::Identity)
    );

    let opened = |signer: &SecretKey, length, pieces| Message::Opened {
        length,
        bitfield: Bitfield::full(PieceCount(pieces)).to_bytes(),
        signature: ticket::sign_opened(signer, Nonce([9; 32])),
    };
    let take = |message: &Message, known| {
        let mut opening = start();
        opening.answer_greeting(&greeting(PROTOCOL_VERSION), &ticket, &consumer()).unwrap();
        opening.accept_opened(message, geometry(2), known)
    };
    let two = 2 * u64::from(PIECE_BYTES);
    assert_eq!(take(&opened(&secret(5), two, 2), true), Err(Violation::Identity));
    assert_eq!(take(&opened(&provider(), two - 1, 2), true), Err(Violation::Length(two - 1)));
    assert!(take(&opened(&provider(), two - 1, 2), false).is_ok(), "any length with as many pieces");
    assert_eq!(take(&opened(&provider(), two / 2, 2), false), Err(Violation::Length(two / 2)));
    assert_eq!(take(&opened(&provider(), two, 9), true), Err(Violation::Pieces));
    assert_eq!(
        start().accept_opened(&opened(&provider(), two, 2), geometry(2), true),
        Err(Violation::Identity)
    );
}

fn open_provider(pieces: u32, expires: u64) -> ProviderSession {
    ProviderSession::new(grant(expires), trackers().tracker_key(), geometry(pieces))
}

fn request(first: u32, count: u32) -> Message {
    Message::Request { first: PieceIndex(first), count: PieceCount(count) }
}

/// The history of a provider with a single consumer.
fn alone<F: Fn(PieceIndex) -> u32>(pieces: PieceCount, sent: F) -> UploadHistory<F> {
    UploadHistory::new(pieces, sent, 0, 1)
}

fn drain(provider: &mut ProviderSession, held: &Bitfield, now: UnixSeconds) -> Vec<PieceAnswer> {
    std::iter::from_fn(|| provider.next_answer(held, &alone(held.pieces(), |_| 0), now)).collect()
}

#[test]
fn every_requested_index_gets_exactly_one_answer() {
    let mut provider = open_provider(10, 2_000);
    let mut held = Bitfield::full(PieceCount(10));
    held.remove(PieceIndex(3));
    provider.handle_message(Moment::default(), &request(0, 5)).unwrap();
    provider
        .handle_message(Moment::default(), &Message::Cancel { first: PieceIndex(1), count: PieceCount(1) })
        .unwrap();
    let answers = drain(&mut provider, &held, NOW);
    let expected = [
        PieceAnswer::Reject(PieceIndex(1), RejectCode::Cancelled),
        PieceAnswer::Reject(PieceIndex(3), RejectCode::NotHeld),
        PieceAnswer::Piece(PieceIndex(0)),
        PieceAnswer::Piece(PieceIndex(2)),
        PieceAnswer::Piece(PieceIndex(4)),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn the_piece_sent_least_goes_first() {
    let mut provider = open_provider(4, 2_000);
    provider.handle_message(Moment::default(), &request(0, 4)).unwrap();
    let sent = [2, 1, 0, 1];
    let held = Bitfield::full(PieceCount(4));
    let spread = alone(held.pieces(), |index| sent[index.as_usize()]);
    let order: Vec<_> = std::iter::from_fn(|| provider.next_answer(&held, &spread, NOW)).collect();
    assert_eq!(order, [2, 1, 3, 0].map(|index| PieceAnswer::Piece(PieceIndex(index))));
}

#[test]
fn a_complete_provider_defers_pieces_sent_to_others() {
    let sent = |index: PieceIndex| u32::from(index.0 == 1 || index.0 == 2);
    let full = Bitfield::full(PieceCount(5));
    let answers = |held: &Bitfield, consumers| {
        let mut provider = open_provider(5, 2_000);
        let spread = UploadHistory::new(full.pieces(), sent, 2, consumers);
        provider.handle_message(Moment::default(), &request(0, 4)).unwrap();
        let first: Vec<_> = std::iter::from_fn(|| provider.next_answer(held, &spread, NOW)).collect();
        provider.handle_message(Moment::default(), &request(1, 2)).unwrap();
        let again: Vec<_> = std::iter::from_fn(|| provider.next_answer(held, &spread, NOW)).collect();
        (first, again)
    };
    let busy = |index| PieceAnswer::Reject(PieceIndex(index), RejectCode::Busy);
    let piece = |index| PieceAnswer::Piece(PieceIndex(index));
    let insists = vec![piece(1), piece(2)];
    assert_eq!(answers(&full, 2), (vec![busy(1), busy(2), piece(0), piece(3)], insists.clone()));
    let all = vec![piece(0), piece(3), piece(1), piece(2)];
    assert_eq!(answers(&full, 1), (all.clone(), insists.clone()), "a single consumer is not deferred");
    let mut part = full.clone();
    part.remove(PieceIndex(4));
    assert_eq!(answers(&part, 2), (all, insists), "consumers of a partial holder request the rarest anyway");
}

#[test]
fn a_consumer_without_other_pieces_to_request_is_deferred_a_limited_number_of_times() {
    let mut provider = open_provider(1_000, 2_000);
    let held = Bitfield::full(PieceCount(1_000));
    let new = Cell::new(1_000);
    let spread =
        UploadHistory::new(held.pieces(), |index: PieceIndex| u32::from(index.0 != new.get()), 999, 2);
    let mut busy = |first| {
        provider.handle_message(Moment::default(), &request(first, REQUEST_MAX_PIECES)).unwrap();
        let answers = std::iter::from_fn(|| provider.next_answer(&held, &spread, NOW));
        answers.filter(|answer| matches!(answer, PieceAnswer::Reject(_, RejectCode::Busy))).count()
    };
    assert_eq!(busy(0) + busy(100) + busy(200), DEFERRED_MAX);
    assert_eq!(busy(300), 0);
    new.set(400);
    assert_eq!(
        busy(400),
        REQUEST_MAX_PIECES as usize - 1,
        "a piece that was not sent yet starts the count anew"
    );
}

#[test]
fn greedy_requests_are_violations() {
    for (first, count) in [(0, 0), (9, 2), (0, REQUEST_MAX_PIECES + 1), (u32::MAX, 2)] {
        assert_eq!(
            open_provider(10, 2_000).handle_message(Moment::default(), &request(first, count)),
            Err(Violation::Pieces),
            "{first} {count}"
        );
    }
    let mut provider = open_provider(1_000, 2_000);
    for _ in 0..OUTSTANDING_MAX_PIECES / REQUEST_MAX_PIECES {
        provider.handle_message(Moment::default(), &request(0, REQUEST_MAX_PIECES)).unwrap();
    }
    assert_eq!(provider.handle_message(Moment::default(), &request(0, 1)), Err(Violation::Pieces));
    assert_eq!(
        provider.handle_message(
            Moment::default(),
            &Message::Have { ranges: vec![WireRange { first: 0, last: 1 }] }
        ),
        Err(Violation::OutOfTurn)
    );
}

#[test]
fn pieces_are_sent_until_the_ticket_expires_and_again_after_a_renewal() {
    let held = Bitfield::full(PieceCount(10));
    let late = UnixSeconds(5_000);
    let mut provider = open_provider(10, 2_000);
    provider.handle_message(Moment::default(), &request(0, 1)).unwrap();
    assert_eq!(drain(&mut provider, &held, late), [PieceAnswer::Reject(PieceIndex(0), RejectCode::Expired)]);
    let fresh = Ticket::sign(grant(6_000), &trackers());
    provider.handle_message(Moment::default(), &Message::Renew { ticket: fresh }).unwrap();
    provider.handle_message(Moment::default(), &request(0, 1)).unwrap();
    assert_eq!(drain(&mut provider, &held, late), [PieceAnswer::Piece(PieceIndex(0))]);

    let other = Ticket::sign(Grant { file_id: Digest([8; 20]), ..grant(9_000) }, &trackers());
    assert_eq!(
        provider.handle_message(Moment::default(), &Message::Renew { ticket: other }),
        Err(Violation::Identity)
    );
    let forged = Ticket::sign(grant(9_000), &secret(66));
    assert_eq!(
        provider.handle_message(Moment::default(), &Message::Renew { ticket: forged }),
        Err(Violation::Identity)
    );
}

#[test]
fn renewals_and_cancellations_in_a_loop_end_the_connection() {
    let ticket = Ticket::sign(grant(3_000), &trackers());
    let renew = Message::Renew { ticket };
    let mut session = ProviderSession::new(grant(2_000), trackers().tracker_key(), geometry(8));
    let at = |count: u32| Moment::default().plus_ms(u64::from(count) * RENEWAL_EVERY_MS);
    for count in 0..10 * RENEWALS_BURST {
        assert_eq!(session.handle_message(at(count), &renew), Ok(None), "one now and then");
    }
    let now = at(20 * RENEWALS_BURST);
    for _ in 0..RENEWALS_BURST {
        assert_eq!(session.handle_message(now, &renew), Ok(None));
    }
    assert_eq!(session.handle_message(now, &renew), Err(Violation::TooOften));

    let request = Message::Request { first: PieceIndex(0), count: PieceCount(3) };
    let cancel = Message::Cancel { first: PieceIndex(0), count: PieceCount(3) };
    session.handle_message(now, &request).unwrap();
    for _ in 0..CANCELS_PER_REQUEST {
        assert_eq!(session.handle_message(now, &cancel), Ok(None));
    }
    assert_eq!(session.handle_message(now, &cancel), Err(Violation::TooOften));
}
