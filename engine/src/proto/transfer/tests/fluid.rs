//! A whole swarm in virtual time: real transfers and providers on a simulated network.
//!
//! The uplink of a host is shared by its connections as a fluid. Each connection has a socket buffer, because a provider does
//! not change the order of what it has handed to the kernel, and a delay. The same setting gives the same result every time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::super::frame::RejectCode;
use super::super::super::session::{PieceAnswer, ProviderSession};
use super::super::super::steering::UploadHistory;
use super::super::super::ticket::{PeerKey, UnixSeconds};
use super::super::super::units::PIECE_BYTES;
use super::super::*;
use super::simulated::{distinct, grant, trackers};

/// Interval in which a transfer is polled and gained pieces are announced, in milliseconds.
const POLL_MS: u64 = 100;

/// Time from the last byte of a piece until it is written, in milliseconds.
const VERIFY_MS: u64 = 5;

/// When a leecher asks the tracker for peers, in milliseconds after its start.
const ASKS_AT_MS: [u64; 7] = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 62_000];

/// Bytes that frames other than pieces take on an uplink.
const REJECT_BYTES: u64 = 8;
const HAVE_BYTES: u64 = 16;

/// Parameters of a swarm.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) pieces: u32,
    pub(super) seeders: usize,
    pub(super) leechers: usize,
    /// Bytes that a host sends in a millisecond.
    pub(super) uplink: u64,
    pub(super) delay_ms: u64,
    /// Socket buffer of each connection.
    pub(super) socket_bytes: u64,
    /// Between the starts of two leechers.
    pub(super) stagger_ms: u64,
    /// Each connection gets a share of the uplink between 100 and this.
    pub(super) unfairness: u64,
    pub(super) step_ms: u64,
    pub(super) seed: u64,
}

impl Setting {
    /// Shortest time in which all leechers can have the file, in milliseconds: a seeder sends each piece once, and all uplinks
    /// together send all copies (Kumar and Ross, "Peer-assisted file distribution: the minimum distribution time").
    pub(super) fn limit_ms(&self) -> f64 {
        let copy_ms = f64::from(self.pieces) * f64::from(PIECE_BYTES) / self.uplink as f64;
        let all_ms = copy_ms * self.leechers as f64 / (self.seeders + self.leechers) as f64;
        (copy_ms / self.seeders as f64).max(all_ms)
    }
}

/// Result of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// When each leecher had all pieces, in milliseconds.
    pub(super) finished_ms: Vec<u64>,
    /// Pieces sent by each host.
    pub(super) sent: Vec<u64>,
    /// Requests that were deferred.
    pub(super) turned_away: u64,
}

struct Host {
    address: PeerAddress,
    /// `None` at a seeder.
    transfer: Option<Transfer>,
    held: Bitfield,
    gained: Vec<PieceIndex>,
    sent: Vec<u32>,
    sent_pieces: u64,
    turned_away: u64,
    /// Hosts that fetch from this one.
    consumers: usize,
    starts_ms: u64,
    finished_ms: Option<u64>,
}

/// One connection: `host` fetches from `from`.
struct Link {
    host: usize,
    connection: ConnectionId,
    from: usize,
    provider: ProviderSession,
    announced: usize,
    announce_at_ms: u64,
    share: u64,
    /// Frames that were not sent yet, with the bytes left of each.
    queue: VecDeque<(Frame, u64)>,
    queued_bytes: u64,
}

#[derive(Clone, Debug)]
enum Frame {
    Piece(PieceIndex),
    Message(Message),
}

/// An event at a host.
enum Event {
    Start,
    Ask,
    /// A connection opens.
    Open {
        connection: ConnectionId,
        from: usize,
    },
    /// A consumer's message reaches its provider.
    Asked {
        connection: ConnectionId,
        message: Message,
    },
    Bytes {
        connection: ConnectionId,
        count: u64,
    },
    Received {
        connection: ConnectionId,
        frame: Frame,
    },
    Written {
        job: ReceivedPiece,
    },
}

pub(super) struct Fluid {
    setting: Setting,
    hosts: Vec<Host>,
    links: Vec<Link>,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    next_event: u64,
    ms: u64,
    random: fastrand::Rng,
}

impl Fluid {
    pub(super) fn new(setting: Setting) -> Fluid {
        let manifest = distinct(setting.pieces);
        let count = setting.seeders + setting.leechers;
        let hosts = (0..count).map(|number| {
            let seeds = number < setting.seeders;
            let pieces = manifest.pieces();
            let starts_ms = if seeds { 0 } else { (number - setting.seeders) as u64 * setting.stagger_ms };
            let own_seed = setting.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
            let began = Moment::default().plus_ms(starts_ms);
            Host {
                address: PeerAddress {
                    address: ([10, 0, 0, 1], 1_000 + u16::try_from(number).unwrap()).into(),
                    key: PeerKey([u8::try_from(number).unwrap(); 32]),
                },
                transfer: (!seeds).then(|| Transfer::new(Arc::clone(&manifest), own_seed, began)),
                held: if seeds { Bitfield::full(pieces) } else { Bitfield::empty(pieces) },
                gained: Vec::new(),
                sent: vec![0; pieces.as_usize()],
                sent_pieces: 0,
                turned_away: 0,
                consumers: 0,
                starts_ms,
                finished_ms: None,
            }
        });
        let hosts: Vec<Host> = hosts.collect();
        let mut fluid = Fluid {
            links: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            ms: 0,
            random: fastrand::Rng::with_seed(setting.seed),
            hosts,
            setting,
        };
        for host in fluid.setting.seeders..count {
            let starts_ms = fluid.hosts[host].starts_ms;
            fluid.schedule(starts_ms, host, Event::Start);
            for ms in ASKS_AT_MS {
                fluid.schedule(starts_ms + ms, host, Event::Ask);
            }
        }
        fluid
    }

