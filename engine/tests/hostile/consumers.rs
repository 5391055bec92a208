//! A real seeder against consumers that misbehave: without a valid ticket they get no byte of a piece, with one no more than
//! they may, and an honest leecher gets the file all the same.

use std::sync::Arc;

use engine::config::IoChoice;
use engine::proto::codec;
use engine::proto::frame::{ByeCode, Message, RefusedCode, RejectCode, WireRange};
use engine::proto::limits::{
    CONNECTIONS_PER_PEER, OUTSTANDING_MAX_PIECES, RENEWALS_BURST, REQUEST_MAX_PIECES, UNAUTHENTICATED_MAX,
};
use engine::proto::manifest::Manifest;
use engine::proto::ticket::{Grant, SecretKey, Ticket, UnixSeconds};
use engine::proto::units::{PieceCount, PieceIndex};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::PIECE;
use crate::rig::{Node, Patience, back_ends, bytes, durable, far_future, ticket, trackers};
use crate::scripted_consumer::ScriptedConsumer;
use crate::wire::{Wire, assert_no_worker_panicked, watch_workers};

/// Pieces of the served file: more than one request can name.
const PIECES: u32 = REQUEST_MAX_PIECES + 6;

/// A seeder with one file, and an honest leecher.
struct ConsumerFixture {
    seeder: Node,
    leecher: Node,
    content: Vec<u8>,
    manifest: Arc<Manifest>,
}

/// A fixture for each back end.
fn fixtures() -> Vec<ConsumerFixture> {
    watch_workers();
    back_ends().into_iter().map(ConsumerFixture::with_io).collect()
}

impl ConsumerFixture {
    fn with_io(io: IoChoice) -> ConsumerFixture {
        let (seeder, leecher) = (Node::start(1, io), Node::start(2, io));
        let content = bytes(PIECES as usize * PIECE - 9, 31);
        let manifest = seeder.upload("f", &content);
        ConsumerFixture { seeder, leecher, content, manifest }
    }

    fn greeted(&self) -> ScriptedConsumer {
        ScriptedConsumer::greeted(&self.seeder, 77)
    }

    fn opened(&self) -> ScriptedConsumer {
        ScriptedConsumer::opened(&self.seeder, 77, &self.manifest)
    }

    fn sent_bytes(&self) -> u64 {
        self.seeder.engine.shares()[0].sent_bytes
    }

    /// An honest leecher gets the file.
    fn honest_fetch(&self) {
        durable(&self.leecher.fetch(&self.manifest, &[&self.seeder]));
        assert!(std::fs::read(self.leecher.path("f")).unwrap() == self.content);
        assert_no_worker_panicked();
    }
}

#[test]
fn a_connection_without_an_open_gets_nothing() {
    for fixture in fixtures() {
        let request = Message::Request { first: PieceIndex(0), count: PieceCount(1) };
        let openings = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            u32::MAX.to_le_bytes().to_vec(),
            [3u32.to_le_bytes().to_vec(), vec![0xFF; 3]].concat(),
            vec![0; 100],
            codec::encode_message(&request),
            codec::encode_message(&Message::Renew { ticket: Ticket(vec![1; 200]) }),
            codec::encode_message(&Message::Have { ranges: vec![WireRange { first: 0, last: u32::MAX }] }),
            Vec::new(),
        ];
        for opening in openings {
            let mut wire = Wire::connect(fixture.seeder.engine.listen_address());
            wire.raw(&opening).unwrap();
            wire.half_close();
            let received = wire.drain();
            assert_eq!(received.pieces, 0);
            let told = |message: &Message| {
                matches!(
                    message,
                    Message::Greeting { .. } | Message::Refused { code: RefusedCode::Protocol, .. }
                )
            };
            assert!(received.messages.iter().all(told), "{:?}", received.messages);
        }
        assert_eq!(fixture.sent_bytes(), 0);
        fixture.honest_fetch();
        // A request is repeated when its answer is late.
        assert!(
            fixture.sent_bytes() >= fixture.content.len() as u64,
            "the honest leecher's bytes are counted"
        );
    }
}

