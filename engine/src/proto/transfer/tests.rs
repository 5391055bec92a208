//! Simulated swarms: one transfer against providers with links of their own, some of them hostile, in virtual time.

use std::collections::VecDeque;

use super::super::frame::{RefusedCode, RejectCode};
use super::super::manifest::FileName;
use super::super::session::{Answer, Provider};
use super::super::ticket::{Grant, PeerKey, SecretKey, UnixSeconds};
use super::super::units::{ChainState, Digest, PIECE_BYTES};
use super::*;

/// How a simulated peer behaves.
#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Honest,
    /// Sends wrong bytes, always.
    Corrupt,
    /// Takes requests and never answers.
    Silent,
    /// Goes away for good after so many pieces.
    Vanishing(u32),
    /// Rejects all that it is asked for.
    Rejecting,
    /// Refuses to open.
    Refusing,
}

struct Peer {
    address: PeerAddress,
    behaviour: Behaviour,
    has: Bitfield,
    /// Milliseconds that a piece takes on its link.
    piece_ms: u64,
    free_at: u64,
    served: u32,
}

struct Swarm {
    transfer: Transfer,
    peers: Vec<Peer>,
    links: BTreeMap<ConnectionId, (usize, Provider)>,
    arrivals: VecDeque<(u64, ConnectionId, Answer)>,
    ms: u64,
    /// The piece whose link does not hold.
    bad_link: Option<PieceIndex>,
}

fn manifest(pieces: u32, chain: bool) -> Arc<Manifest> {
    let digests = (0..pieces).map(|index| Digest([u8::try_from(index % 251).unwrap(); 20])).collect();
    with_digests(digests, chain)
}

/// Digests that are all different unless the test says otherwise.
fn distinct(pieces: u32) -> Arc<Manifest> {
    let digest = |index: u32| {
        let mut digest = [7; 20];
        digest[..4].copy_from_slice(&index.to_le_bytes());
        Digest(digest)
    };
    with_digests((0..pieces).map(digest).collect(), true)
}

fn with_digests(digests: Vec<Digest>, chain: bool) -> Arc<Manifest> {
    let pieces = digests.len();
    let chain = chain.then(|| vec![ChainState::INITIAL; pieces - 1]);
    let length = u64::from(PIECE_BYTES) * pieces as u64;
    let name = FileName::new("f").unwrap();
    Arc::new(Manifest::new(name, Some(length), digests, FileProof::Whole(Digest([9; 20])), chain).unwrap())
}

impl Swarm {
    fn new(manifest: &Arc<Manifest>, peers: &[(Behaviour, u64)]) -> Swarm {
        let peers = peers.iter().enumerate().map(|(at, (behaviour, piece_ms))| Peer {
            address: PeerAddress {
                address: ([10, 0, 0, 1], 1_000 + u16::try_from(at).unwrap()).into(),
                key: PeerKey([u8::try_from(at).unwrap(); 32]),
            },
            behaviour: *behaviour,
            has: Bitfield::full(manifest.pieces()),
            piece_ms: *piece_ms,
            free_at: 0,
            served: 0,
        });
        let mut swarm = Swarm {
            transfer: Transfer::new(Arc::clone(manifest), 11, Moment::default()),
            peers: peers.collect(),
            links: BTreeMap::new(),
            arrivals: VecDeque::new(),
            ms: 0,
            bad_link: None,
        };
        let addresses: Vec<_> = swarm.peers.iter().map(|peer| peer.address).collect();
        swarm.transfer.offer(Moment::default(), &addresses);
        swarm
    }

    fn now(&self) -> Moment {
        Moment::default().plus_ms(self.ms)
    }

    /// Runs until everything is held or `until_ms` has passed.
    fn run(&mut self, until_ms: u64) -> &mut Swarm {
        while self.ms < until_ms && !self.transfer.held().is_full() {
            self.carry_out();
            self.serve();
            self.deliver();
            self.ms += 1;
            if self.ms.is_multiple_of(100) {
                self.transfer.poll(self.now());
            }
        }
        self
    }

    fn carry_out(&mut self) {
        for action in self.transfer.take_actions() {
            match action {
                Action::Connect { connection, peer } => self.connect(connection, peer),
                Action::Send { connection, message } => {
                    if let Some((_, provider)) = self.links.get_mut(&connection) {
                        provider.message(&message).unwrap();
                    }
                }
                Action::Close { connection, .. } => {
                    self.links.remove(&connection);
                }
            }
        }
    }

