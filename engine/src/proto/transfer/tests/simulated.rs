//! One transfer and a number of providers, some of them hostile, each on its own link, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use super::super::super::frame::{RefusedCode, RejectCode};
use super::super::super::manifest::FileName;
use super::super::super::session::{PieceAnswer, ProviderSession};
use super::super::super::steering::UploadHistory;
use super::super::super::ticket::{Grant, PeerKey, SecretKey, TrackerKey, UnixSeconds};
use super::super::super::units::{ChainState, Digest, PIECE_BYTES};
use super::super::*;
use Behaviour::{Corrupt, CorruptAt, Deaf, Refusing, Rejecting, Silent, TurningAway, Vanishing};

/// How a simulated peer behaves.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Behaviour {
    Honest,
    /// Sends wrong bytes, always.
    Corrupt,
    /// Sends wrong bytes for this piece, always.
    CorruptAt(PieceIndex),
    /// Accepts requests and never answers.
    Silent,
    /// Disconnects for good after so many pieces.
    Vanishing(u32),
    /// Rejects every request.
    Rejecting,
    /// Defers every request.
    TurningAway,
    /// Refuses to open.
    Refusing,
    /// Calls neither fail nor open.
    Deaf,
}

impl Behaviour {
    fn corrupts(self, index: PieceIndex) -> bool {
        self == Corrupt || self == CorruptAt(index)
    }
}

pub(super) struct Peer {
    pub(super) address: PeerAddress,
    pub(super) behaviour: Behaviour,
    pub(super) has: Bitfield,
    /// Milliseconds that a piece takes on the peer's link.
    piece_ms: u64,
    pub(super) free_at: u64,
    pub(super) served: u32,
}

pub(super) struct Swarm {
    pub(super) transfer: Transfer,
    pub(super) peers: Vec<Peer>,
    pub(super) links: BTreeMap<ConnectionId, (usize, ProviderSession)>,
    pub(super) arrivals: VecDeque<(u64, ConnectionId, PieceAnswer)>,
    pub(super) ms: u64,
    /// A piece whose link does not match.
    pub(super) bad_link: Option<PieceIndex>,
}

pub(super) fn manifest(pieces: u32, chain: bool) -> Arc<Manifest> {
    let digests = (0..pieces).map(|index| Digest([u8::try_from(index % 251).unwrap(); 20])).collect();
    with_digests(digests, chain)
}

/// A manifest with a different digest for each piece.
pub(super) fn distinct(pieces: u32) -> Arc<Manifest> {
    let digest = |index: u32| {
        let mut digest = [7; 20];
        digest[..4].copy_from_slice(&index.to_le_bytes());
        Digest(digest)
    };
    with_digests((0..pieces).map(digest).collect(), true)
}

pub(super) fn with_digests(digests: Vec<Digest>, chain: bool) -> Arc<Manifest> {
    let pieces = digests.len();
    let chain = chain.then(|| vec![ChainState::INITIAL; pieces - 1]);
    let length = u64::from(PIECE_BYTES) * pieces as u64;
    let name = FileName::new("f").unwrap();
    Arc::new(Manifest::new(name, Some(length), digests, FileProof::Whole(Digest([9; 20])), chain).unwrap())
}

/// The grant of a consumer's ticket.
pub(super) fn grant(peer_key: PeerKey) -> Grant {
    Grant {
        user: String::new(),
        group: String::new(),
        file_name: String::new(),
        file_id: Digest([0; 20]),
        peer_key,
        expires: UnixSeconds(9),
    }
}

/// The key that signs tickets.
pub(super) fn trackers() -> TrackerKey {
    SecretKey::from_seed(&[0; 32]).tracker_key()
}

impl Swarm {
    pub(super) fn new(manifest: &Arc<Manifest>, peers: &[(Behaviour, u64)]) -> Swarm {
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
        swarm.transfer.add_peers(Moment::default(), &addresses);
        swarm
    }

    pub(super) fn now(&self) -> Moment {
        Moment::default().plus_ms(self.ms)
    }

    /// Runs until all pieces are held, or `until_ms` has passed.
    pub(super) fn run(&mut self, until_ms: u64) -> &mut Swarm {
        while self.ms < until_ms && !self.transfer.held().is_full() {
            self.carry_out();
            self.serve();
            self.deliver();
            self.ms += 1;
            if self.ms.is_multiple_of(100) {
                self.transfer.poll(self.now(), false);
            }
        }
        self
    }

    pub(super) fn prove(&mut self) {
        self.run(60_000);
        assert_eq!(self.transfer.status(), TransferStatus::Complete);
    }

