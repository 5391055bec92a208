//! Pieces of equal content: each content is fetched once, and zeros never.

use super::bitfield::Bitfield;
use super::manifest::Manifest;
use super::units::{Digest, PieceIndex};

/// Which pieces of a file are equal.
#[derive(Debug)]
pub(super) struct Copies {
    /// The pieces whose content occurs more than once, sorted by digest and then by index.
    repeated: Vec<(Digest, PieceIndex)>,
}

impl Copies {
    /// Sorts out the pieces of a file.
    pub(super) fn of(manifest: &Manifest) -> Copies {
        let mut all: Vec<(Digest, PieceIndex)> =
            manifest.pieces().indices().map(|index| (manifest.digest(index), index)).collect();
        all.sort_unstable();
        let repeated =
            all.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1).flatten().copied().collect();
        Copies { repeated }
    }

    /// All pieces with the content of `index`, itself included, ascending.
    pub(super) fn like(&self, index: PieceIndex, manifest: &Manifest) -> Vec<PieceIndex> {
        let digest = manifest.digest(index);
        let start = self.repeated.partition_point(|(other, _)| *other < digest);
        let run = self.repeated[start..].iter().take_while(|(other, _)| *other == digest);
        let found: Vec<PieceIndex> = run.map(|(_, index)| *index).collect();
        if found.is_empty() { vec![index] } else { found }
    }

    /// The pieces to fetch: one missing piece of each content, without `zeros`.
    pub(super) fn to_fetch(&self, zeros: &Bitfield, held: &Bitfield) -> Bitfield {
        let mut wanted = Bitfield::full(held.pieces());
        for run in self.repeated.chunk_by(|a, b| a.0 == b.0) {
            let fetched = run.iter().map(|(_, index)| *index).find(|index| !held.has(*index));
            for (_, index) in run.iter().filter(|(_, index)| Some(*index) != fetched) {
                wanted.remove(*index);
            }
        }
        for index in zeros.iter().chain(held.iter()) {
            wanted.remove(index);
        }
        wanted
    }

    /// Missing pieces whose content is held at another index: each with that index.
    pub(super) fn to_copy(&self, held: &Bitfield) -> Vec<(PieceIndex, PieceIndex)> {
        let mut copies = Vec::new();
        for run in self.repeated.chunk_by(|a, b| a.0 == b.0) {
            let Some((_, from)) = run.iter().find(|(_, index)| held.has(*index)) else { continue };
            let missing = run.iter().map(|(_, index)| *index).filter(|index| !held.has(*index));
            copies.extend(missing.map(|index| (index, *from)));
        }
        copies
    }
}

#[cfg(test)]
mod tests {
    use sha1::Digest as _;

    use super::super::manifest::{FileName, FileProof};
    use super::super::units::PIECE_BYTES;
    use super::*;

    fn manifest(contents: &[u8], last_len: u32) -> Manifest {
        let last = contents.len() - 1;
        let digest = |(at, byte): (usize, &u8)| {
            let length = if at == last { last_len } else { PIECE_BYTES };
            Digest(sha1::Sha1::digest(vec![*byte; length as usize]).into())
        };
        let digests: Vec<_> = contents.iter().enumerate().map(digest).collect();
        let length = u64::from(PIECE_BYTES) * last as u64 + u64::from(last_len);
        let proof = FileProof::Whole(Digest([1; 20]));
        Manifest::new(FileName::new("f").unwrap(), Some(length), digests, proof, None).unwrap()
    }

    #[test]
    fn one_of_each_content_is_fetched_and_zeros_never() {
        let manifest = manifest(&[1, 2, 1, 0, 2, 1, 0], 100);
        let copies = Copies::of(&manifest);
        let zeros = manifest.zero_pieces();
        assert_eq!(zeros.iter().collect::<Vec<_>>(), [3, 6].map(PieceIndex));
        let mut held = Bitfield::empty(manifest.pieces());
        let to_fetch = |held: &Bitfield| copies.to_fetch(&zeros, held).iter().collect::<Vec<_>>();
        assert_eq!(to_fetch(&held), [0, 1].map(PieceIndex));
        held.insert(PieceIndex(0));
        assert_eq!(
            to_fetch(&held),
            [1, 2].map(PieceIndex),
            "of a content held in part another piece is missing"
        );
        assert_eq!(
            copies.to_copy(&held),
            [(2, 0), (5, 0)].map(|(to, from)| (PieceIndex(to), PieceIndex(from)))
        );
        assert_eq!(copies.like(PieceIndex(2), &manifest), [0, 2, 5].map(PieceIndex));
        assert_eq!(
            copies.like(PieceIndex(6), &manifest),
            [PieceIndex(6)],
            "shorter zeros have a digest of their own"
        );
    }
}
