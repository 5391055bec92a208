//! The choice of a file's peers for one answer, and their order.
//!
//! Invariants: one user's nodes are at most [`PEERS_PER_USER`] of an answer. Holders that the tracker has reason to believe come
//! before others, also when members reported them. The last places of a full answer go to all other peers in turn, so that
//! nothing keeps a peer out of every answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use engine::proto::bitfield::Bitfield;
use engine::proto::units::PieceIndex;

use super::id::UserId;
use super::limits::{PEERS_IN_TURN, PEERS_PER_ANSWER, PEERS_PER_USER, REPORTS_TO_SORT_LAST};
use super::node::SwarmPeer;
use super::swarm::{ListedContent, Swarm};

/// A listed file, as far as the choice of its peers needs it.
#[derive(Clone, Copy, Debug)]
pub struct FileHolders<'a> {
    /// The content that is listed.
    pub content: ListedContent,
    /// The user who listed it.
    pub uploader: &'a UserId,
    /// The nodes that have every piece.
    pub seeders: &'a [SwarmPeer],
}

/// How certainly a peer is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerPresence {
    /// This leader has seen it.
    Confirmed,
    /// It had no time to connect yet, since the leader is new.
    Presumed,
}

/// What the leases know of a peer that is online.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerStatus {
    pub(super) presence: PeerPresence,
    /// The tracker reached it at its address, and it proved its key.
    pub(super) is_proven: bool,
}

/// Why a peer is believed to have what it says, the best reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HolderTrust {
    /// It belongs to the user who listed the file, or proved its key to the tracker.
    Known,
    /// It proved its key to the tracker, and enough members reported it.
    KnownReported,
    /// It named the content.
    Stated,
    /// It did not even name the content.
    Unstated,
    /// Only its own word speaks for it, and enough members reported it.
    Reported,
}

/// A peer that can be asked for pieces now.
#[derive(Clone, Debug)]
pub struct PeerCandidate<'a> {
    /// The node.
    pub peer: &'a SwarmPeer,
    /// How certainly it is online.
    pub presence: PeerPresence,
    pieces: CandidatePieces<'a>,
    trust: HolderTrust,
    is_proven: bool,
}

#[derive(Clone, Copy, Debug)]
enum CandidatePieces<'a> {
    All,
    Some(&'a Arc<Bitfield>),
    Nothing,
}

impl PeerCandidate<'_> {
    /// Whether it has every piece.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.pieces, CandidatePieces::All)
    }

    /// The peer as a [`PieceSharer`]; `None` while it has no piece.
    fn sharer(&self) -> Option<PieceSharer> {
        let pieces = match self.pieces {
            CandidatePieces::All => None,
            CandidatePieces::Some(pieces) => Some(Arc::clone(pieces)),
            CandidatePieces::Nothing => return None,
        };
        Some(PieceSharer { address: self.peer.holder.address, pieces })
    }

    /// A lower order comes first.
    fn order(&self) -> (bool, HolderTrust, PeerPresence, bool) {
        let has_nothing = matches!(self.pieces, CandidatePieces::Nothing);
        (has_nothing, self.trust, self.presence, !self.is_complete())
    }
}

/// Address and pieces of a [`PeerCandidate`], without a borrow.
#[derive(Clone, Debug)]
pub struct PieceSharer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its pieces; `None` means all.
    pieces: Option<Arc<Bitfield>>,
}

impl PieceSharer {
    /// Whether it has a piece.
    #[must_use]
    pub fn has(&self, index: PieceIndex) -> bool {
        self.pieces.as_ref().is_none_or(|pieces| pieces.has(index))
    }
}

/// The peers of a file that one client may be told, best first.
#[derive(Clone, Debug)]
pub struct PeerChoice<'a> {
    candidates: Vec<PeerCandidate<'a>>,
}

/// The client that asks for peers.
#[derive(Clone, Copy, Debug)]
pub struct AskingClient<'a> {
    /// The client's user.
    pub user: &'a UserId,
    /// Address of the user's node, if known; that node is left out.
    pub address: Option<SocketAddr>,
    /// Whether the client is connected by loopback; other clients are told no loopback addresses.
    pub on_loopback: bool,
}