#[test]
fn invalid_tickets_are_refused() {
    for fixture in fixtures() {
        let own = SecretKey::from_seed(&[77; 32]).peer_key();
        let grant = |change: &dyn Fn(&mut Grant)| {
            let right = ticket(&fixture.manifest, own, far_future());
            let mut grant = right.verify(trackers().tracker_key()).unwrap();
            change(&mut grant);
            grant
        };
        let signed = |change: &dyn Fn(&mut Grant)| Ticket::sign(grant(change), &trackers());
        let forged = Ticket::sign(grant(&|_| {}), &SecretKey::from_seed(&[99; 32]));
        let stolen = ticket(&fixture.manifest, SecretKey::from_seed(&[78; 32]).peer_key(), far_future());
        let mut damaged = ticket(&fixture.manifest, own, far_future());
        *damaged.0.last_mut().unwrap() ^= 1;
        let cases = [
            (forged, RefusedCode::Ticket),
            (stolen, RefusedCode::Ticket),
            (damaged, RefusedCode::Ticket),
            (Ticket(Vec::new()), RefusedCode::Ticket),
            (signed(&|grant| grant.expires = UnixSeconds(1_000)), RefusedCode::Expired),
            (signed(&|grant| grant.file_name = "another".into()), RefusedCode::NotShared),
            (signed(&|grant| grant.group = "another".into()), RefusedCode::NotShared),
            (signed(&|grant| grant.file_name = "../f".into()), RefusedCode::Ticket),
            (signed(&|grant| grant.file_id.0[0] ^= 1), RefusedCode::OtherDigest),
        ];
        for (ticket, expected) in cases {
            let mut consumer = fixture.greeted();
            let answer = consumer.open(&ticket);
            assert!(matches!(answer, Message::Refused { code, .. } if code == expected), "{answer:?}");
            consumer.request(0, 1);
            assert_eq!(consumer.wire.drain().pieces, 0);
        }
        assert_eq!(fixture.sent_bytes(), 0);
        fixture.honest_fetch();
    }
}

#[test]
fn an_open_is_valid_for_one_connection_to_one_provider() {
    for fixture in fixtures() {
        let other = fixture.leecher.upload("elsewhere", &bytes(PIECE, 5));
        let first = fixture.greeted();
        let replayed = first.open_message(&first.valid_ticket(&fixture.manifest));
        let elsewhere = ScriptedConsumer::greeted(&fixture.leecher, 77);
        let relayed = elsewhere.open_message(&elsewhere.valid_ticket(&other));
        for stolen in [replayed, relayed] {
            let mut consumer = fixture.greeted();
            consumer.wire.send(&stolen).unwrap();
            let received = consumer.wire.drain();
            let code = RefusedCode::Ticket;
            assert!(
                matches!(received.messages[..], [Message::Refused { code: got, .. }] if got == code),
                "{received:?}"
            );
        }
        assert_eq!(fixture.sent_bytes(), 0);
        fixture.honest_fetch();
    }
}

