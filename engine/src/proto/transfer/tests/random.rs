//! Swarms of leechers that feed each other, from a seed, in virtual time, with whatever goes wrong between nodes that mean
//! well: connections break, or are cut so that nobody hears of it; nodes freeze; refusals and rejections come.
//!
//! ```text
//!   Transfer of a leecher ─► messages, late ─► Provider of a node ─► answers over its uplink, late ─► Transfer
//! ```
//!
//! Invariants: what happens on one connection stays in order; a node that is frozen does nothing and loses nothing; from
//! `TROUBLE_MS` on nothing goes wrong any more.

use std::collections::VecDeque;

use super::super::super::frame::{RefusedCode, RejectCode};
use super::super::super::limits::{CONNECTIONS_PER_PEER, HANDSHAKE_TIMEOUT_MS};
use super::super::super::session::{PieceAnswer, ProviderSession};
use super::super::super::steering::UploadHistory;
use super::super::super::ticket::{Grant, PeerKey, SecretKey, UnixSeconds};
use super::super::super::units::{Digest, PIECE_BYTES};
use super::super::*;
use super::simulated::distinct;

/// So long things go wrong.
const TROUBLE_MS: u64 = 30_000;

/// How long a provider goes on with a connection that was cut: until its system has given it up.
const CUT_MS: u64 = 30_000;

/// How often a transfer is looked after.
const POLL_MS: u64 = 100;

/// How often a leecher gets a fresh ticket, and is told of everybody.
const RENEW_MS: u64 = 10_000;

/// The leecher, and what it calls the connection.
type Key = (usize, ConnectionId);

/// Something that happens at a node.
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
    Told(ConnectionId, Message),
    Begun(ConnectionId, PieceIndex),
    Whole(ConnectionId, PieceIndex),
    Ended(ConnectionId, DisconnectReason),
    NotOpened(ConnectionId),
    Verified(ReceivedPiece),
}

struct Node {
    /// None: it has had all from the start.
    transfer: Option<Transfer>,
    piece_ms: u64,
    serving: bool,
    frozen_until: u64,
    /// What came while it was frozen.
    inbox: VecDeque<Event>,
}