    fn connect(&mut self, connection: ConnectionId, at: PeerAddress) {
        let number = self.peers.iter().position(|peer| peer.address == at).unwrap();
        let (now, peer) = (self.now(), &self.peers[number]);
        match peer.behaviour {
            Behaviour::Refusing => {
                self.transfer.closed(now, connection, &Ending::Refused(RefusedCode::NotShared));
            }
            Behaviour::Vanishing(after) if peer.served >= after => {
                self.transfer.closed(now, connection, &Ending::Lost);
            }
            _ => {
                let grant = Grant {
                    user: String::new(),
                    group: String::new(),
                    file_name: String::new(),
                    file_id: Digest([0; 20]),
                    peer_key: at.key,
                    expires: UnixSeconds(9),
                };
                let geometry = self.transfer.geometry();
                let provider = Provider::new(grant, SecretKey::from_seed(&[0; 32]).tracker_key(), geometry);
                self.links.insert(connection, (number, provider));
                let holding = Holding { length: geometry.length(), pieces: peer.has.clone() };
                self.transfer.opened(now, connection, holding);
            }
        }
    }

    /// Puts one answer of each connection on its peer's link whenever that is free.
    fn serve(&mut self) {
        let mut gone = Vec::new();
        for (connection, (number, provider)) in &mut self.links {
            let peer = &mut self.peers[*number];
            if peer.behaviour == Behaviour::Silent || peer.free_at > self.ms {
                continue;
            }
            let Some(answer) = provider.next_answer(&peer.has, |_| 0, UnixSeconds(0)) else { continue };
            match (peer.behaviour, answer) {
                (Behaviour::Rejecting, Answer::Piece(index)) => {
                    self.arrivals.push_back((
                        self.ms,
                        *connection,
                        Answer::Reject(index, RejectCode::NotHeld),
                    ));
                }
                (Behaviour::Vanishing(after), Answer::Piece(_)) if peer.served >= after => {
                    gone.push(*connection);
                }
                (_, Answer::Reject(..)) => self.arrivals.push_back((self.ms, *connection, answer)),
                (_, Answer::Piece(_)) => {
                    peer.free_at = self.ms + peer.piece_ms;
                    peer.served += 1;
                    self.arrivals.push_back((peer.free_at, *connection, answer));
                }
            }
        }
        for connection in gone {
            self.links.remove(&connection);
            self.transfer.closed(self.now(), connection, &Ending::Lost);
        }
    }

    fn deliver(&mut self) {
        let due: Vec<_> = self.arrivals.iter().filter(|(at, ..)| *at <= self.ms).copied().collect();
        self.arrivals.retain(|(at, ..)| *at > self.ms);
        for (_, connection, answer) in due {
            let Some((number, _)) = self.links.get(&connection) else { continue };
            let corrupt = self.peers[*number].behaviour == Behaviour::Corrupt;
            let now = self.now();
            match answer {
                Answer::Reject(index, code) => {
                    let message = Message::Reject { index, code };
                    assert_eq!(self.transfer.message(now, connection, &message), Ok(true));
                }
                Answer::Piece(index) => self.land(now, connection, index, corrupt),
            }
        }
    }

    fn land(&mut self, now: Moment, connection: ConnectionId, index: PieceIndex, corrupt: bool) {
        self.transfer.piece_begins(connection, index, PIECE_BYTES).unwrap();
        self.transfer.bytes(now, connection, u64::from(PIECE_BYTES));
        if let Some(job) = self.transfer.landed(now, connection, index) {
            let finding = Finding { digest_holds: !corrupt, links_hold: self.bad_link != Some(index) };
            if self.transfer.judged(now, &job, finding) {
                self.transfer.written(&job);
            }
        }
    }

    fn served(&self) -> u32 {
        self.peers.iter().map(|peer| peer.served).sum()
    }
}

