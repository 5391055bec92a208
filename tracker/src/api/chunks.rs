//! Who has each piece, as the classic view tells it: an object of hashes, each with its peers.
//!
//! Invariant: a peer's text stands once, however many pieces it has; what a hash has are places in the list of peers.

use std::collections::{BTreeMap, HashMap};

use engine::proto::units::Digest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A peer in the classic form: IP and port, both as text.
pub type ClassicPeer = (String, String);

/// The place of a peer in the list of peers.
pub type PeerPlace = u16;

/// The peers of each hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChunkPeers {
    /// All peers that are named.
    pub peers: Vec<ClassicPeer>,
    /// Of each hash, which of them have it.
    pub chunks: BTreeMap<Digest, Vec<PeerPlace>>,
}

/// The peers of one hash, as text.
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
                    .map_err(|_| D::Error::custom("more peers than an answer names"))?;
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
