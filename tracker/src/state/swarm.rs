//! One file's swarm in the leader's memory: leechers and their pieces, and reports. `peer_choice` chooses from it.
//!
//! Invariants: a leecher without pieces has no bit field; a bit field has as many pieces as the file. Reports are kept of
//! users with a node whose content is remembered. Nodes are bounded, for each user and in all; [`Swarm::node_bytes`] says what
//! each costs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use engine::proto::bitfield::Bitfield;
use engine::proto::ticket::PeerKey;
use engine::proto::units::{Digest, PieceCount, PieceRange};

use super::id::{GroupFile, SessionId, UserId};
use super::lease_memory::NodeKey;
use super::limits::{
    ASKED_PER_FILE_MAX, LEASE_USER_MAX_BYTES, LEECHERS_PER_SWARM, NODE_BYTES, NODE_NAME_COPIES,
    NODES_PER_USER_AND_FILE, REPORTERS_PER_SWARM, REPORTS_PER_USER,
};
use super::node::{NodeEndpoint, NodeIdentity, SwarmPeer};

/// A node that fetches the file.
#[derive(Clone, Debug)]
pub(super) struct Leecher {
    pub(super) peer: SwarmPeer,
    /// Announced pieces; `None` before the first. Shared with answers that are still being built.
    pub(super) pieces: Option<Arc<Bitfield>>,
}

/// What the leader remembers about one file.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) content: ListedContent,
    pub(super) leechers: BTreeMap<NodeKey, Leecher>,
    /// The content that each node asked for or uploaded last under the file's name. It outlives the file.
    asked: BTreeMap<NodeKey, AskedContent>,
    /// Seeders that said so without naming the content.
    unstated: BTreeSet<NodeKey>,
    /// The peers that each user reported.
    pub(super) reports: BTreeMap<UserId, BTreeSet<SocketAddr>>,
    /// Counts the times that a node asked or announced.
    heard: u64,
    /// Nodes of which less is remembered since the last [`Swarm::take_changed`].
    changed: Vec<NodeKey>,
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

impl Swarm {
    pub(super) fn new(content: ListedContent) -> Swarm {
        Swarm {
            content,
            leechers: BTreeMap::new(),
            asked: BTreeMap::new(),
            unstated: BTreeSet::new(),
            reports: BTreeMap::new(),
            heard: 0,
            changed: Vec::new(),
        }
    }