#[test]
fn three_seeders_share_the_work_by_their_speed() {
    let mut swarm = Swarm::new(
        &distinct(1_000),
        &[(Behaviour::Honest, 1), (Behaviour::Honest, 1), (Behaviour::Honest, 8)],
    );
    swarm.run(60_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
    assert!(swarm.ms < 600, "the limit is 471 ms, this took {}", swarm.ms);
    assert!(swarm.served() <= 1_000 + 1_000 / 200, "{} pieces crossed the links", swarm.served());
}

#[test]
fn equal_pieces_cross_the_wire_once() {
    let mut swarm = Swarm::new(&manifest(502, true), &[(Behaviour::Honest, 1)]);
    swarm.run(60_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
    assert_eq!(swarm.served(), 251);
    assert_eq!(swarm.transfer.counts().verified_bytes, 502 * u64::from(PIECE_BYTES));
}

#[test]
fn a_peer_of_bad_pieces_is_dropped_after_the_second_and_named() {
    let mut swarm = Swarm::new(&distinct(200), &[(Behaviour::Corrupt, 1), (Behaviour::Honest, 4)]);
    swarm.run(60_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
    assert_eq!(swarm.transfer.take_dropped(), [swarm.peers[0].address]);
}

#[test]
fn with_nobody_but_a_corrupt_peer_it_says_so() {
    let mut swarm = Swarm::new(&distinct(20), &[(Behaviour::Corrupt, 1)]);
    swarm.run(5_000);
    let expected =
        Standing::NoPeers { missing: PieceCount(20), first: PieceIndex(0), after_bad_pieces: true };
    assert_eq!(swarm.transfer.standing(), expected);
}

#[test]
fn a_silent_peer_loses_its_requests() {
    let mut swarm = Swarm::new(&distinct(100), &[(Behaviour::Silent, 1), (Behaviour::Honest, 1)]);
    swarm.run(60_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
    assert!(swarm.ms < 5_000, "{} ms", swarm.ms);
}

#[test]
fn when_the_last_source_vanishes_it_waits_and_goes_on() {
    let mut swarm = Swarm::new(
        &distinct(100),
        &[(Behaviour::Vanishing(30), 1), (Behaviour::Rejecting, 1), (Behaviour::Refusing, 1)],
    );
    swarm.run(20_000);
    let Standing::NoPeers { missing, after_bad_pieces: false, .. } = swarm.transfer.standing() else {
        panic!("{:?}", swarm.transfer.standing());
    };
    assert!((70..80).contains(&missing.0), "30 were served, and what was under way is lost: {missing}");
    swarm.peers[0].behaviour = Behaviour::Honest;
    swarm.run(60_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
}

#[test]
fn a_rejecting_peer_is_not_asked_in_a_circle() {
    let mut swarm = Swarm::new(&distinct(50), &[(Behaviour::Rejecting, 1)]);
    swarm.run(10_000);
    assert_eq!(swarm.transfer.counts().received_bytes, 0);
    assert!(swarm.arrivals.is_empty());
    assert!(matches!(swarm.transfer.standing(), Standing::NoPeers { .. }));
}

#[test]
fn partial_holders_are_asked_as_they_gain() {
    let manifest = distinct(10);
    let mut swarm = Swarm::new(&manifest, &[(Behaviour::Honest, 1)]);
    swarm.peers[0].has = Bitfield::empty(manifest.pieces());
    swarm.peers[0].has.insert(PieceIndex(3));
    swarm.run(1_000);
    assert_eq!(swarm.transfer.held().iter().collect::<Vec<_>>(), [PieceIndex(3)]);
    assert!(matches!(swarm.transfer.standing(), Standing::NoPeers { .. }));
    swarm.peers[0].has = Bitfield::full(manifest.pieces());
    let have = Message::Have { ranges: vec![PieceRange::new(PieceIndex(0), PieceIndex(9)).unwrap().into()] };
    for connection in swarm.links.keys().copied().collect::<Vec<_>>() {
        let now = swarm.now();
        assert_eq!(swarm.transfer.message(now, connection, &have), Ok(true));
    }
    swarm.run(2_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
}

#[test]
fn holding_stops_everything_until_it_ends() {
    let mut swarm = Swarm::new(&distinct(500), &[(Behaviour::Honest, 1)]);
    swarm.run(100);
    swarm.transfer.hold(swarm.now());
    let held = swarm.transfer.held().count();
    swarm.run(5_000);
    assert_eq!(swarm.transfer.held().count(), held);
    swarm.transfer.resume(swarm.now());
    swarm.run(10_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
}

#[test]
fn a_bad_link_discards_the_chain_and_blames_nobody() {
    let mut swarm = Swarm::new(&distinct(3), &[(Behaviour::Honest, 1)]);
    swarm.bad_link = Some(PieceIndex(1));
    swarm.run(5_000);
    assert_eq!(swarm.transfer.standing(), Standing::Unproven);
    assert_eq!(swarm.transfer.take_dropped(), []);
}

#[test]
fn pieces_that_nobody_asked_for_are_violations() {
    let mut swarm = Swarm::new(&distinct(3), &[(Behaviour::Honest, 1)]);
    swarm.carry_out();
    let now = swarm.now();
    let connection = *swarm.links.keys().next().unwrap();
    swarm.transfer.piece_begins(connection, PieceIndex(0), PIECE_BYTES).unwrap();
    let unasked = Err(Violation::Unasked(PieceIndex(0)));
    assert_eq!(swarm.transfer.piece_begins(connection, PieceIndex(0), 5), unasked);
    swarm.transfer.landed(now, connection, PieceIndex(0)).unwrap();
    assert_eq!(swarm.transfer.piece_begins(connection, PieceIndex(0), PIECE_BYTES), unasked);
    let cancelled = Message::Reject { index: PieceIndex(1), code: RejectCode::Cancelled };
    assert_eq!(swarm.transfer.message(now, connection, &cancelled), Err(Violation::Unasked(PieceIndex(1))));
    let past_end = Message::Have { ranges: vec![super::super::frame::WireRange { first: 0, last: 3 }] };
    assert_eq!(swarm.transfer.message(now, connection, &past_end), Err(Violation::Pieces));
    assert_eq!(swarm.transfer.message(now, connection, &Message::Bye { code: ByeCode::Shutdown }), Ok(false));
}

#[test]
fn a_piece_that_a_violator_owed_is_fetched_elsewhere() {
    let mut swarm = Swarm::new(&distinct(30), &[(Behaviour::Silent, 1), (Behaviour::Honest, 1)]);
    swarm.carry_out();
    let now = swarm.now();
    let violator = *swarm.links.iter().find(|(_, link)| link.0 == 0).unwrap().0;
    let index = *swarm.transfer.connections[&violator].open.as_ref().unwrap().owes.keys().next().unwrap();
    let cancelled = Message::Reject { index, code: RejectCode::Cancelled };
    let violation = swarm.transfer.message(now, violator, &cancelled).unwrap_err();
    swarm.links.remove(&violator);
    swarm.transfer.closed(now, violator, &Ending::Violated(violation));
    assert_eq!(swarm.transfer.piece_begins(violator, index, u32::MAX), Err(Violation::Unasked(index)));
    swarm.run(10_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
}

#[test]
fn who_hangs_up_before_its_pieces_are_judged_answers_for_them() {
    let mut swarm = Swarm::new(&distinct(9), &[(Behaviour::Honest, 1)]);
    swarm.carry_out();
    let now = swarm.now();
    let connection = *swarm.links.keys().next().unwrap();
    let jobs = [0, 1].map(|index| swarm.transfer.landed(now, connection, PieceIndex(index)).unwrap());
    swarm.transfer.closed(now, connection, &Ending::Lost);
    let finding = Finding { digest_holds: false, links_hold: false };
    for job in &jobs {
        assert!(!swarm.transfer.judged(now, job, finding));
    }
    assert_eq!(swarm.transfer.take_dropped(), [swarm.peers[0].address]);
}

#[test]
fn whoever_crawls_loses_its_pieces_to_one_with_nothing_to_do() {
    // The first has all requests before the second is known, and needs an hour for each piece.
    const HOUR_MS: u64 = 3_600_000;
    let mut swarm = Swarm::new(&distinct(20), &[(Behaviour::Honest, HOUR_MS), (Behaviour::Honest, 1)]);
    let late = swarm.peers[1].address;
    swarm.transfer = Transfer::new(distinct(20), 1, swarm.now());
    swarm.transfer.offer(swarm.now(), &[swarm.peers[0].address]);
    while swarm.ms < 20_000 && !swarm.transfer.held().is_full() {
        let until_ms = swarm.ms + 100;
        swarm.run(until_ms);
        let now = swarm.now();
        // It drips.
        for connection in swarm.links.iter().filter(|(_, link)| link.0 == 0).map(|(id, _)| *id) {
            swarm.transfer.bytes(now, connection, 1);
        }
        if swarm.ms == 1_000 {
            swarm.transfer.offer(now, &[late]);
        }
    }
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
}

#[test]
fn the_first_peers_have_a_moment_to_be_named() {
    let start = Moment::default();
    let mut transfer = Transfer::new(distinct(3), 1, start);
    transfer.poll(start.plus_ms(FIRST_OFFER_MS - 1));
    assert_eq!(transfer.standing(), Standing::Moving);
    transfer.poll(start.plus_ms(FIRST_OFFER_MS));
    assert!(matches!(transfer.standing(), Standing::NoPeers { .. }));
}

#[test]
fn a_ticket_that_expired_on_an_open_connection_is_what_is_missing() {
    let mut swarm = Swarm::new(&distinct(30), &[(Behaviour::Honest, 1)]);
    swarm.carry_out();
    let connection = *swarm.links.keys().next().unwrap();
    let index = *swarm.transfer.connections[&connection].open.as_ref().unwrap().owes.keys().next().unwrap();
    let expired = Message::Reject { index, code: RejectCode::Expired };
    let now = swarm.now();
    assert_eq!(swarm.transfer.message(now, connection, &expired), Ok(true));
    let close = Action::Close { connection, code: ByeCode::Expired };
    assert!(swarm.transfer.take_actions().contains(&close));
    for other in swarm.transfer.connections.keys().copied().collect::<Vec<_>>() {
        swarm.transfer.closed(now, other, &Ending::Refused(RefusedCode::Expired));
    }
    assert_eq!(swarm.transfer.standing(), Standing::TicketRefused);
}

#[test]
fn an_empty_file_needs_nobody() {
    let name = FileName::new("f").unwrap();
    let whole = FileProof::Whole(super::super::manifest::EMPTY_DIGEST);
    let empty = Arc::new(Manifest::new(name, Some(0), vec![], whole, None).unwrap());
    let mut transfer = Transfer::new(empty, 1, Moment::default());
    assert_eq!(transfer.standing(), Standing::Proven);
    transfer.poll(Moment::default());
    assert_eq!(transfer.take_actions(), []);
}

#[test]
fn what_was_there_is_gained_and_not_fetched() {
    let manifest = manifest(502, true);
    let mut swarm = Swarm::new(&manifest, &[(Behaviour::Honest, 1)]);
    let mut pieces = Bitfield::empty(manifest.pieces());
    for index in 0..100 {
        pieces.insert(PieceIndex(index));
    }
    for (links_hold, standing) in [(true, Standing::Proven), (false, Standing::Unproven)] {
        let held = Held { pieces: pieces.clone(), links_hold, length: None };
        swarm.transfer = Transfer::resumed(Arc::clone(&manifest), &held, 11, Moment::default());
        swarm.transfer.hold(swarm.now());
        swarm.transfer.found(PieceIndex(100), true);
        swarm.transfer.all_found();
        let address = swarm.peers[0].address;
        swarm.transfer.offer(swarm.now(), &[address]);
        assert_eq!(swarm.transfer.take_actions(), [], "nobody is called before the search is over");
        assert_eq!(swarm.transfer.take_gained(), [PieceRange::new(PieceIndex(0), PieceIndex(100)).unwrap()]);
        assert_eq!(swarm.transfer.to_copy().len(), 101, "each of them has a twin");
        swarm.transfer.resume(swarm.now());
        let served = swarm.served();
        swarm.ms = 0;
        swarm.peers[0].free_at = 0;
        swarm.links.clear();
        swarm.run(60_000);
        assert_eq!(swarm.transfer.standing(), standing);
        assert_eq!(swarm.served() - served, 251, "of each content one piece is missing");
    }
}

#[test]
fn what_the_disk_lost_is_fetched_again() {
    let mut swarm = Swarm::new(&distinct(40), &[(Behaviour::Honest, 1)]);
    swarm.run(60_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
    let lost = [PieceIndex(3), PieceIndex(39)];
    assert!(!swarm.transfer.lose(&lost), "only on hold");
    swarm.transfer.hold(swarm.now());
    let bytes = swarm.transfer.counts().verified_bytes;
    assert!(swarm.transfer.lose(&lost));
    assert!(swarm.transfer.counts().verified_bytes < bytes);
    assert!(!swarm.transfer.held().has(lost[0]));
    let served = swarm.served();
    swarm.transfer.resume(swarm.now());
    swarm.run(120_000);
    assert_eq!(swarm.transfer.standing(), Standing::Proven);
    assert_eq!((swarm.served() - served, swarm.transfer.counts().verified_bytes), (2, bytes));
}
