//! A real seeder against consumers that misbehave: strangers get no byte of a piece, members no more than they may, and
//! an honest leecher gets the file all the same.

use std::sync::Arc;

use engine::config::IoChoice;
use engine::proto::codec;
use engine::proto::frame::{Message, RefusedCode, RejectCode, WireRange};
use engine::proto::limits::{
    CONNECTIONS_PER_PEER, OUTSTANDING_MAX_PIECES, REQUEST_MAX_PIECES, UNAUTHENTICATED_MAX,
};
use engine::proto::manifest::Manifest;
use engine::proto::ticket::{Grant, SecretKey, Ticket, UnixSeconds};
use engine::proto::units::{PieceCount, PieceIndex};
use engine::stats::DownloadPhase;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::PIECE;
use crate::caller::Caller;
use crate::rig::{Node, Patience, back_ends, bytes, durable, far_future, ticket, trackers};
use crate::wire::{Wire, assert_no_worker_panicked, watch_workers};

/// Pieces of the file that is served: more than one request can name.
const PIECES: u32 = REQUEST_MAX_PIECES + 6;

/// A seeder with one file.
struct Stage {
    io: IoChoice,
    seeder: Node,
    leecher: Node,
    content: Vec<u8>,
    manifest: Arc<Manifest>,
}

/// One for each back end.
fn stages() -> Vec<Stage> {
    watch_workers();
    back_ends().into_iter().map(Stage::by).collect()
}

impl Stage {
    fn by(io: IoChoice) -> Stage {
        let (seeder, leecher) = (Node::start(1, io), Node::start(2, io));
        let content = bytes(PIECES as usize * PIECE - 9, 31);
        let manifest = seeder.upload("f", &content);
        Stage { io, seeder, leecher, content, manifest }
    }

    /// A fresh one of the same kind.
    fn again(&self) -> Stage {
        Stage::by(self.io)
    }

    fn greeted(&self) -> Caller {
        Caller::greeted(&self.seeder, 77)
    }

    fn opened(&self) -> Caller {
        Caller::opened(&self.seeder, 77, &self.manifest)
    }

    fn sent_bytes(&self) -> u64 {
        self.seeder.engine.shares()[0].sent_bytes
    }

    /// Whatever happened before, an honest leecher gets the file.
    fn honest_fetch(&self) {
        durable(&self.leecher.fetch(&self.manifest, &[&self.seeder]));
        assert!(std::fs::read(self.leecher.path("f")).unwrap() == self.content);
        assert_no_worker_panicked();
    }
}

#[test]
fn whoever_does_not_open_gets_nothing() {
    for stage in stages() {
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
            let mut wire = Wire::connect(stage.seeder.engine.listen_address());
            wire.raw(&opening).unwrap();
            wire.half_close();
            let loot = wire.drain();
            assert_eq!(loot.pieces, 0);
            let told = |message: &Message| {
                matches!(
                    message,
                    Message::Greeting { .. } | Message::Refused { code: RefusedCode::Protocol, .. }
                )
            };
            assert!(loot.messages.iter().all(told), "{:?}", loot.messages);
        }
        assert_eq!(stage.sent_bytes(), 0);
        stage.honest_fetch();
        // A request is repeated when its answer is late.
        assert!(stage.sent_bytes() >= stage.content.len() as u64, "the honest one is counted");
    }
}

