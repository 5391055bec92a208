//! One file's swarm in the leader's memory: leechers and their pieces, reports, and the choice of peers for an answer.
//!
//! Invariants: a leecher without pieces has no bit field; a bit field has as many pieces as the file. A report counts only
//! if its user fetched the file here and its peer has the file or fetches it. Leechers are bounded, for each user and in
//! all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use engine::proto::bitfield::Bitfield;
use engine::proto::ticket::PeerKey;
use engine::proto::units::{Digest, PieceCount, PieceIndex, PieceRange};

use super::id::{SessionId, UserId};
use super::limits::{
    ASKED_PER_FILE_MAX, LEECHERS_PER_SWARM, NODES_PER_USER_AND_FILE, PEERS_PER_ANSWER, REPORTED_PEERS_MAX,
    REPORTS_PER_USER, REPORTS_TO_SORT_LAST,
};
use super::node::{NodeIdentity, SwarmPeer};

/// User and identity of a node: the key of a leecher.
pub(super) type NodeKey = (UserId, NodeIdentity);

/// A node that fetches the file.
#[derive(Clone, Debug)]
pub(super) struct Leecher {
    pub(super) peer: SwarmPeer,
    /// Announced pieces; `None` before the first. Shared with answers that are still being built.
    pub(super) pieces: Option<Arc<Bitfield>>,
    /// Value of [`Swarm::heard`] when it last asked or announced.
    heard: u64,
}

/// What the leader remembers about one file.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) content: ListedContent,
    pub(super) leechers: BTreeMap<NodeKey, Leecher>,
    /// Users who fetched the file; only their reports count.
    fetched: BTreeSet<UserId>,
    /// The content that each node asked for or uploaded last under the file's name. It outlives the file.
    asked: BTreeMap<NodeKey, AskedContent>,
    /// The reporters of each address.
    reports: BTreeMap<SocketAddr, BTreeSet<UserId>>,
    /// Rotates the list with each answer, so that different peers come first.
    rotation: usize,
    /// Counts the times that a leecher asked or announced.
    heard: u64,
    /// Time of the last request or announcement.
    pub(super) last_used_ms: u64,
}

/// The content that is listed under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedContent {
    /// Its id: the digest of its proof.
    pub id: Digest,
    /// Fold of its piece digests.
    pub fold: [u8; 32],
    /// Number of its pieces.
    pub pieces: PieceCount,
}

/// The content that a node means by a file's name.
#[derive(Clone, Copy, Debug)]
struct AskedContent {
    content: ListedContent,
    session: SessionId,
    /// Grows with each request; the lowest asked longest ago.
    heard: u64,
}

/// Result of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The report was recorded.
    Noted,
    /// The same report was recorded before.
    Again,
    /// The reporter did not fetch the file here.
    NotFetched,
    /// No node at that address has or fetches the file.
    NoPeer,
    /// The reporter, or all reporters together, have reached the limit.
    Full,
}

/// How certainly a peer is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerPresence {
    /// This leader has seen it.
    Confirmed,
    /// It had no time to connect yet, since the leader is new.
    Presumed,
}

/// A peer that can be asked for pieces now.
#[derive(Clone, Debug)]
pub struct PeerCandidate<'a> {
    /// The node.
    pub peer: &'a SwarmPeer,
    /// How certainly it is online.
    pub presence: PeerPresence,
    pieces: CandidatePieces<'a>,
    /// Sort class: peers with a lower one are more useful.
    class: u8,
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

impl<'a> PeerChoice<'a> {
    /// The peers to tell, at most [`PEERS_PER_ANSWER`]. Leechers without pieces come last.
    pub fn peers(&self) -> impl Iterator<Item = &PeerCandidate<'a>> {
        self.candidates.iter().take(PEERS_PER_ANSWER)
    }

    /// At most `most` peers that have any piece, for naming the peers of each piece.
    #[must_use]
    pub fn sharers(&self, most: usize) -> Vec<PieceSharer> {
        self.candidates.iter().filter_map(PeerCandidate::sharer).take(most).collect()
    }
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

impl Swarm {
    pub(super) fn new(content: ListedContent, now_ms: u64) -> Swarm {
        Swarm {
            content,
            leechers: BTreeMap::new(),
            fetched: BTreeSet::new(),
            asked: BTreeMap::new(),
            reports: BTreeMap::new(),
            rotation: 0,
            heard: 0,
            last_used_ms: now_ms,
        }
    }

    /// Begins anew for other content under the same name. What the nodes asked for stays known.
    pub(super) fn replace(&mut self, content: ListedContent, now_ms: u64) {
        let asked = std::mem::take(&mut self.asked);
        *self = Swarm { asked, heard: self.heard, ..Swarm::new(content, now_ms) };
    }

