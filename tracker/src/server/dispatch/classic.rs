//! The longest part of a classic answer: the peers that are named for each hash. It visits all peers for all
//! pieces, so it runs on a worker thread, with peers that were chosen on the loop.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use engine::proto::units::{Digest, PieceIndex};

use crate::api::chunks::{ChunkPeers, PeerPlace};
use crate::api::limits::PEERS_MAX;
use crate::state::leases::{PeerChoice, PieceSharer};

use super::super::limits::{CLASSIC_CANDIDATES_MAX, CLASSIC_PEERS_MAX, CLASSIC_PEERS_MIN};

const _: () = assert!(CLASSIC_CANDIDATES_MAX <= PeerPlace::MAX as usize, "every peer has a place");

/// The input for naming the peers of each hash.
pub(super) struct ClassicChunks {
    first: u32,
    /// Largest number of peers for one hash.
    hash_peers_max: usize,
    sharers: Vec<PieceSharer>,
}

/// Largest number of peers for one hash, in an answer for this many pieces.
pub(super) fn peers_per_hash(pieces: usize) -> usize {
    (CLASSIC_PEERS_MAX / pieces.max(1)).clamp(CLASSIC_PEERS_MIN, PEERS_MAX)
}

impl ClassicChunks {
    /// For an answer with `pieces` pieces from `first` on.
    pub(super) fn new(choice: &PeerChoice<'_>, first: u32, pieces: usize) -> ClassicChunks {
        ClassicChunks {
            first,
            hash_peers_max: peers_per_hash(pieces),
            sharers: choice.sharers(CLASSIC_CANDIDATES_MAX),
        }
    }

    /// Largest number of peers that can be named for one piece.
    pub(super) fn named_peers(&self) -> usize {
        self.hash_peers_max.min(self.sharers.len())
    }

    /// The peers of each hash. Identical pieces share one hash, with the peers of all of them.
    pub(super) fn chunks(&self, digests: &[Digest]) -> ChunkPeers {
        let mut chunks: BTreeMap<Digest, Vec<PeerPlace>> = BTreeMap::new();
        for (index, digest) in (self.first..).zip(digests) {
            let (named, anew) = match chunks.entry(*digest) {
                Entry::Vacant(entry) => (entry.insert(Vec::with_capacity(self.named_peers())), true),
                Entry::Occupied(entry) => (entry.into_mut(), false),
            };
            let holders = (0..).zip(&self.sharers).filter(|(_, sharer)| sharer.has(PieceIndex(index)));
            for (place, _) in holders.take(PEERS_MAX) {
                if named.len() >= self.hash_peers_max {
                    break;
                }
                if anew || !named.contains(&place) {
                    named.push(place);
                }
            }
        }
        let text =
            |sharer: &PieceSharer| (sharer.address.ip().to_string(), sharer.address.port().to_string());
        ChunkPeers { peers: self.sharers.iter().map(text).collect(), chunks }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use engine::proto::manifest::FileName;
    use engine::proto::units::{PieceCount, PieceRange};

    use crate::state::id::{GroupFile, GroupId, SessionId, UserId};
    use crate::state::leases::{AskingClient, FileHolders, LeaseTable, ListedContent};
    use crate::state::node::{NodeEndpoint, SwarmPeer};

    use super::*;

    const LISTED: ListedContent = ListedContent { id: Digest([7; 20]), fold: [7; 32], pieces: PieceCount(4) };

    fn peer(port: u16) -> SwarmPeer {
        let holder = NodeEndpoint { address: SocketAddr::from(([10, 0, 0, 1], port)), peer_key: None };
        SwarmPeer { user: UserId::new(&format!("u{port}")).unwrap(), holder, session: SessionId([1; 16]) }
    }

    /// Number of peers, and the ports named for each hash, in a swarm of these seeders and one leecher with
    /// one piece.
    fn named(seeders: u16, digests: &[u8]) -> (usize, BTreeMap<u8, Vec<u16>>) {
        let file = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
        let mut leases = LeaseTable::new(0);
        let last = PieceRange::single(PieceIndex(LISTED.pieces.0 - 1));
        leases.record_pieces(&file, LISTED, peer(60_000), &[last], 0).unwrap();
        leases.join_swarm(&file, LISTED, peer(60_001));
        let seeders: Vec<SwarmPeer> = (1..=seeders).map(peer).collect();
        let asker = AskingClient { user: &UserId::new("z").unwrap(), address: None, on_loopback: false };
        let uploader = UserId::new("o").unwrap();
        let shared = FileHolders { content: LISTED, uploader: &uploader, seeders: &seeders };
        let choice = leases.choose_peers(&file, shared, asker, 0);
        let digests: Vec<Digest> = digests.iter().map(|byte| Digest([*byte; 20])).collect();
        let chunks = ClassicChunks::new(&choice, 0, digests.len()).chunks(&digests);
        let ports = |places: Vec<PeerPlace>| {
            let mut ports: Vec<u16> =
                places.iter().map(|place| chunks.peers[usize::from(*place)].1.parse().unwrap()).collect();
            ports.sort_unstable();
            ports
        };
        let by_hash = chunks.chunks.into_iter().map(|(digest, places)| (digest.0[0], ports(places)));
        (chunks.peers.len(), by_hash.collect())
    }

    #[test]
    fn a_peer_is_listed_once_and_named_for_each_hash_that_it_has() {
        let (peers, ports) = named(2, &[7, 8, 7, 7]);
        assert_eq!(peers, 3, "a leecher without pieces is not listed");
        assert_eq!(ports, BTreeMap::from([(7, vec![1, 2, 60_000]), (8, vec![1, 2])]));
    }

    #[test]
    fn the_number_of_named_peers_is_bounded() {
        let (peers, ports) = named(2_000, &[7, 8, 9, 10]);
        assert_eq!(peers, CLASSIC_CANDIDATES_MAX);
        assert!(ports.values().all(|ports| ports.len() == PEERS_MAX));
        let many: Vec<Digest> = (0..CLASSIC_PEERS_MAX as u64)
            .map(|number| {
                let mut digest = [0; 20];
                digest[..8].copy_from_slice(&number.to_be_bytes());
                Digest(digest)
            })
            .collect();
        assert_eq!(peers_per_hash(many.len()), CLASSIC_PEERS_MIN);
    }
}