#[test]
fn wrong_papers_are_refused() {
    for stage in stages() {
        let own = SecretKey::from_seed(&[77; 32]).peer_key();
        let grant = |change: &dyn Fn(&mut Grant)| {
            let right = ticket(&stage.manifest, own, far_future());
            let mut grant = right.verify(trackers().tracker_key()).unwrap();
            change(&mut grant);
            grant
        };
        let signed = |change: &dyn Fn(&mut Grant)| Ticket::sign(grant(change), &trackers());
        let forged = Ticket::sign(grant(&|_| {}), &SecretKey::from_seed(&[99; 32]));
        let stolen = ticket(&stage.manifest, SecretKey::from_seed(&[78; 32]).peer_key(), far_future());
        let mut bent = ticket(&stage.manifest, own, far_future());
        *bent.0.last_mut().unwrap() ^= 1;
        let cases = [
            (forged, RefusedCode::Ticket),
            (stolen, RefusedCode::Ticket),
            (bent, RefusedCode::Ticket),
            (Ticket(Vec::new()), RefusedCode::Ticket),
            (signed(&|grant| grant.expires = UnixSeconds(1_000)), RefusedCode::Expired),
            (signed(&|grant| grant.file_name = "another".into()), RefusedCode::NotShared),
            (signed(&|grant| grant.group = "another".into()), RefusedCode::NotShared),
            (signed(&|grant| grant.file_name = "../f".into()), RefusedCode::Ticket),
            (signed(&|grant| grant.file_id.0[0] ^= 1), RefusedCode::OtherDigest),
        ];
        for (papers, expected) in cases {
            let mut caller = stage.greeted();
            let answer = caller.open(&papers);
            assert!(matches!(answer, Message::Refused { code, .. } if code == expected), "{answer:?}");
            caller.request(0, 1);
            assert_eq!(caller.wire.drain().pieces, 0);
        }
        assert_eq!(stage.sent_bytes(), 0);
        stage.honest_fetch();
    }
}

#[test]
fn an_open_serves_one_connection_to_one_provider() {
    for stage in stages() {
        let other = stage.leecher.upload("elsewhere", &bytes(PIECE, 5));
        let first = stage.greeted();
        let replayed = first.open_message(&first.papers(&stage.manifest));
        let elsewhere = Caller::greeted(&stage.leecher, 77);
        let passed_on = elsewhere.open_message(&elsewhere.papers(&other));
        for stolen in [replayed, passed_on] {
            let mut caller = stage.greeted();
            caller.wire.send(&stolen).unwrap();
            let loot = caller.wire.drain();
            let code = RefusedCode::Ticket;
            assert!(
                matches!(loot.messages[..], [Message::Refused { code: got, .. }] if got == code),
                "{loot:?}"
            );
        }
        assert_eq!(stage.sent_bytes(), 0);
        stage.honest_fetch();
    }
}