    /// Begins anew for other content under the same name. What the nodes asked for stays known.
    pub(super) fn replace(&mut self, content: ListedContent) {
        self.changed.extend(std::mem::take(&mut self.leechers).into_keys());
        self.unstated.clear();
        self.reports.clear();
        self.content = content;
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
            self.forget(&oldest);
        }
    }

    /// The content that a node means. A request may lack the key under which the node asked, so the entry of its session
    /// counts too.
    pub(super) fn asked_content(&self, node: &NodeKey, session: SessionId) -> Option<ListedContent> {
        let of_session = || {
            nodes_of_user(&self.asked, &node.0)
                .find(|(_, asked)| asked.session == session)
                .map(|(_, asked)| asked)
        };
        self.asked.get(node).or_else(of_session).map(|asked| asked.content)
    }

    /// Records whether a seeder named the content that it has.
    pub(super) fn record_stated(&mut self, node: &NodeKey, is_stated: bool) {
        if is_stated {
            self.unstated.remove(node);
        } else {
            self.unstated.insert(node.clone());
        }
    }

    /// Whether a seeder never named the content that it has.
    pub(super) fn is_unstated(&self, peer: &SwarmPeer) -> bool {
        !self.unstated.is_empty() && self.unstated.contains(&node_key(peer))
    }

    /// Adds a leecher, or updates it and keeps its pieces. Beyond [`LEECHERS_PER_SWARM`] the node is not added.
    pub(super) fn join(&mut self, peer: SwarmPeer) -> Option<&mut Leecher> {
        let key = node_key(&peer);
        self.record_asked(&key, self.content, peer.session);
        if self.leechers.len() >= LEECHERS_PER_SWARM && !self.leechers.contains_key(&key) {
            return None;
        }
        let leecher =
            self.leechers.entry(key).or_insert_with(|| Leecher { peer: peer.clone(), pieces: None });
        leecher.peer = peer;
        assert!(
            leecher.pieces.as_ref().is_none_or(|held| held.pieces() == self.content.pieces),
            "a bit field of another file"
        );
        Some(leecher)
    }

    /// Adds pieces to a leecher; true when it has all. The ranges lie inside the file. The pieces of a file whose bit field is
    /// larger than what a user may have remembered are not recorded.
    pub(super) fn add_pieces(&mut self, peer: SwarmPeer, ranges: &[PieceRange]) -> bool {
        let pieces = self.content.pieces;
        assert!(ranges.iter().all(|range| range.last().0 < pieces.0), "a range past the file's end");
        let Some(leecher) = self.join(peer) else { return false };
        if bitfield_bytes(pieces) + NODE_BYTES > LEASE_USER_MAX_BYTES / 2 {
            return false;
        }
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
        if !nodes_of_user(&self.asked, by).any(|(_, asked)| asked.content == self.content) {
            return ReportOutcome::NotFetched;
        }
        let leeching = self.leechers.values().map(|leecher| &leecher.peer);
        let here: BTreeSet<SocketAddr> =
            seeders.iter().chain(leeching).map(|peer| peer.holder.address).collect();
        let is_known = self.reports.contains_key(by);
        if self.has_reported(by, accused) {
            return ReportOutcome::Again;
        }
        if !here.contains(&accused) {
            return ReportOutcome::NoPeer;
        }
        if !is_known && self.reports.len() >= REPORTERS_PER_SWARM {
            return ReportOutcome::Full;
        }
        let reported = self.reports.entry(by.clone()).or_default();
        if reported.len() >= REPORTS_PER_USER {
            // Reports of nodes that are gone make room.
            reported.retain(|address| here.contains(address));
        }
        if reported.len() >= REPORTS_PER_USER {
            return ReportOutcome::Full;
        }
        reported.insert(accused);
        ReportOutcome::Noted
    }

    /// Whether a user has reported the peer at an address.
    pub(super) fn has_reported(&self, by: &UserId, accused: SocketAddr) -> bool {
        self.reports.get(by).is_some_and(|reported| reported.contains(&accused))
    }

    /// Removes a leecher if `is_meant`, and keeps the content that it asked for.
    pub(super) fn remove_leecher(&mut self, node: &NodeKey, is_meant: impl Fn(&SwarmPeer) -> bool) -> bool {
        let is_found = self.leechers.get(node).is_some_and(|leecher| is_meant(&leecher.peer));
        if is_found {
            self.leechers.remove(node);
            self.changed.push(node.clone());
        }
        is_found
    }

    /// Forgets a node, and the reports of a user whose last node it is.
    pub(super) fn forget(&mut self, node: &NodeKey) {
        self.leechers.remove(node);
        self.asked.remove(node);
        self.unstated.remove(node);
        if nodes_of_user(&self.asked, &node.0).next().is_none() {
            self.reports.remove(&node.0);
        }
        self.changed.push(node.clone());
    }

    /// Forgets the nodes whose sessions are gone.
    pub(super) fn forget_unless(&mut self, is_known: impl Fn(SessionId) -> bool) {
        let gone = self.asked.iter().filter(|(_, asked)| !is_known(asked.session));
        let gone: Vec<NodeKey> = gone.map(|(node, _)| node.clone()).collect();
        for node in gone {
            self.forget(&node);
        }
    }

    /// Gives a session's node its present address, and, if it has no key, the identity that follows from it.
    pub(super) fn move_node(
        &mut self,
        node: &NodeKey,
        session: SessionId,
        holder: NodeEndpoint,
    ) -> Option<NodeKey> {
        let moved = (node.0.clone(), holder.identity());
        let is_keyless = matches!((node.1, moved.1), (NodeIdentity::Address(_), NodeIdentity::Address(_)));
        if !(is_keyless || *node == moved) || self.asked.get(node)?.session != session {
            return None;
        }
        let (asked, leecher) = (self.asked.remove(node)?, self.leechers.remove(node));
        let is_unstated = self.unstated.remove(node);
        self.asked.insert(moved.clone(), asked);
        if let Some(leecher) = leecher {
            let peer = SwarmPeer { holder, ..leecher.peer };
            self.leechers.insert(moved.clone(), Leecher { peer, ..leecher });
        }
        if is_unstated {
            self.unstated.insert(moved.clone());
        }
        self.changed.push(node.clone());
        Some(moved)
    }

    /// Nodes of which less may be remembered than before.
    pub(super) fn take_changed(&mut self) -> Vec<NodeKey> {
        std::mem::take(&mut self.changed)
    }

    /// Every node of which something is remembered.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeKey> {
        self.asked.keys()
    }

    /// Whether nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Bytes that are remembered of a node of this swarm, which is that of `file`; 0 when nothing is.
    pub(super) fn node_bytes(&self, file: &GroupFile, node: &NodeKey) -> usize {
        if !self.asked.contains_key(node) {
            return 0;
        }
        let pieces = self.leechers.get(node).and_then(|leecher| leecher.pieces.as_ref());
        let names = file.group.as_str().len() + file.name.as_str().len() + node.0.as_str().len();
        NODE_BYTES + NODE_NAME_COPIES * names + pieces.map_or(0, |held| bitfield_bytes(held.pieces()))
    }
}

/// The key under which a node is remembered.
pub(super) fn node_key(peer: &SwarmPeer) -> NodeKey {
    (peer.user.clone(), peer.holder.identity())
}

fn bitfield_bytes(pieces: PieceCount) -> usize {
    pieces.0.div_ceil(8) as usize
}

/// The entries of one user's nodes.
fn nodes_of_user<'a, T>(
    nodes: &'a BTreeMap<NodeKey, T>,
    user: &'a UserId,
) -> impl Iterator<Item = (&'a NodeKey, &'a T)> {
    let least = (user.clone(), NodeIdentity::Key(PeerKey([0; 32])));
    nodes.range(least..).take_while(move |((whose, _), _)| whose == user)
}
