//! Pieces with equal content: each content is fetched once, and zeros never.
//!
//! Digests are read only to build the table, never afterwards: they may be on a disk, and the table is used while a
//! transfer's lock is held.

use super::bitfield::Bitfield;
use super::manifest::Manifest;
use super::units::{Digest, PieceIndex};

/// The groups of equal pieces of a file.
#[derive(Debug)]
pub(super) struct EqualPieces {
    /// All pieces whose content occurs more than once, ascending, each with the next piece of equal content. The last one
    /// points to the first, so equal pieces form a ring. Without pieces of zeros.
    repeated: Vec<(PieceIndex, PieceIndex)>,
    zeros: Bitfield,
}

impl EqualPieces {
    /// Groups the pieces of a file. Pieces of zeros are neither fetched nor copied.
    pub(super) fn from_manifest(manifest: &Manifest) -> EqualPieces {
        let zeros = manifest.zero_pieces();
        // Four bytes of the digest and four of the index: sorting the pieces of 1 TiB takes 16 MiB.
        let mut all: Vec<u64> = Vec::with_capacity(manifest.pieces().as_usize());
        let digests = manifest.pieces().indices().zip(manifest.digests().iter());
        all.extend(
            digests
                .filter(|(index, _)| !zeros.has(*index))
                .map(|(index, digest)| u64::from(digest_prefix(digest)) << u32::BITS | u64::from(index.0)),
        );
        all.sort_unstable();
        let mut repeated = Vec::new();
        for same_prefix in all.chunk_by(|a, b| a >> u32::BITS == b >> u32::BITS).filter(|same| same.len() > 1)
        {
            add_repeated(same_prefix, manifest, &mut repeated);
        }
        assert!(
            repeated.len() + zeros.count().as_usize() <= manifest.pieces().as_usize(),
            "a piece has one content"
        );
        repeated.sort_unstable();
        repeated.shrink_to_fit();
        EqualPieces { repeated, zeros }
    }

    /// The pieces of zeros.
    pub(super) fn zeros(&self) -> &Bitfield {
        &self.zeros
    }

    /// All pieces with the content of `index`, including itself, ascending.
    pub(super) fn equal_to(&self, index: PieceIndex) -> Vec<PieceIndex> {
        let mut equal = vec![index];
        let mut next = self.next_equal(index);
        while next != index {
            equal.push(next);
            next = self.next_equal(next);
        }
        equal.sort_unstable();
        equal
    }

    /// The next piece with the content of `index`; after the last the first, and `index` itself where it is the only one.
    fn next_equal(&self, index: PieceIndex) -> PieceIndex {
        let found = self.repeated.binary_search_by_key(&index, |(own, _)| *own);
        found.map_or(index, |at| self.repeated[at].1)
    }

    /// The pieces to fetch: one missing piece of each content, except zeros.
    pub(super) fn to_fetch(&self, held: &Bitfield) -> Bitfield {
        let mut wanted = Bitfield::full(held.pieces());
        for group in self.groups() {
            let fetched = group.iter().copied().find(|index| !held.has(*index));
            for index in group.iter().filter(|index| Some(**index) != fetched) {
                wanted.remove(*index);
            }
        }
        for index in self.zeros.iter().chain(held.iter()) {
            wanted.remove(index);
        }
        wanted
    }

    /// Missing pieces whose content is held at another index, each with that index.
    pub(super) fn to_copy(&self, held: &Bitfield) -> Vec<(PieceIndex, PieceIndex)> {
        let mut copies = Vec::new();
        for group in self.groups() {
            let Some(from) = group.iter().find(|index| held.has(**index)) else { continue };
            let missing = group.iter().filter(|index| !held.has(**index));
            copies.extend(missing.map(|index| (*index, *from)));
        }
        copies
    }

    /// The groups of equal pieces, each ascending.
    fn groups(&self) -> impl Iterator<Item = Vec<PieceIndex>> {
        // Only the last piece of a ring has a next piece with a lower index: the first of the ring.
        self.repeated.iter().filter(|(index, next)| next < index).map(|(_, first)| self.equal_to(*first))
    }
}

/// The first four bytes of a digest, as a number that sorts like them.
fn digest_prefix(digest: Digest) -> u32 {
    digest.0.first_chunk().copied().map_or(0, u32::from_be_bytes)
}