    pub(super) fn carry_out(&mut self) {
        self.transfer.take_actions().into_iter().for_each(|action| self.perform(action));
    }

    pub(super) fn perform(&mut self, action: TransferAction) {
        match action {
            TransferAction::Connect { connection, peer, .. } => self.connect(connection, peer),
            TransferAction::Send { connection, message } => {
                let now = self.now();
                if let Some((_, provider)) = self.links.get_mut(&connection) {
                    provider.handle_message(now, &message).unwrap();
                }
            }
            TransferAction::Close { connection, .. } => {
                self.links.remove(&connection);
            }
        }
    }

    fn connect(&mut self, connection: ConnectionId, at: PeerAddress) {
        let number = self.peers.iter().position(|peer| peer.address == at).unwrap();
        let (now, peer) = (self.now(), &self.peers[number]);
        match peer.behaviour {
            Deaf => {}
            Refusing => {
                self.transfer.connection_closed(
                    now,
                    connection,
                    &DisconnectReason::Refused(RefusedCode::NotShared),
                );
            }
            Vanishing(after) if peer.served >= after => {
                self.transfer.connection_closed(now, connection, &DisconnectReason::Lost);
            }
            _ => {
                let geometry = self.transfer.geometry();
                let provider = ProviderSession::new(grant(at.key), trackers(), geometry);
                self.links.insert(connection, (number, provider));
                let holding = ProviderFile { length: geometry.length(), pieces: peer.has.clone() };
                self.transfer.connection_opened(now, connection, holding);
            }
        }
    }

    /// Puts one answer of each connection on its peer's link when that is free.
    fn serve(&mut self) {
        let mut gone = Vec::new();
        for (connection, (number, provider)) in &mut self.links {
            let peer = &mut self.peers[*number];
            if peer.behaviour == Silent || peer.free_at > self.ms {
                continue;
            }
            let spread = UploadHistory::new(peer.has.pieces(), |_| 0, 0, 1);
            let Some(answer) = provider.next_answer(&peer.has, &spread, UnixSeconds(0)) else { continue };
            match (peer.behaviour, answer) {
                (Rejecting, PieceAnswer::Piece(index)) => {
                    self.arrivals.push_back((
                        self.ms,
                        *connection,
                        PieceAnswer::Reject(index, RejectCode::NotHeld),
                    ));
                }
                (TurningAway, PieceAnswer::Piece(index)) => {
                    peer.served += 1;
                    self.arrivals.push_back((
                        self.ms,
                        *connection,
                        PieceAnswer::Reject(index, RejectCode::Busy),
                    ));
                }
                (Vanishing(after), PieceAnswer::Piece(_)) if peer.served >= after => {
                    gone.push(*connection);
                }
                (_, PieceAnswer::Reject(..)) => self.arrivals.push_back((self.ms, *connection, answer)),
                (_, PieceAnswer::Piece(_)) => {
                    peer.free_at = self.ms + peer.piece_ms;
                    peer.served += 1;
                    self.arrivals.push_back((peer.free_at, *connection, answer));
                }
            }
        }
        for connection in gone {
            self.links.remove(&connection);
            self.transfer.connection_closed(self.now(), connection, &DisconnectReason::Lost);
        }
    }

    fn deliver(&mut self) {
        let due: Vec<_> = self.arrivals.iter().filter(|(at, ..)| *at <= self.ms).copied().collect();
        self.arrivals.retain(|(at, ..)| *at > self.ms);
        for (_, connection, answer) in due {
            let Some((number, _)) = self.links.get(&connection) else { continue };
            let (behaviour, now) = (self.peers[*number].behaviour, self.now());
            match answer {
                PieceAnswer::Reject(index, code) => {
                    let message = Message::Reject { index, code };
                    assert_eq!(self.transfer.handle_message(now, connection, &message), Ok(None));
                }
                PieceAnswer::Piece(index) => self.land(now, connection, index, behaviour.corrupts(index)),
            }
        }
    }

    pub(super) fn land(&mut self, now: Moment, connection: ConnectionId, index: PieceIndex, corrupt: bool) {
        self.transfer.begin_piece(connection, index, PIECE_BYTES).unwrap();
        self.transfer.bytes_received(now, connection, u64::from(PIECE_BYTES));
        if let Some(job) = self.transfer.piece_received(now, connection, index) {
            let finding =
                PieceVerdict { digest_matches: !corrupt, links_match: self.bad_link != Some(index) };
            if self.transfer.piece_checked(now, &job, finding) {
                self.transfer.piece_written(&job);
            }
        }
    }

    pub(super) fn served(&self) -> u32 {
        self.peers.iter().map(|peer| peer.served).sum()
    }
}
