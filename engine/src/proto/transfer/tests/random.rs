//! Swarms of leechers that serve each other, from a seed, in virtual time, with faults between honest nodes: connections
//! break, with or without notice; nodes freeze; requests are refused and rejected.
//!
//! ```text
//!   Transfer of a leecher ─► delayed messages ─► Provider of a node ─► delayed answers ─► Transfer
//! ```
//!
//! Events of one connection stay in order. A frozen node does nothing and loses nothing. After `FAULTS_UNTIL_MS` there are no
//! more faults.

use std::collections::{BTreeMap, VecDeque};

use super::super::super::frame::{RefusedCode, RejectCode};
use super::super::super::limits::{CONNECTIONS_PER_PEER, HANDSHAKE_TIMEOUT_MS};
use super::super::super::session::{PieceAnswer, ProviderSession};
use super::super::super::steering::UploadHistory;
use super::super::super::ticket::{Grant, PeerKey, SecretKey, UnixSeconds};
use super::super::super::units::{Digest, PIECE_BYTES};
use super::super::*;
use super::simulated::distinct;

/// Faults happen until this time.
const FAULTS_UNTIL_MS: u64 = 30_000;

/// How long a provider goes on with a connection that was cut, until its system gives it up.
const CUT_MS: u64 = 30_000;

/// Interval in which a transfer is polled.
const POLL_MS: u64 = 100;

/// Interval in which a leecher gets a fresh ticket and the names of all nodes.
const RENEW_MS: u64 = 10_000;

/// The leecher, and its id of the connection.
type Key = (usize, ConnectionId);

/// An event at a node.
#[derive(Clone, Debug)]
enum Event {
    Poll,
    Renew,
    Resume,
    /// At the provider.
    Called(Key),
    Asked(Key, Message),
    Left(Key),
    Serve,
    /// At the leecher.
    Opened(ConnectionId, Bitfield),
    Received(ConnectionId, Message),
    PieceBegins(ConnectionId, PieceIndex),
    PieceEnds(ConnectionId, PieceIndex),
    Ended(ConnectionId, DisconnectReason),
    NotOpened(ConnectionId),
    Verified(ReceivedPiece),
}

struct Node {
    /// `None` for a seeder.
    transfer: Option<Transfer>,
    piece_ms: u64,
    serving: bool,
    frozen_until: u64,
    /// Events that came while the node was frozen.
    inbox: VecDeque<Event>,
}

struct Link {
    provider_node: usize,
    delay_ms: u64,
    provider: Option<ProviderSession>,
    announced: Bitfield,
    opened: bool,
    /// Nothing is delivered any more, and neither side is told.
    cut: bool,
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    manifest: Arc<Manifest>,
    nodes: Vec<Node>,
    links: BTreeMap<Key, Link>,
    agenda: BTreeMap<(u64, u64), (usize, Event)>,
    next_event: u64,
    ms: u64,
}

fn address(node: usize) -> PeerAddress {
    let number = u8::try_from(node).unwrap();
    PeerAddress { address: ([10, 0, 0, number], 1).into(), key: PeerKey([number; 32]) }
}

fn grant(leecher: usize) -> Grant {
    let (user, group, file_name) = Default::default();
    let peer_key = address(leecher).key;
    Grant { user, group, file_name, file_id: Digest([0; 20]), peer_key, expires: UnixSeconds(u64::MAX) }
}