    /// Records which content a node means. When the user has [`NODES_PER_USER_AND_FILE`] others, the one that asked longest
    /// ago is forgotten; beyond [`ASKED_PER_FILE_MAX`], the one of all users that did.
    pub(super) fn record_asked(&mut self, node: &NodeKey, content: ListedContent, session: SessionId) {
        self.heard += 1;
        let asked = AskedContent { content, session, heard: self.heard };
        if self.asked.insert(node.clone(), asked).is_some() {
            return;
        }
        let heard = |(_, asked): &(&NodeKey, &AskedContent)| asked.heard;
        let own = || nodes_of_user(&self.asked, &node.0);
        let oldest = if own().count() > NODES_PER_USER_AND_FILE {
            own().min_by_key(heard)
        } else if self.asked.len() > ASKED_PER_FILE_MAX {
            self.asked.iter().min_by_key(heard)
        } else {
            None
        };
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            self.asked.remove(&oldest);
        }
    }

    /// The content that a node means. A request may lack the key under which the node asked, so the entry of its session
    /// counts too.
    pub(super) fn asked_content(&self, node: &NodeKey, session: SessionId) -> Option<ListedContent> {
        let of_session = || self.asked.values().find(|asked| asked.session == session);
        self.asked.get(node).or_else(of_session).map(|asked| asked.content)
    }

    /// Forgets nodes whose sessions are gone. Whether any is left.
    pub(super) fn retain_asked(&mut self, is_known: impl Fn(SessionId) -> bool) -> bool {
        self.asked.retain(|_, asked| is_known(asked.session));
        !self.asked.is_empty()
    }

    /// Adds a leecher, or updates it and keeps its pieces. When the user has [`NODES_PER_USER_AND_FILE`] others, the one
    /// silent for longest is removed. Beyond [`LEECHERS_PER_SWARM`] the node is not added.
    pub(super) fn join(&mut self, peer: SwarmPeer) -> Option<&mut Leecher> {
        self.fetched.insert(peer.user.clone());
        let key = (peer.user.clone(), peer.holder.identity());
        self.record_asked(&key, self.content, peer.session);
        if !self.leechers.contains_key(&key) {
            self.make_room(&peer.user);
            if self.leechers.len() >= LEECHERS_PER_SWARM {
                return None;
            }
        }
        self.heard += 1;
        let heard = self.heard;
        let leecher =
            self.leechers.entry(key).or_insert_with(|| Leecher { peer: peer.clone(), pieces: None, heard });
        leecher.heard = heard;
        leecher.peer = peer;
        assert!(
            leecher.pieces.as_ref().is_none_or(|held| held.pieces() == self.content.pieces),
            "a bit field of another file"
        );
        Some(leecher)
    }

    /// Removes a user's oldest leecher if there is no room for one more.
    fn make_room(&mut self, user: &UserId) {
        let own = || nodes_of_user(&self.leechers, user);
        let nodes = own().count();
        assert!(nodes <= NODES_PER_USER_AND_FILE, "{user} has {nodes} leechers of one file");
        if nodes == NODES_PER_USER_AND_FILE
            && let Some(oldest) = own().min_by_key(|(_, leecher)| leecher.heard).map(|(key, _)| key.clone())
        {
            self.leechers.remove(&oldest);
        }
    }

    /// Adds pieces to a leecher; true when it has all. The ranges lie inside the file.
    pub(super) fn add_pieces(&mut self, peer: SwarmPeer, ranges: &[PieceRange]) -> bool {
        let pieces = self.content.pieces;
        assert!(ranges.iter().all(|range| range.last().0 < pieces.0), "a range past the file's end");
        let Some(leecher) = self.join(peer) else { return false };
        let held = Arc::make_mut(leecher.pieces.get_or_insert_with(|| Arc::new(Bitfield::empty(pieces))));
        for range in ranges {
            held.insert_range(*range, |_| {});
        }
        held.is_full()
    }

    /// Records a report of a node that is one of `seeders` or a leecher.
    pub(super) fn report(
        &mut self,
        by: &UserId,
        accused: SocketAddr,
        seeders: &[SwarmPeer],
    ) -> ReportOutcome {
        if !self.fetched.contains(by) {
            return ReportOutcome::NotFetched;
        }
        if self.reports.get(&accused).is_some_and(|reporters| reporters.contains(by)) {
            return ReportOutcome::Again;
        }
        let leeching = self.leechers.values().map(|leecher| &leecher.peer);
        let here: BTreeSet<SocketAddr> =
            seeders.iter().chain(leeching).map(|peer| peer.holder.address).collect();
        if !here.contains(&accused) {
            return ReportOutcome::NoPeer;
        }
        if !self.has_room_for_report(by, accused) {
            // Reports of nodes that are gone make room.
            self.reports.retain(|address, _| here.contains(address));
            if !self.has_room_for_report(by, accused) {
                return ReportOutcome::Full;
            }
        }
        self.reports.entry(accused).or_default().insert(by.clone());
        assert!(self.reports.len() <= REPORTED_PEERS_MAX, "{} reported peers", self.reports.len());
        ReportOutcome::Noted
    }

    fn has_room_for_report(&self, by: &UserId, accused: SocketAddr) -> bool {
        let own = self.reports.values().filter(|reporters| reporters.contains(by)).count();
        let known = self.reports.len() < REPORTED_PEERS_MAX || self.reports.contains_key(&accused);
        known && own < REPORTS_PER_USER
    }

    /// The peers that `asker` may be told: `seeders` and leechers that `presence` finds online. Confirmed seeders come first,
    /// peers that several members reported come last. Within a class each answer starts at another peer.
    pub(super) fn choose<'a>(
        &'a mut self,
        seeders: &'a [SwarmPeer],
        asker: AskingClient<'_>,
        presence: impl Fn(&SwarmPeer) -> Option<PeerPresence>,
    ) -> PeerChoice<'a> {
        self.rotation = self.rotation.wrapping_add(1);
        let seeding = seeders.iter().map(|peer| (peer, CandidatePieces::All));
        let leeching = self.leechers.values().map(|leecher| {
            (&leecher.peer, leecher.pieces.as_ref().map_or(CandidatePieces::Nothing, CandidatePieces::Some))
        });
        let mut candidates = Vec::with_capacity(seeders.len() + self.leechers.len());
        candidates.extend(seeding.chain(leeching).filter_map(|(peer, pieces)| {
            let presence = if self.may_tell(asker, peer) { presence(peer)? } else { return None };
            Some(PeerCandidate { peer, presence, pieces, class: self.sort_class(peer, presence, pieces) })
        }));
        if !candidates.is_empty() {
            let start = self.rotation % candidates.len();
            candidates.rotate_left(start);
        }
        candidates.sort_by_key(|candidate| candidate.class);
        keep_first_of_address(&mut candidates);
        assert!(candidates.is_sorted_by_key(|candidate| candidate.class), "the most useful peers come first");
        PeerChoice { candidates }
    }

    fn may_tell(&self, asker: AskingClient<'_>, peer: &SwarmPeer) -> bool {
        let address = peer.holder.address;
        let is_asker = asker.user == &peer.user && asker.address == Some(address);
        let reported = self.reports.get(&address).is_some_and(|by| by.contains(asker.user));
        let hidden = address.ip().to_canonical().is_loopback() && !asker.on_loopback;
        !(is_asker || reported || hidden)
    }

    fn sort_class(&self, peer: &SwarmPeer, presence: PeerPresence, pieces: CandidatePieces<'_>) -> u8 {
        let reports = self.reports.get(&peer.holder.address).map_or(0, BTreeSet::len);
        let held = match pieces {
            CandidatePieces::All => 0,
            CandidatePieces::Some(_) => 1,
            CandidatePieces::Nothing => 2,
        };
        let presumed = u8::from(presence == PeerPresence::Presumed);
        u8::from(reports >= REPORTS_TO_SORT_LAST) << 3 | presumed << 2 | held
    }
}

/// The entries of one user's nodes.
fn nodes_of_user<'a, T>(
    nodes: &'a BTreeMap<NodeKey, T>,
    user: &'a UserId,
) -> impl Iterator<Item = (&'a NodeKey, &'a T)> {
    let least = (user.clone(), NodeIdentity::Key(PeerKey([0; 32])));
    nodes.range(least..).take_while(move |((whose, _), _)| whose == user)
}

/// Keeps the better entry of two with one address, which a node has after its key changed.
fn keep_first_of_address(candidates: &mut Vec<PeerCandidate<'_>>) {
    // Duplicates are rare, and sorted numbers find them faster than a set.
    let mut prints: Vec<u64> =
        candidates.iter().map(|candidate| address_number(candidate.peer.holder.address)).collect();
    prints.sort_unstable();
    if prints.windows(2).any(|pair| pair[0] == pair[1]) {
        let mut addresses = BTreeSet::new();
        candidates.retain(|candidate| addresses.insert(candidate.peer.holder.address));
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