impl<'a> PeerChoice<'a> {
    /// The peers to tell, at most [`PEERS_PER_ANSWER`]. Leechers without pieces come last.
    pub fn peers(&self) -> impl Iterator<Item = &PeerCandidate<'a>> {
        self.candidates.iter().take(PEERS_PER_ANSWER)
    }

    /// At most `most` peers that have any piece, for naming the peers of each piece. Each address is named once.
    #[must_use]
    pub fn sharers(&self, most: usize) -> Vec<PieceSharer> {
        let mut addresses = BTreeSet::new();
        let sharers = self.candidates.iter().filter_map(PeerCandidate::sharer);
        sharers.filter(|sharer| addresses.insert(sharer.address)).take(most).collect()
    }

    /// Chooses among the seeders and leechers that `status` finds online. Within one order each answer starts at another peer,
    /// which `rotation` chooses. `swarm` is that of the listed content.
    pub(super) fn of_swarm(
        swarm: Option<&'a Swarm>,
        file: FileHolders<'a>,
        asker: AskingClient<'_>,
        rotation: usize,
        status: impl Fn(&SwarmPeer) -> Option<PeerStatus>,
    ) -> PeerChoice<'a> {
        let leechers = swarm.map(|swarm| swarm.leechers.values()).into_iter().flatten();
        let leeching = leechers.map(|leecher| {
            (&leecher.peer, leecher.pieces.as_ref().map_or(CandidatePieces::Nothing, CandidatePieces::Some))
        });
        let seeding = file.seeders.iter().map(|peer| (peer, CandidatePieces::All));
        let reports = counted_reports(swarm, file.seeders);
        let candidate = |(peer, pieces): (&'a SwarmPeer, CandidatePieces<'a>)| {
            if !may_tell(swarm, asker, peer) {
                return None;
            }
            let PeerStatus { presence, is_proven } = status(peer)?;
            let reporters = reports.get(&peer.holder.address).copied().unwrap_or_default();
            let trust = match reporters >= REPORTS_TO_SORT_LAST {
                // Members can find another peer, but not another user who listed the file.
                _ if peer.user == *file.uploader => HolderTrust::Known,
                false if is_proven => HolderTrust::Known,
                true if is_proven => HolderTrust::KnownReported,
                true => HolderTrust::Reported,
                false if swarm.is_some_and(|swarm| swarm.is_unstated(peer)) => HolderTrust::Unstated,
                false => HolderTrust::Stated,
            };
            Some(PeerCandidate { peer, presence, pieces, trust, is_proven })
        };
        let mut candidates: Vec<PeerCandidate<'a>> = seeding.chain(leeching).filter_map(candidate).collect();
        if !candidates.is_empty() {
            let start = rotation % candidates.len();
            candidates.rotate_left(start);
        }
        candidates.sort_by_key(PeerCandidate::order);
        drop_false_entries(&mut candidates);
        keep_share_of_each_user(&mut candidates);
        let others = candidates.get_mut(PEERS_PER_ANSWER - PEERS_IN_TURN..).unwrap_or_default();
        if !others.is_empty() {
            others.rotate_left(rotation.wrapping_mul(PEERS_IN_TURN) % others.len());
        }
        PeerChoice { candidates }
    }
}

fn may_tell(swarm: Option<&Swarm>, asker: AskingClient<'_>, peer: &SwarmPeer) -> bool {
    let address = peer.holder.address;
    let is_asker = asker.user == &peer.user && asker.address == Some(address);
    let reported = swarm.is_some_and(|swarm| swarm.has_reported(asker.user, address));
    let hidden = address.ip().to_canonical().is_loopback() && !asker.on_loopback;
    !(is_asker || reported || hidden)
}

/// For each reported address, the number of reporters who have got the whole file: from others, since they were not told the
/// reported peer any more.
fn counted_reports(swarm: Option<&Swarm>, seeders: &[SwarmPeer]) -> BTreeMap<SocketAddr, usize> {
    let mut counts = BTreeMap::new();
    let Some(swarm) = swarm.filter(|swarm| !swarm.reports.is_empty()) else { return counts };
    let complete: BTreeSet<&UserId> = seeders.iter().map(|peer| &peer.user).collect();
    for (_, reported) in swarm.reports.iter().filter(|(user, _)| complete.contains(user)) {
        for address in reported {
            *counts.entry(*address).or_default() += 1;
        }
    }
    counts
}

/// Of entries with one address, drops those under other keys than the one that was proven there, and of one user all but the
/// best: a node may have changed its key.
fn drop_false_entries(candidates: &mut Vec<PeerCandidate<'_>>) {
    // Duplicates are rare, and sorted numbers find them faster than a set.
    let mut prints: Vec<u64> =
        candidates.iter().map(|candidate| address_number(candidate.peer.holder.address)).collect();
    prints.sort_unstable();
    if prints.windows(2).all(|pair| pair[0] != pair[1]) {
        return;
    }
    let proven = candidates.iter().filter(|candidate| candidate.is_proven);
    let proven: BTreeSet<SocketAddr> = proven.map(|candidate| candidate.peer.holder.address).collect();
    let mut entries = BTreeSet::new();
    candidates.retain(|candidate| {
        let address = candidate.peer.holder.address;
        (candidate.is_proven || !proven.contains(&address)) && entries.insert((address, &candidate.peer.user))
    });
}

/// Keeps the best [`PEERS_PER_USER`] of each user.
fn keep_share_of_each_user(candidates: &mut Vec<PeerCandidate<'_>>) {
    if candidates.len() > PEERS_PER_USER {
        let mut counts: BTreeMap<&UserId, usize> = BTreeMap::new();
        candidates.retain(|candidate| {
            let count = counts.entry(&candidate.peer.user).or_default();
            *count += 1;
            *count <= PEERS_PER_USER
        });
    }
}

/// Maps equal addresses to equal numbers, and different ones rarely to the same.
fn address_number(address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => ip
            .octets()
            .as_chunks()
            .0
            .iter()
            .fold(0_u64, |print, half: &[u8; 8]| print.rotate_left(32) ^ u64::from_be_bytes(*half)),
    };
    ip << 16 ^ ip >> 48 ^ u64::from(address.port())
}