fn trackers() -> SecretKey {
    SecretKey::from_seed(&[0; 32])
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let manifest = distinct(random.u32(1..300));
        let (seeders, leechers) = (random.usize(1..3), random.usize(1..5));
        let node = |is_seeder: bool, piece_ms: u64| Node {
            transfer: (!is_seeder).then(|| Transfer::new(Arc::clone(&manifest), seed, Moment::default())),
            piece_ms,
            serving: false,
            frozen_until: 0,
            inbox: VecDeque::new(),
        };
        let nodes = (0..seeders + leechers).map(|at| node(at < seeders, random.u64(1..60))).collect();
        let (links, agenda) = Default::default();
        let mut world = World { seed, manifest, nodes, links, agenda, next_event: 0, ms: 0, random };
        for leecher in seeders..seeders + leechers {
            world.schedule(0, leecher, Event::Renew);
            world.schedule(0, leecher, Event::Poll);
        }
        world
    }

    fn now(&self) -> Moment {
        Moment::default().plus_ms(self.ms)
    }

    fn schedule(&mut self, ms: u64, node: usize, event: Event) {
        self.agenda.insert((self.ms + ms, self.next_event), (node, event));
        self.next_event += 1;
    }

    fn is_done(&self) -> bool {
        let done = |transfer: &Transfer| transfer.status() == TransferStatus::Complete;
        self.nodes.iter().filter_map(|node| node.transfer.as_ref()).all(done)
    }

    /// Runs until all leechers are complete, and asserts that this is before `most_ms`.
    fn run(mut self, most_ms: u64) {
        while !self.is_done() {
            let ((ms, _), (node, event)) = self.agenda.pop_first().expect("a transfer is polled for ever");
            assert!(ms < most_ms, "seed {}: {}", self.seed, self.describe());
            self.ms = ms;
            if self.nodes[node].frozen_until > ms {
                self.nodes[node].inbox.push_back(event);
                continue;
            }
            while let Some(earlier) = self.nodes[node].inbox.pop_front() {
                self.handle_event(node, earlier);
            }
            self.handle_event(node, event);
            if ms < FAULTS_UNTIL_MS {
                self.cause_fault();
            }
        }
    }

    fn describe(&self) -> String {
        let standing = |node: &Node| node.transfer.as_ref().map(Transfer::status);
        format!("{:?}, {} links", self.nodes.iter().map(standing).collect::<Vec<_>>(), self.links.len())
    }

    /// Causes a fault now and then.
    fn cause_fault(&mut self) {
        match self.random.u32(0..600) {
            0..3 => {
                let (node, ms) = (self.random.usize(0..self.nodes.len()), self.random.u64(100..6_000));
                self.nodes[node].frozen_until = self.ms + ms;
                self.schedule(ms, node, Event::Serve);
            }
            3..8 => {
                let Some(key) = self.any_link() else { return };
                let link = &self.links[&key];
                let (provider, delay_ms) = (link.provider_node, link.delay_ms);
                self.schedule(delay_ms, key.0, Event::Ended(key.1, DisconnectReason::Lost));
                self.schedule(delay_ms, provider, Event::Left(key));
            }
            8..11 => {
                let Some(key) = self.any_link() else { return };
                let link = self.links.get_mut(&key).unwrap();
                link.cut = true;
                let provider = link.provider_node;
                self.schedule(CUT_MS, provider, Event::Left(key));
            }
            11 => {
                // The user pauses the download, or the disk is full for a moment.
                let node = self.random.usize(0..self.nodes.len());
                let now = self.now();
                if let Some(transfer) = self.nodes[node].transfer.as_mut() {
                    transfer.suspend(now);
                    self.carry_out(node);
                    let ms = self.random.u64(0..2_000);
                    self.schedule(ms, node, Event::Resume);
                }
            }
            _ => {}
        }
    }

    fn any_link(&mut self) -> Option<Key> {
        let at = self.random.usize(0..self.links.len().max(1));
        self.links.keys().nth(at).copied()
    }

    fn handle_event(&mut self, node: usize, event: Event) {
        match event {
            Event::Called(key) => self.called(node, key),
            Event::Asked(key, message) => {
                let now = self.now();
                if let Some(provider) = self.links.get_mut(&key).and_then(|link| link.provider.as_mut()) {
                    assert_eq!(provider.handle_message(now, &message), Ok(None));
                    self.wake(node);
                }
            }
            Event::Left(key) => drop(self.links.remove(&key)),
            Event::Serve => {
                self.nodes[node].serving = false;
                self.serve(node);
            }
            event => self.at_leecher(node, event),
        }
    }

    fn called(&mut self, node: usize, key: Key) {
        let same = |(other, link): (&Key, &Link)| {
            other.0 == key.0 && link.provider_node == node && link.provider.is_some()
        };
        let crowd = self.links.iter().filter(|link| same(*link)).count();
        let refused = match self.random.u32(0..20) {
            0 if self.ms < FAULTS_UNTIL_MS => Some(RefusedCode::Expired),
            1 if self.ms < FAULTS_UNTIL_MS => Some(RefusedCode::Busy),
            _ => (crowd >= CONNECTIONS_PER_PEER).then_some(RefusedCode::Busy),
        };
        let has = self.has(node);
        let geometry = self.manifest.geometry();
        let Some(link) = self.links.get_mut(&key) else { return };
        let delay_ms = link.delay_ms;
        if let Some(code) = refused {
            self.links.remove(&key);
            return self.schedule(delay_ms, key.0, Event::Ended(key.1, DisconnectReason::Refused(code)));
        }
        link.provider = Some(ProviderSession::new(grant(key.0), trackers().tracker_key(), geometry));
        link.announced = has.clone();
        if !link.cut {
            self.schedule(delay_ms, key.0, Event::Opened(key.1, has));
        }
    }

    fn has(&self, node: usize) -> Bitfield {
        let held = self.nodes[node].transfer.as_ref().map(|transfer| transfer.held().clone());
        held.unwrap_or_else(|| Bitfield::full(self.manifest.pieces()))
    }

    fn wake(&mut self, node: usize) {
        if !self.nodes[node].serving {
            self.nodes[node].serving = true;
            self.schedule(0, node, Event::Serve);
        }
    }

    /// Puts one piece of one connection on the node's uplink. Rejections take no time.
    fn serve(&mut self, node: usize) {
        let held = self.has(node);
        let mut keys: Vec<Key> =
            self.links.iter().filter(|(_, link)| link.provider_node == node).map(|(key, _)| *key).collect();
        self.random.shuffle(&mut keys);
        for key in keys {
            let is_fault = self.ms < FAULTS_UNTIL_MS && self.random.u32(0..100) == 0;
            let link = self.links.get_mut(&key).unwrap();
            let Some(provider) = &mut link.provider else { continue };
            let spread = UploadHistory::new(held.pieces(), |_| 0, 0, 1);
            let Some(answer) = provider.next_answer(&held, &spread, UnixSeconds(0)) else { continue };
            let (delay_ms, cut) = (link.delay_ms, link.cut);
            let piece_ms = self.nodes[node].piece_ms;
            let free_in = if matches!(answer, PieceAnswer::Piece(_)) { piece_ms } else { 0 };
            if !cut {
                match answer {
                    PieceAnswer::Piece(index) if is_fault => {
                        let code = [RejectCode::Busy, RejectCode::NotHeld, RejectCode::Expired]
                            [self.random.usize(0..3)];
                        self.schedule(
                            delay_ms,
                            key.0,
                            Event::Received(key.1, Message::Reject { index, code }),
                        );
                    }
                    PieceAnswer::Piece(index) => {
                        self.schedule(delay_ms, key.0, Event::PieceBegins(key.1, index));
                        self.schedule(delay_ms + piece_ms, key.0, Event::PieceEnds(key.1, index));
                    }
                    PieceAnswer::Reject(index, code) => {
                        self.schedule(
                            delay_ms,
                            key.0,
                            Event::Received(key.1, Message::Reject { index, code }),
                        );
                    }
                }
            }
            self.nodes[node].serving = true;
            return self.schedule(free_in, node, Event::Serve);
        }
    }

    fn at_leecher(&mut self, node: usize, event: Event) {
        let (now, key) = (self.now(), |connection| (node, connection));
        let judge_ms = self.random.u64(0..20);
        let fails = self.ms < FAULTS_UNTIL_MS && self.random.u32(0..100) == 0;
        let Some(transfer) = self.nodes[node].transfer.as_mut() else { return };
        match event {
            Event::Poll => {
                transfer.poll(now, false);
                self.announce_gained(node);
                self.schedule(POLL_MS, node, Event::Poll);
            }
            Event::Renew => {
                transfer.renew_ticket(now, &Ticket::sign(grant(node), &trackers()));
                let peers: Vec<_> = (0..self.nodes.len()).filter(|peer| *peer != node).map(address).collect();
                let transfer = self.nodes[node].transfer.as_mut().unwrap();
                transfer.add_peers(now, &peers);
                self.schedule(RENEW_MS, node, Event::Renew);
            }
            Event::Resume => transfer.resume(now),
            Event::Opened(connection, pieces) => {
                let length = self.manifest.geometry().length();
                transfer.connection_opened(now, connection, ProviderFile { length, pieces });
                if let Some(link) = self.links.get_mut(&key(connection)) {
                    link.opened = true;
                }
            }
            Event::NotOpened(connection) => {
                if self.links.get(&key(connection)).is_none_or(|link| !link.opened) {
                    transfer.connection_closed(now, connection, &DisconnectReason::Lost);
                }
            }
            Event::Received(connection, message) => {
                assert_eq!(transfer.handle_message(now, connection, &message), Ok(None));
            }
            Event::PieceBegins(connection, index) => {
                // A connection that this side has closed has no requests any more.
                if transfer.begin_piece(connection, index, PIECE_BYTES).is_ok() {
                    transfer.bytes_received(now, connection, u64::from(PIECE_BYTES) / 2);
                }
            }
            Event::PieceEnds(connection, index) => {
                transfer.bytes_received(now, connection, u64::from(PIECE_BYTES) / 2);
                if let Some(job) = transfer.piece_received(now, connection, index) {
                    self.schedule(judge_ms, node, Event::Verified(job));
                }
            }
            Event::Ended(connection, ending) => transfer.connection_closed(now, connection, &ending),
            Event::Verified(job) => {
                let finding = PieceVerdict { digest_matches: true, links_match: true };
                assert!(transfer.piece_checked(now, &job, finding));
                if fails {
                    transfer.piece_dropped(&job);
                } else {
                    transfer.piece_written(&job);
                }
            }
            other => unreachable!("{other:?} at a leecher"),
        }
        self.carry_out(node);
    }

    fn carry_out(&mut self, node: usize) {
        let Some(transfer) = self.nodes[node].transfer.as_mut() else { return };
        for action in transfer.take_actions() {
            match action {
                TransferAction::Connect { connection, peer, .. } => {
                    let provider_node = (0..self.nodes.len()).find(|at| address(*at) == peer).unwrap();
                    let delay_ms = self.random.u64(0..300);
                    let announced = Bitfield::empty(self.manifest.pieces());
                    let link = Link {
                        provider_node,
                        delay_ms,
                        provider: None,
                        announced,
                        opened: false,
                        cut: false,
                    };
                    self.links.insert((node, connection), link);
                    self.schedule(2 * delay_ms, provider_node, Event::Called((node, connection)));
                    self.schedule(HANDSHAKE_TIMEOUT_MS, node, Event::NotOpened(connection));
                }
                TransferAction::Send { connection, message } => {
                    let key = (node, connection);
                    let Some(link) = self.links.get(&key).filter(|link| !link.cut) else { continue };
                    self.schedule(link.delay_ms, link.provider_node, Event::Asked(key, message));
                }
                TransferAction::Close { connection, .. } => {
                    let key = (node, connection);
                    let Some(link) = self.links.get(&key).filter(|link| !link.cut) else { continue };
                    self.schedule(link.delay_ms, link.provider_node, Event::Left(key));
                }
            }
        }
    }

    /// Announces gained pieces to the consumers of a node.
    fn announce_gained(&mut self, node: usize) {
        let held = self.has(node);
        let mut news = Vec::new();
        for (key, link) in self.links.iter_mut().filter(|(_, link)| link.provider_node == node) {
            let gained: Vec<PieceIndex> = held.iter().filter(|index| !link.announced.has(*index)).collect();
            if link.provider.is_some() && !gained.is_empty() {
                link.announced = held.clone();
                let ranges = PieceRange::from_ascending(gained).into_iter().map(Into::into).collect();
                news.extend((!link.cut).then_some((*key, link.delay_ms, Message::Have { ranges })));
            }
        }
        for (key, delay_ms, message) in news {
            self.schedule(delay_ms, key.0, Event::Received(key.1, message));
        }
    }
}

#[test]
fn all_leechers_complete_after_any_faults() {
    for seed in 0..500 {
        World::new(seed).run(5 * FAULTS_UNTIL_MS);
    }
}