#[test]
fn a_fifth_connection_of_one_key_is_told_busy() {
    for stage in stages() {
        let mut callers: Vec<Caller> = (0..CONNECTIONS_PER_PEER).map(|_| stage.opened()).collect();
        let mut fifth = stage.greeted();
        let answer = fifth.open(&fifth.papers(&stage.manifest));
        assert!(matches!(answer, Message::Refused { code: RefusedCode::Busy, .. }), "{answer:?}");
        stage.honest_fetch();
        // A place that was left is free again.
        callers.pop().unwrap().wire.drain_after_leaving();
        let left = Patience::new();
        loop {
            assert!(left.is_left(), "the place never becomes free");
            let mut again = stage.greeted();
            match again.open(&again.papers(&stage.manifest)) {
                Message::Opened { .. } => break,
                Message::Refused { code: RefusedCode::Busy, .. } => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn requests_that_no_honest_consumer_sends_end_the_connection() {
    for stage in stages() {
        let asked = [(0, 0), (0, REQUEST_MAX_PIECES + 1), (PIECES, 1), (PIECES - 1, 2), (u32::MAX, 1)];
        for (first, count) in asked {
            let mut caller = stage.opened();
            caller.request(first, count);
            let loot = caller.wire.drain();
            assert_eq!(loot.pieces, 0, "{first} and {count} pieces");
        }
        let out_of_turn = [
            Message::Have { ranges: Vec::new() },
            Message::Piece { index: PieceIndex(0), length: 1 },
            Message::Reject { index: PieceIndex(0), code: RejectCode::Busy },
        ];
        for message in out_of_turn {
            let mut caller = stage.opened();
            caller.wire.send(&message).unwrap();
            assert_eq!(caller.wire.drain().pieces, 0);
        }
        assert_eq!(stage.sent_bytes(), 0);
        stage.honest_fetch();
    }
}

#[test]
fn more_than_may_be_outstanding_ends_the_connection() {
    for stage in stages() {
        let mut caller = stage.opened();
        // Nothing is read meanwhile, so that what was asked for stays outstanding.
        for _ in 0..3 * OUTSTANDING_MAX_PIECES / REQUEST_MAX_PIECES {
            caller.request(0, REQUEST_MAX_PIECES);
        }
        let loot = caller.wire.drain();
        assert!(loot.pieces < OUTSTANDING_MAX_PIECES as usize, "{} pieces came", loot.pieces);
        stage.honest_fetch();
    }
}

#[test]
fn a_renewed_ticket_must_be_for_the_same_file_and_consumer() {
    for stage in stages() {
        let other = stage.leecher.upload("other", &bytes(PIECE, 5));
        let own = SecretKey::from_seed(&[77; 32]).peer_key();
        let right = ticket(&stage.manifest, own, far_future()).verify(trackers().tracker_key()).unwrap();
        let wrong = [
            ticket(&other, own, far_future()),
            ticket(&stage.manifest, SecretKey::from_seed(&[78; 32]).peer_key(), far_future()),
            Ticket::sign(right.clone(), &SecretKey::from_seed(&[99; 32])),
            Ticket::sign(Grant { user: "another".into(), ..right }, &trackers()),
            Ticket(vec![7; 100]),
        ];
        for papers in wrong {
            let mut caller = stage.opened();
            caller.wire.send(&Message::Renew { ticket: papers }).unwrap();
            assert_eq!(caller.wire.drain().pieces, 0, "the connection ends");
        }
        assert_eq!(stage.sent_bytes(), 0);
        stage.honest_fetch();
    }
}

#[test]
fn a_ticket_that_ends_while_it_is_used_can_be_renewed() {
    /// How far the trackers' clock jumps, in seconds.
    const JUMP_S: i64 = 1 << 40;
    for stage in stages() {
        let mut caller = Caller::greeted(&stage.seeder, 77);
        let before_the_jump = UnixSeconds(1 << 39);
        let papers = ticket(&stage.manifest, caller.secret.peer_key(), before_the_jump);
        assert!(matches!(caller.open(&papers), Message::Opened { .. }));
        caller.request(3, 1);
        let Message::Piece { index: PieceIndex(3), length } = caller.wire.read().unwrap() else { panic!() };
        assert!(caller.wire.piece_bytes(length).unwrap() == stage.content[3 * PIECE..4 * PIECE]);
        stage.seeder.engine.set_trust(trackers().tracker_key(), JUMP_S);
        caller.request(4, 1);
        let expired = Message::Reject { index: PieceIndex(4), code: RejectCode::Expired };
        assert_eq!(caller.wire.read().unwrap(), expired);
        let fresh = caller.papers(&stage.manifest);
        caller.wire.send(&Message::Renew { ticket: fresh }).unwrap();
        caller.request(4, 1);
        assert!(matches!(caller.wire.read().unwrap(), Message::Piece { index: PieceIndex(4), .. }));
    }
}

#[test]
fn a_crowd_of_strangers_delays_an_honest_leecher_and_no_more() {
    const CROWD: usize = UNAUTHENTICATED_MAX + 44;
    /// Rounds in which the machine was too slow for the crowd to be there at once: whoever came first was shown the door.
    const ROUNDS_MAX: u32 = 20;
    allow_descriptors(4 * CROWD as u64);
    for mut stage in stages() {
        let mut rounds = 0;
        let (crowd, download) = loop {
            rounds += 1;
            assert!(rounds <= ROUNDS_MAX, "the crowd is never there at once");
            let mut crowd: Vec<Wire> =
                (0..CROWD).map(|_| Wire::connect(stage.seeder.engine.listen_address())).collect();
            let answers: Vec<Message> = crowd.iter_mut().map(|wire| wire.read().unwrap()).collect();
            let count =
                |fits: &dyn Fn(&Message) -> bool| answers.iter().filter(|answer| fits(answer)).count();
            let greeted = count(&|answer| matches!(answer, Message::Greeting { .. }));
            let busy = count(&|answer| matches!(answer, Message::Refused { code: RefusedCode::Busy, .. }));
            assert_eq!(greeted + busy, CROWD);
            let download = stage.leecher.fetch(&stage.manifest, &[&stage.seeder]);
            let waits = |phase: &DownloadPhase| matches!(phase, DownloadPhase::Waiting(_));
            let progress =
                crate::rig::wait_for(&download, |progress| waits(&progress.phase) || progress.phase.is_end());
            let sent_bytes = stage.sent_bytes();
            // The first stranger is shown the door when the time for a handshake is over.
            let all_were_there = !crowd[0].has_ended();
            if all_were_there {
                assert_eq!((greeted, busy), (UNAUTHENTICATED_MAX, CROWD - UNAUTHENTICATED_MAX));
                assert!(waits(&progress.phase), "{progress:?}");
                assert_eq!(sent_bytes, 0, "a stranger got a byte");
                break (crowd, download);
            }
            stage = stage.again();
        };
        drop(crowd);
        durable(&download);
        assert!(stage.sent_bytes() >= stage.content.len() as u64);
    }
}

/// Lets this process have so many descriptors, and as many again for other tests, as far as it may.
fn allow_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(2 * count, |most| most.min(2 * count));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
    }
}

#[test]
fn strangers_who_dawdle_are_shown_the_door() {
    for stage in stages() {
        let mut silent = Wire::connect(stage.seeder.engine.listen_address());
        let mut halfway = stage.greeted();
        let papers = halfway.papers(&stage.manifest);
        let open = codec::encode_message(&halfway.open_message(&papers));
        halfway.wire.raw(&open[..open.len() / 2]).unwrap();
        // The handshake's whole time passes here, once for both.
        assert_eq!(halfway.wire.drain().messages, []);
        assert_eq!(silent.drain().messages.len(), 1, "a greeting, and then the end");
    }
}

#[test]
fn consumers_who_never_read_hold_up_nobody() {
    for stage in stages() {
        let mut idle: Vec<Caller> = (70..74)
            .flat_map(|seed| (0..CONNECTIONS_PER_PEER).map(move |_| seed))
            .map(|seed| Caller::opened(&stage.seeder, seed, &stage.manifest))
            .collect();
        for caller in &mut idle {
            caller.request(0, REQUEST_MAX_PIECES);
            caller.request(0, REQUEST_MAX_PIECES);
        }
        stage.honest_fetch();
    }
}

#[test]
fn a_half_closed_connection_ends_and_leaves_no_trace() {
    for stage in stages() {
        for goodbye in [false, true] {
            let mut caller = stage.opened();
            caller.request(0, 3);
            if goodbye {
                let code = engine::proto::frame::ByeCode::Done;
                caller.wire.send(&Message::Bye { code }).unwrap();
            }
            caller.wire.half_close();
            assert!(caller.wire.drain().pieces <= 3);
        }
        stage.honest_fetch();
        let left = Patience::new();
        while stage.seeder.engine.shares()[0].consumers > 0 {
            assert!(left.is_left(), "they are still counted");
            std::thread::yield_now();
        }
    }
}

#[test]
fn under_a_limit_all_connections_have_their_turn() {
    for io in back_ends() {
        let seeder = Node::sparing(1, io, PIECE as u64 / 2);
        let manifest = seeder.upload("f", &bytes(PIECE, 32));
        let mut callers = [77, 78].map(|seed| Caller::opened(&seeder, seed, &manifest));
        for caller in &mut callers {
            caller.request(0, 1);
        }
        let [first, second] = &mut callers;
        let Message::Piece { length, .. } = first.wire.read().unwrap() else {
            panic!("a piece was asked for")
        };
        first.wire.piece_bytes(length).unwrap();
        assert!(second.wire.has_bytes(), "a whole piece of another connection went first");
    }
}