struct Link {
    provider_node: usize,
    late_ms: u64,
    provider: Option<ProviderSession>,
    told: Bitfield,
    opened: bool,
    /// Nothing gets through any more.
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
            world.later(0, leecher, Event::Renew);
            world.later(0, leecher, Event::Poll);
        }
        world
    }

    fn now(&self) -> Moment {
        Moment::default().plus_ms(self.ms)
    }

    fn later(&mut self, ms: u64, node: usize, event: Event) {
        self.agenda.insert((self.ms + ms, self.next_event), (node, event));
        self.next_event += 1;
    }

    fn is_done(&self) -> bool {
        let done = |transfer: &Transfer| transfer.status() == TransferStatus::Complete;
        self.nodes.iter().filter_map(|node| node.transfer.as_ref()).all(done)
    }

    /// Runs until everybody has everything, which is to be before `most_ms`.
    fn run(mut self, most_ms: u64) {
        while !self.is_done() {
            let ((ms, _), (node, event)) =
                self.agenda.pop_first().expect("a transfer is always looked after");
            assert!(ms < most_ms, "seed {}: {}", self.seed, self.describe());
            self.ms = ms;
            if self.nodes[node].frozen_until > ms {
                self.nodes[node].inbox.push_back(event);
                continue;
            }
            while let Some(earlier) = self.nodes[node].inbox.pop_front() {
                self.happens(node, earlier);
            }
            self.happens(node, event);
            if ms < TROUBLE_MS {
                self.trouble();
            }
        }
    }

    fn describe(&self) -> String {
        let standing = |node: &Node| node.transfer.as_ref().map(Transfer::status);
        format!("{:?}, {} links", self.nodes.iter().map(standing).collect::<Vec<_>>(), self.links.len())
    }

    /// Now and then something goes wrong.
    fn trouble(&mut self) {
        match self.random.u32(0..600) {
            0..3 => {
                let (node, ms) = (self.random.usize(0..self.nodes.len()), self.random.u64(100..6_000));
                self.nodes[node].frozen_until = self.ms + ms;
                self.later(ms, node, Event::Serve);
            }
            3..8 => {
                let Some(key) = self.any_link() else { return };
                let link = &self.links[&key];
                let (provider, late_ms) = (link.provider_node, link.late_ms);
                self.later(late_ms, key.0, Event::Ended(key.1, DisconnectReason::Lost));
                self.later(late_ms, provider, Event::Left(key));
            }
            8..11 => {
                let Some(key) = self.any_link() else { return };
                let link = self.links.get_mut(&key).unwrap();
                link.cut = true;
                let provider = link.provider_node;
                self.later(CUT_MS, provider, Event::Left(key));
            }
            11 => {
                // Its user pauses it, or its disk is full for a moment.
                let node = self.random.usize(0..self.nodes.len());
                let now = self.now();
                if let Some(transfer) = self.nodes[node].transfer.as_mut() {
                    transfer.hold(now);
                    self.carry_out(node);
                    let ms = self.random.u64(0..2_000);
                    self.later(ms, node, Event::Resume);
                }
            }
            _ => {}
        }
    }

    fn any_link(&mut self) -> Option<Key> {
        let at = self.random.usize(0..self.links.len().max(1));
        self.links.keys().nth(at).copied()
    }

    fn happens(&mut self, node: usize, event: Event) {
        match event {
            Event::Called(key) => self.called(node, key),
            Event::Asked(key, message) => {
                if let Some(provider) = self.links.get_mut(&key).and_then(|link| link.provider.as_mut()) {
                    assert_eq!(provider.handle_message(&message), Ok(None));
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
            0 if self.ms < TROUBLE_MS => Some(RefusedCode::Expired),
            1 if self.ms < TROUBLE_MS => Some(RefusedCode::Busy),
            _ => (crowd >= CONNECTIONS_PER_PEER).then_some(RefusedCode::Busy),
        };
        let has = self.has(node);
        let geometry = self.manifest.geometry();
        let Some(link) = self.links.get_mut(&key) else { return };
        let late_ms = link.late_ms;
        if let Some(code) = refused {
            self.links.remove(&key);
            return self.later(late_ms, key.0, Event::Ended(key.1, DisconnectReason::Refused(code)));
        }
        link.provider = Some(ProviderSession::new(grant(key.0), trackers().tracker_key(), geometry));
        link.told = has.clone();
        if !link.cut {
            self.later(late_ms, key.0, Event::Opened(key.1, has));
        }
    }

    fn has(&self, node: usize) -> Bitfield {
        let held = self.nodes[node].transfer.as_ref().map(|transfer| transfer.held().clone());
        held.unwrap_or_else(|| Bitfield::full(self.manifest.pieces()))
    }

    fn wake(&mut self, node: usize) {
        if !self.nodes[node].serving {
            self.nodes[node].serving = true;
            self.later(0, node, Event::Serve);
        }
    }

    /// Puts one piece on the node's uplink, of one of its connections; rejections cost no time.
    fn serve(&mut self, node: usize) {
        let held = self.has(node);
        let mut keys: Vec<Key> =
            self.links.iter().filter(|(_, link)| link.provider_node == node).map(|(key, _)| *key).collect();
        self.random.shuffle(&mut keys);
        for key in keys {
            let trouble = self.ms < TROUBLE_MS && self.random.u32(0..100) == 0;
            let link = self.links.get_mut(&key).unwrap();
            let Some(provider) = &mut link.provider else { continue };
            let spread = UploadHistory::new(held.pieces(), |_| 0, 0, 1);
            let Some(answer) = provider.next_answer(&held, &spread, UnixSeconds(0)) else { continue };
            let (late_ms, cut) = (link.late_ms, link.cut);
            let piece_ms = self.nodes[node].piece_ms;
            let free_in = if matches!(answer, PieceAnswer::Piece(_)) { piece_ms } else { 0 };
            if !cut {
                match answer {
                    PieceAnswer::Piece(index) if trouble => {
                        let code = [RejectCode::Busy, RejectCode::NotHeld, RejectCode::Expired]
                            [self.random.usize(0..3)];
                        self.later(late_ms, key.0, Event::Told(key.1, Message::Reject { index, code }));
                    }
                    PieceAnswer::Piece(index) => {
                        self.later(late_ms, key.0, Event::Begun(key.1, index));
                        self.later(late_ms + piece_ms, key.0, Event::Whole(key.1, index));
                    }
                    PieceAnswer::Reject(index, code) => {
                        self.later(late_ms, key.0, Event::Told(key.1, Message::Reject { index, code }));
                    }
                }
            }
            self.nodes[node].serving = true;
            return self.later(free_in, node, Event::Serve);
        }
    }

    fn at_leecher(&mut self, node: usize, event: Event) {
        let (now, key) = (self.now(), |connection| (node, connection));
        let judge_ms = self.random.u64(0..20);
        let fails = self.ms < TROUBLE_MS && self.random.u32(0..100) == 0;
        let Some(transfer) = self.nodes[node].transfer.as_mut() else { return };
        match event {
            Event::Poll => {
                transfer.poll(now, false);
                self.tell_news(node);
                self.later(POLL_MS, node, Event::Poll);
            }
            Event::Renew => {
                transfer.renew_ticket(now, &Ticket::sign(grant(node), &trackers()));
                let peers: Vec<_> = (0..self.nodes.len()).filter(|peer| *peer != node).map(address).collect();
                let transfer = self.nodes[node].transfer.as_mut().unwrap();
                transfer.add_peers(now, &peers);
                self.later(RENEW_MS, node, Event::Renew);
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
            Event::Told(connection, message) => {
                assert_eq!(transfer.handle_message(now, connection, &message), Ok(true));
            }
            Event::Begun(connection, index) => {
                // One that this side has closed expects nothing any more.
                if transfer.begin_piece(connection, index, PIECE_BYTES).is_ok() {
                    transfer.bytes_received(now, connection, u64::from(PIECE_BYTES) / 2);
                }
            }
            Event::Whole(connection, index) => {
                transfer.bytes_received(now, connection, u64::from(PIECE_BYTES) / 2);
                if let Some(job) = transfer.piece_received(now, connection, index) {
                    self.later(judge_ms, node, Event::Verified(job));
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
                    let late_ms = self.random.u64(0..300);
                    let told = Bitfield::empty(self.manifest.pieces());
                    let link =
                        Link { provider_node, late_ms, provider: None, told, opened: false, cut: false };
                    self.links.insert((node, connection), link);
                    self.later(2 * late_ms, provider_node, Event::Called((node, connection)));
                    self.later(HANDSHAKE_TIMEOUT_MS, node, Event::NotOpened(connection));
                }
                TransferAction::Send { connection, message } => {
                    let key = (node, connection);
                    let Some(link) = self.links.get(&key).filter(|link| !link.cut) else { continue };
                    self.later(link.late_ms, link.provider_node, Event::Asked(key, message));
                }
                TransferAction::Close { connection, .. } => {
                    let key = (node, connection);
                    let Some(link) = self.links.get(&key).filter(|link| !link.cut) else { continue };
                    self.later(link.late_ms, link.provider_node, Event::Left(key));
                }
            }
        }
    }

    /// Tells those who fetch from a node what it has gained.
    fn tell_news(&mut self, node: usize) {
        let held = self.has(node);
        let mut news = Vec::new();
        for (key, link) in self.links.iter_mut().filter(|(_, link)| link.provider_node == node) {
            let gained: Vec<PieceIndex> = held.iter().filter(|index| !link.told.has(*index)).collect();
            if link.provider.is_some() && !gained.is_empty() {
                link.told = held.clone();
                let ranges = PieceRange::from_ascending(gained).into_iter().map(Into::into).collect();
                news.extend((!link.cut).then_some((*key, link.late_ms, Message::Have { ranges })));
            }
        }
        for (key, late_ms, message) in news {
            self.later(late_ms, key.0, Event::Told(key.1, message));
        }
    }
}

#[test]
fn whatever_went_wrong_everybody_has_everything_in_the_end() {
    for seed in 0..500 {
        World::new(seed).run(5 * TROUBLE_MS);
    }
}