    fn schedule(&mut self, ms: u64, host: usize, event: Event) {
        self.events.insert((ms, self.next_event), (host, event));
        self.next_event += 1;
    }

    fn now(&self) -> Moment {
        Moment::default().plus_ms(self.ms)
    }

    /// Runs until all leechers have all pieces, or `until_ms` has passed.
    pub(super) fn run(&mut self, until_ms: u64) -> Outcome {
        while self.ms < until_ms
            && self.hosts.iter().any(|host| host.transfer.is_some() && host.finished_ms.is_none())
        {
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > self.ms {
                    break;
                }
                let (host, event) = entry.remove();
                self.handle_event(host, event);
            }
            if self.ms.is_multiple_of(POLL_MS) {
                let now = self.now();
                for host in &mut self.hosts {
                    if let Some(transfer) = host.transfer.as_mut().filter(|_| host.starts_ms <= now.ms()) {
                        transfer.poll(now, false);
                    }
                }
            }
            for host in 0..self.hosts.len() {
                self.carry_out(host);
            }
            for link in 0..self.links.len() {
                self.send_answers(link);
            }
            self.run_uplinks();
            self.ms += self.setting.step_ms;
        }
        Outcome {
            finished_ms: self
                .hosts
                .iter()
                .filter(|host| host.transfer.is_some())
                .map(|host| host.finished_ms.unwrap_or(u64::MAX))
                .collect(),
            sent: self.hosts.iter().map(|host| host.sent_pieces).collect(),
            turned_away: self.hosts.iter().map(|host| host.turned_away).sum(),
        }
    }

    fn handle_event(&mut self, host: usize, event: Event) {
        let now = self.now();
        match event {
            Event::Start | Event::Ask => self.name_peers(host),
            Event::Open { connection, from } => self.open(host, connection, from),
            Event::Asked { connection, message } => {
                let asked = |link: &&mut Link| link.host == host && link.connection == connection;
                if let Some(link) = self.links.iter_mut().find(asked) {
                    link.provider.handle_message(now, &message).unwrap();
                }
            }
            Event::Bytes { connection, count } => self.transfer(host).bytes_received(now, connection, count),
            Event::Received { connection, frame: Frame::Message(message) } => {
                assert_eq!(self.transfer(host).handle_message(now, connection, &message), Ok(None));
            }
            Event::Received { connection, frame: Frame::Piece(index) } => {
                let transfer = self.transfer(host);
                if transfer.begin_piece(connection, index, PIECE_BYTES).is_ok()
                    && let Some(job) = transfer.piece_received(now, connection, index)
                {
                    self.schedule(self.ms + VERIFY_MS, host, Event::Written { job });
                }
            }
            Event::Written { job } => {
                let transfer = self.transfer(host);
                assert!(transfer.piece_checked(
                    now,
                    &job,
                    PieceVerdict { digest_matches: true, links_match: true }
                ));
                transfer.piece_written(&job);
                let full = transfer.held().is_full();
                let found = &mut self.hosts[host];
                found.held.insert(job.index);
                found.gained.push(job.index);
                found.finished_ms = full.then_some(now.ms());
            }
        }
    }

    /// The transfer of a leecher.
    fn transfer(&mut self, host: usize) -> &mut Transfer {
        self.hosts[host].transfer.as_mut().unwrap()
    }

    /// The tracker names all hosts that are online.
    fn name_peers(&mut self, host: usize) {
        let now = self.now();
        let online = |(number, other): &(usize, &Host)| *number != host && other.starts_ms <= now.ms();
        let peers: Vec<_> =
            self.hosts.iter().enumerate().filter(online).map(|(_, other)| other.address).collect();
        self.transfer(host).add_peers(now, &peers);
    }

    fn open(&mut self, host: usize, connection: ConnectionId, from: usize) {
        let geometry = Geometry::new(self.length()).unwrap();
        let holding = ProviderFile { length: geometry.length(), pieces: self.hosts[from].held.clone() };
        self.links.push(Link {
            host,
            connection,
            from,
            provider: ProviderSession::new(grant(self.hosts[host].address.key), trackers(), geometry),
            announced: self.hosts[from].gained.len(),
            announce_at_ms: 0,
            share: self.random.u64(100..=self.setting.unfairness),
            queue: VecDeque::new(),
            queued_bytes: 0,
        });
        self.count_consumers();
        let now = self.now();
        self.transfer(host).connection_opened(now, connection, holding);
    }

    fn count_consumers(&mut self) {
        let pairs: BTreeSet<(usize, usize)> = self.links.iter().map(|link| (link.from, link.host)).collect();
        for (number, host) in self.hosts.iter_mut().enumerate() {
            host.consumers = pairs.iter().filter(|(from, _)| *from == number).count();
        }
    }

    fn length(&self) -> u64 {
        u64::from(self.setting.pieces) * u64::from(PIECE_BYTES)
    }

    fn carry_out(&mut self, host: usize) {
        let Some(transfer) = self.hosts[host].transfer.as_mut() else { return };
        let actions = transfer.take_actions();
        for action in actions {
            let later = self.ms + self.setting.delay_ms;
            match action {
                TransferAction::Connect { connection, peer, .. } => {
                    let from = self.hosts.iter().position(|other| other.address == peer).unwrap();
                    // The handshake of TCP, then that of this protocol.
                    self.schedule(
                        self.ms + 5 * self.setting.delay_ms,
                        host,
                        Event::Open { connection, from },
                    );
                }
                TransferAction::Send { connection, message } => {
                    self.schedule(later, host, Event::Asked { connection, message });
                }
                TransferAction::Close { connection, .. } => {
                    self.links.retain(|link| link.host != host || link.connection != connection);
                    self.count_consumers();
                }
            }
        }
    }

    /// Acts as the writer of a provider: answers while the socket has room, then announces gained pieces.
    fn send_answers(&mut self, at: usize) {
        let (now_ms, socket_bytes) = (self.ms, self.setting.socket_bytes);
        let link = &mut self.links[at];
        let from = &mut self.hosts[link.from];
        while link.queued_bytes <= socket_bytes {
            let sent = |index: PieceIndex| from.sent[index.as_usize()];
            let spread = UploadHistory::new(from.held.pieces(), sent, from.sent_pieces, from.consumers);
            let Some(answer) = link.provider.next_answer(&from.held, &spread, UnixSeconds(0)) else {
                if from.gained.len() > link.announced && now_ms >= link.announce_at_ms {
                    Self::announce_gained(link, from, now_ms);
                }
                return;
            };
            let (frame, bytes) = match answer {
                PieceAnswer::Reject(index, code) => {
                    from.turned_away += u64::from(code == RejectCode::Busy);
                    (Frame::Message(Message::Reject { index, code }), REJECT_BYTES)
                }
                PieceAnswer::Piece(index) => {
                    from.sent_pieces += 1;
                    from.sent[index.as_usize()] += 1;
                    (Frame::Piece(index), u64::from(PIECE_BYTES))
                }
            };
            link.queue.push_back((frame, bytes));
            link.queued_bytes += bytes;
        }
    }

    fn announce_gained(link: &mut Link, from: &Host, now_ms: u64) {
        let mut news = from.gained[link.announced..].to_vec();
        news.sort_unstable();
        link.announced = from.gained.len();
        link.announce_at_ms = now_ms + POLL_MS;
        let ranges = PieceRange::from_ascending(news).into_iter().map(Into::into).collect();
        link.queue.push_back((Frame::Message(Message::Have { ranges }), HAVE_BYTES));
        link.queued_bytes += HAVE_BYTES;
    }

    /// Lets every uplink send for one step, shared by the connections that have something to send.
    fn run_uplinks(&mut self) {
        let arrives = self.ms + self.setting.delay_ms;
        for from in 0..self.hosts.len() {
            let mut budget = self.setting.uplink * self.setting.step_ms;
            while budget > 0 {
                let waiting: Vec<usize> = (0..self.links.len())
                    .filter(|at| self.links[*at].from == from && !self.links[*at].queue.is_empty())
                    .collect();
                let shares: u64 = waiting.iter().map(|at| self.links[*at].share).sum();
                if waiting.is_empty() {
                    break;
                }
                let round = budget;
                for at in waiting {
                    let most = (round * self.links[at].share).div_ceil(shares).min(budget);
                    budget -= self.carry(at, most, arrives);
                }
            }
        }
    }

    /// Sends up to `most` bytes of the queue of a connection. Returns how many were sent.
    fn carry(&mut self, at: usize, most: u64, arrives: u64) -> u64 {
        let mut left = most;
        while left > 0 {
            let link = &mut self.links[at];
            let (host, connection) = (link.host, link.connection);
            let Some((frame, bytes)) = link.queue.front_mut() else { break };
            let now = left.min(*bytes);
            *bytes -= now;
            left -= now;
            link.queued_bytes -= now;
            let (piece, done) = (matches!(frame, Frame::Piece(_)), *bytes == 0);
            let frame = if done { link.queue.pop_front().map(|(frame, _)| frame) } else { None };
            if piece {
                self.schedule(arrives, host, Event::Bytes { connection, count: now });
            }
            if let Some(frame) = frame {
                self.schedule(arrives, host, Event::Received { connection, frame });
            }
        }
        most - left
    }
}