/// Adds the equal ones among pieces whose digests have the same prefix. `same_prefix` is ascending by index.
fn add_repeated(same_prefix: &[u64], manifest: &Manifest, repeated: &mut Vec<(PieceIndex, PieceIndex)>) {
    let digest = |key: &u64| manifest.digest(key_index(*key));
    let first = digest(&same_prefix[0]);
    if same_prefix.iter().all(|key| digest(key) == first) {
        return add_ring(same_prefix, repeated);
    }
    let mut sorted = same_prefix.to_vec();
    sorted.sort_by_key(digest);
    sorted
        .chunk_by(|a, b| digest(a) == digest(b))
        .filter(|group| group.len() > 1)
        .for_each(|group| add_ring(group, repeated));
}

/// Adds each piece with the next, and the last with the first.
fn add_ring(group: &[u64], repeated: &mut Vec<(PieceIndex, PieceIndex)>) {
    let next = group.iter().cycle().skip(1);
    repeated.extend(group.iter().zip(next).map(|(key, next)| (key_index(*key), key_index(*next))));
}

fn key_index(key: u64) -> PieceIndex {
    PieceIndex(u32::try_from(key & u64::from(u32::MAX)).expect("32 bits"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sha1::Digest as _;

    use super::super::manifest::{FileName, FileProof};
    use super::super::units::PIECE_BYTES;
    use super::*;

    fn manifest(contents: &[u8], last_len: u32) -> Arc<Manifest> {
        let last = contents.len() - 1;
        let digest = |(at, byte): (usize, &u8)| {
            let length = if at == last { last_len } else { PIECE_BYTES };
            Digest(sha1::Sha1::digest(vec![*byte; length as usize]).into())
        };
        let digests: Vec<_> = contents.iter().enumerate().map(digest).collect();
        let length = u64::from(PIECE_BYTES) * last as u64 + u64::from(last_len);
        let proof = FileProof::Whole(Digest([1; 20]));
        Arc::new(Manifest::new(FileName::new("f").unwrap(), Some(length), digests, proof, None).unwrap())
    }

    #[test]
    fn one_piece_of_each_content_is_fetched_and_zeros_never() {
        let manifest = manifest(&[1, 2, 1, 0, 2, 1, 0], 100);
        let copies = EqualPieces::from_manifest(&manifest);
        assert_eq!(copies.zeros().iter().collect::<Vec<_>>(), [3, 6].map(PieceIndex));
        let mut held = Bitfield::empty(manifest.pieces());
        let to_fetch = |held: &Bitfield| copies.to_fetch(held).iter().collect::<Vec<_>>();
        assert_eq!(to_fetch(&held), [0, 1].map(PieceIndex));
        held.insert(PieceIndex(0));
        assert_eq!(
            to_fetch(&held),
            [1, 2].map(PieceIndex),
            "the first missing piece of a content is fetched"
        );
        assert_eq!(
            copies.to_copy(&held),
            [(2, 0), (5, 0)].map(|(to, from)| (PieceIndex(to), PieceIndex(from)))
        );
        assert_eq!(copies.equal_to(PieceIndex(2)), [0, 2, 5].map(PieceIndex));
        assert_eq!(
            copies.equal_to(PieceIndex(6)),
            [PieceIndex(6)],
            "a shorter piece of zeros has another digest"
        );
    }

    #[test]
    fn digests_with_the_same_prefix_are_not_equal() {
        let digest = |end: u8| Digest([[7; 19].as_slice(), &[end]].concat().try_into().unwrap());
        let digests = [3, 1, 2, 1, 3, 4].map(digest).to_vec();
        let proof = FileProof::Whole(Digest([1; 20]));
        let name = FileName::new("f").unwrap();
        let manifest = Arc::new(Manifest::new(name, None, digests, proof, None).unwrap());
        let copies = EqualPieces::from_manifest(&manifest);
        let rings = [(0, 4), (1, 3), (3, 1), (4, 0)];
        assert_eq!(copies.repeated, rings.map(|(index, next)| (PieceIndex(index), PieceIndex(next))));
        assert_eq!(copies.equal_to(PieceIndex(4)), [0, 4].map(PieceIndex));
        assert_eq!(copies.equal_to(PieceIndex(2)), [PieceIndex(2)]);
    }
}
