//! The peers of each piece as the classic view shows them: an object from hash to a list of peers.
//!
//! Invariant: each peer's text is stored once; hashes refer to it by its index in the list of peers.

use std::collections::{BTreeMap, HashMap};

use engine::proto::units::Digest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A peer in the classic form: IP and port, both as text.
pub type ClassicPeer = (String, String);

/// Index of a peer in [`ChunkPeers::peers`].
pub type PeerPlace = u16;

/// The peers of each hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChunkPeers {
    /// All peers that occur.
    pub peers: Vec<ClassicPeer>,
    /// Indices of the peers that have each hash.
    pub chunks: BTreeMap<Digest, Vec<PeerPlace>>,
}

/// The peers of one hash: all peers, and the indices of those that have it.
struct ChunkHolders<'a>(&'a [ClassicPeer], &'a [PeerPlace]);

impl Serialize for ChunkHolders<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.1.iter().map(|place| &self.0[usize::from(*place)]))
    }
}

impl Serialize for ChunkPeers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let of_hash = |(digest, places): (&Digest, _)| (digest.to_string(), places);
        to.collect_map(
            self.chunks
                .iter()
                .map(|(digest, places)| (digest, ChunkHolders(&self.peers, places)))
                .map(of_hash),
        )
    }
}

impl<'de> Deserialize<'de> for ChunkPeers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ChunkPeers, D::Error> {
        let text: BTreeMap<String, Vec<ClassicPeer>> = BTreeMap::deserialize(from)?;
        let mut known: HashMap<ClassicPeer, PeerPlace> = HashMap::new();
        let mut read = ChunkPeers::default();
        for (hash, peers) in text {
            let mut places = Vec::with_capacity(peers.len());
            for peer in peers {
                let next = PeerPlace::try_from(read.peers.len())
                    .map_err(|_| D::Error::custom("the answer names too many peers"))?;
                places.push(*known.entry(peer).or_insert_with_key(|peer| {
                    read.peers.push(peer.clone());
                    next
                }));
            }
            read.chunks.insert(hash.parse().map_err(D::Error::custom)?, places);
        }
        Ok(read)
    }
}