#[test]
fn a_connection_beyond_the_limit_of_one_key_is_refused_as_busy() {
    for fixture in fixtures() {
        let mut consumers: Vec<ScriptedConsumer> =
            (0..CONNECTIONS_PER_PEER).map(|_| fixture.opened()).collect();
        let mut fifth = fixture.greeted();
        let answer = fifth.open(&fifth.valid_ticket(&fixture.manifest));
        assert!(matches!(answer, Message::Refused { code: RefusedCode::Busy, .. }), "{answer:?}");
        fixture.honest_fetch();
        // A closed connection frees its slot.
        consumers.pop().unwrap().wire.drain_after_leaving();
        let left = Patience::new();
        loop {
            assert!(left.is_left(), "the slot does not become free");
            let mut again = fixture.greeted();
            match again.open(&again.valid_ticket(&fixture.manifest)) {
                Message::Opened { .. } => break,
                Message::Refused { code: RefusedCode::Busy, .. } => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn requests_that_no_honest_consumer_sends_end_the_connection() {
    for fixture in fixtures() {
        let asked = [(0, 0), (0, REQUEST_MAX_PIECES + 1), (PIECES, 1), (PIECES - 1, 2), (u32::MAX, 1)];
        for (first, count) in asked {
            let mut consumer = fixture.opened();
            consumer.request(first, count);
            let received = consumer.wire.drain();
            assert_eq!(received.pieces, 0, "{first} and {count} pieces");
        }
        let out_of_turn = [
            Message::Have { ranges: Vec::new() },
            Message::Piece { index: PieceIndex(0), length: 1 },
            Message::Reject { index: PieceIndex(0), code: RejectCode::Busy },
        ];
        for message in out_of_turn {
            let mut consumer = fixture.opened();
            consumer.wire.send(&message).unwrap();
            assert_eq!(consumer.wire.drain().pieces, 0);
        }
        assert_eq!(fixture.sent_bytes(), 0);
        fixture.honest_fetch();
    }
}

#[test]
fn too_many_outstanding_requests_end_the_connection() {
    for fixture in fixtures() {
        let mut consumer = fixture.opened();
        // Nothing is read meanwhile, so that the requests stay outstanding.
        for _ in 0..3 * OUTSTANDING_MAX_PIECES / REQUEST_MAX_PIECES {
            consumer.request(0, REQUEST_MAX_PIECES);
        }
        let received = consumer.wire.drain();
        assert!(received.pieces < OUTSTANDING_MAX_PIECES as usize, "{} pieces came", received.pieces);
        fixture.honest_fetch();
    }
}

#[test]
fn a_renewed_ticket_must_be_for_the_same_file_and_consumer() {
    for fixture in fixtures() {
        let other = fixture.leecher.upload("other", &bytes(PIECE, 5));
        let own = SecretKey::from_seed(&[77; 32]).peer_key();
        let right = ticket(&fixture.manifest, own, far_future()).verify(trackers().tracker_key()).unwrap();
        let wrong = [
            ticket(&other, own, far_future()),
            ticket(&fixture.manifest, SecretKey::from_seed(&[78; 32]).peer_key(), far_future()),
            Ticket::sign(right.clone(), &SecretKey::from_seed(&[99; 32])),
            Ticket::sign(Grant { user: "another".into(), ..right }, &trackers()),
            Ticket(vec![7; 100]),
        ];
        for ticket in wrong {
            let mut consumer = fixture.opened();
            consumer.wire.send(&Message::Renew { ticket }).unwrap();
            assert_eq!(consumer.wire.drain().pieces, 0, "the connection ends");
        }
        assert_eq!(fixture.sent_bytes(), 0);
        fixture.honest_fetch();
    }
}

#[test]
fn a_connection_ends_with_its_ticket_unless_that_was_renewed() {
    /// The tracker's time after it has jumped.
    const AFTER_THE_JUMP: UnixSeconds = UnixSeconds(1 << 40);
    for fixture in fixtures() {
        let until_the_jump = UnixSeconds(1 << 39);
        let open = |seed| {
            let mut consumer = ScriptedConsumer::greeted(&fixture.seeder, seed);
            let ticket = ticket(&fixture.manifest, consumer.secret.peer_key(), until_the_jump);
            assert!(matches!(consumer.open(&ticket), Message::Opened { .. }));
            consumer
        };
        let (mut silent, mut renewed) = (open(77), open(78));
        renewed.request(3, 1);
        let Message::Piece { index: PieceIndex(3), length } = renewed.wire.read().unwrap() else { panic!() };
        assert!(renewed.wire.piece_bytes(length).unwrap() == fixture.content[3 * PIECE..4 * PIECE]);
        let fresh = renewed.valid_ticket(&fixture.manifest);
        renewed.wire.send(&Message::Renew { ticket: fresh }).unwrap();
        // The answer shows that the ticket was read.
        renewed.request(5, 1);
        let Message::Piece { length, .. } = renewed.wire.read().unwrap() else { panic!() };
        renewed.wire.piece_bytes(length).unwrap();
        fixture.seeder.engine.set_trust(trackers().tracker_key(), AFTER_THE_JUMP);
        assert_eq!(silent.wire.drain().messages, [Message::Bye { code: ByeCode::Expired }]);
        renewed.request(4, 1);
        assert!(matches!(renewed.wire.read().unwrap(), Message::Piece { index: PieceIndex(4), .. }));
    }
}

#[test]
fn renewals_and_cancellations_in_a_loop_end_the_connection() {
    for fixture in fixtures() {
        let mut renewing = fixture.opened();
        let renew = Message::Renew { ticket: renewing.valid_ticket(&fixture.manifest) };
        let cancel = Message::Cancel { first: PieceIndex(0), count: PieceCount(1) };
        let mut cancelling = fixture.opened();
        for (consumer, message) in [(&mut renewing, renew), (&mut cancelling, cancel)] {
            for _ in 0..=RENEWALS_BURST {
                // The connection may have ended already.
                let _ = consumer.wire.send(&message);
            }
            assert_eq!(consumer.wire.drain().messages, [Message::Bye { code: ByeCode::Protocol }]);
        }
        fixture.honest_fetch();
    }
}

#[test]
fn connections_without_a_ticket_make_room_for_an_honest_leecher() {
    const CROWD: usize = UNAUTHENTICATED_MAX + 44;
    allow_descriptors(4 * CROWD as u64);
    for fixture in fixtures() {
        let mut crowd: Vec<Wire> =
            (0..CROWD).map(|_| Wire::connect(fixture.seeder.engine.listen_address())).collect();
        for wire in &mut crowd {
            assert!(matches!(wire.read().unwrap(), Message::Greeting { .. }));
        }
        fixture.honest_fetch();
        // The oldest made room. The youngest are still there, unless their time for the handshake is over.
        let told = crowd[0].drain().messages;
        assert!(matches!(told[..], [Message::Refused { code: RefusedCode::Busy, .. }]), "{told:?}");
    }
}

/// Raises this process's limit of descriptors to `count`, and as many again for other tests, as far as it may.
fn allow_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(2 * count, |most| most.min(2 * count));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
    }
}

#[test]
fn slow_handshakes_time_out() {
    for fixture in fixtures() {
        let mut silent = Wire::connect(fixture.seeder.engine.listen_address());
        let mut halfway = fixture.greeted();
        let ticket = halfway.valid_ticket(&fixture.manifest);
        let open = codec::encode_message(&halfway.open_message(&ticket));
        halfway.wire.raw(&open[..open.len() / 2]).unwrap();
        // Both handshakes time out here at the same time.
        assert_eq!(halfway.wire.drain().messages, []);
        assert_eq!(silent.drain().messages.len(), 1, "only the greeting was sent");
    }
}

#[test]
fn consumers_that_never_read_do_not_delay_others() {
    for fixture in fixtures() {
        let mut idle: Vec<ScriptedConsumer> = (70..74)
            .flat_map(|seed| (0..CONNECTIONS_PER_PEER).map(move |_| seed))
            .map(|seed| ScriptedConsumer::opened(&fixture.seeder, seed, &fixture.manifest))
            .collect();
        for consumer in &mut idle {
            consumer.request(0, REQUEST_MAX_PIECES);
            consumer.request(0, REQUEST_MAX_PIECES);
        }
        fixture.honest_fetch();
    }
}

#[test]
fn a_half_closed_connection_ends_and_frees_its_slot() {
    for fixture in fixtures() {
        for goodbye in [false, true] {
            let mut consumer = fixture.opened();
            consumer.request(0, 3);
            if goodbye {
                let code = ByeCode::Done;
                consumer.wire.send(&Message::Bye { code }).unwrap();
            }
            consumer.wire.half_close();
            assert!(consumer.wire.drain().pieces <= 3);
        }
        fixture.honest_fetch();
        let left = Patience::new();
        while fixture.seeder.engine.shares()[0].consumers > 0 {
            assert!(left.is_left(), "ended connections are still counted");
            std::thread::yield_now();
        }
    }
}

#[test]
fn connections_take_turns_under_a_limit() {
    for io in back_ends() {
        let seeder = Node::with_upload_limit(1, io, PIECE as u64 / 2);
        let manifest = seeder.upload("f", &bytes(PIECE, 32));
        let mut consumers = [77, 78].map(|seed| ScriptedConsumer::opened(&seeder, seed, &manifest));
        for consumer in &mut consumers {
            consumer.request(0, 1);
        }
        let [first, second] = &mut consumers;
        let Message::Piece { length, .. } = first.wire.read().unwrap() else {
            panic!("the answer is not a piece")
        };
        first.wire.piece_bytes(length).unwrap();
        assert!(
            second.wire.has_bytes(),
            "the second connection got nothing while the first got a whole piece"
        );
    }
}
