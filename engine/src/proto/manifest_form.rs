//! Manifests at rest: the bytes that a node keeps so that it can share or fetch again without asking and hashing.
//!
//! The form is fixed: flags, length, counts, name, proof, digests, chain, sealed by a checksum. Twenty bytes a piece, forty
//! with a chain.

use super::manifest::{FileName, FileProof, Manifest};
use super::sealed::{self, Damaged, Magic, Parts};
use super::units::{ChainState, Digest};

/// The form's name and version.
const MAGIC: Magic = *b"shoalmf1";

const LENGTH_KNOWN: u8 = 1;
const PROVES_WHOLE: u8 = 2;
const HAS_CHAIN: u8 = 4;

impl Manifest {
    /// The form at rest.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (id, whole) = match self.proof() {
            FileProof::Whole(digest) => (digest, PROVES_WHOLE),
            FileProof::PiecesOnly(digest) => (digest, 0),
        };
        let known = if self.length_known() { LENGTH_KNOWN } else { 0 };
        let chained = if self.chain().is_some() { HAS_CHAIN } else { 0 };
        let name = self.name().as_str().as_bytes();
        let mut body = vec![known | whole | chained];
        body.push(u8::try_from(name.len()).expect("a file name has at most 255 bytes"));
        body.extend_from_slice(&self.geometry().length().to_le_bytes());
        body.extend_from_slice(&self.pieces().0.to_le_bytes());
        body.extend_from_slice(&id.0);
        body.extend_from_slice(name);
        self.digests().iter().for_each(|digest| body.extend_from_slice(&digest.0));
        self.chain().unwrap_or_default().iter().for_each(|state| body.extend_from_slice(&state.0));
        sealed::seal(MAGIC, &body)
    }

    /// Reads the form at rest; all bytes must be used.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, Damaged> {
        let (body, rest) = sealed::open(MAGIC, bytes)?;
        if !rest.is_empty() {
            return Err(Damaged::Parts);
        }
        let mut parts = Parts::of(body);
        let manifest = read(&mut parts).ok_or(Damaged::Parts)?;
        if parts.rest().is_empty() { Ok(manifest) } else { Err(Damaged::Parts) }
    }
}

fn read(parts: &mut Parts<'_>) -> Option<Manifest> {
    let flags = parts.u8()?;
    let name_bytes = usize::from(parts.u8()?);
    let length = parts.u64()?;
    let pieces = parts.u32()? as usize;
    let id = Digest(parts.array()?);
    let name = FileName::new(std::str::from_utf8(parts.take(name_bytes)?).ok()?).ok()?;
    let digests = values(parts, pieces)?.map(Digest).collect();
    let chain = match flags & HAS_CHAIN {
        0 => None,
        _ => Some(values(parts, pieces.saturating_sub(1))?.map(ChainState).collect()),
    };
    let proof = if flags & PROVES_WHOLE == 0 { FileProof::PiecesOnly(id) } else { FileProof::Whole(id) };
    Manifest::new(name, (flags & LENGTH_KNOWN != 0).then_some(length), digests, proof, chain).ok()
}

/// The next `count` values of 20 bytes. They are there, so no claim of a count allocates more than came.
fn values<'a>(parts: &mut Parts<'a>, count: usize) -> Option<impl Iterator<Item = [u8; 20]> + use<'a>> {
    let bytes = parts.take(count.checked_mul(20)?)?;
    Some(bytes.chunks_exact(20).map(|value| value.try_into().expect("chunks of 20 have 20 bytes")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::manifest::EMPTY_DIGEST;
    use super::super::units::PIECE_BYTES;
    use super::*;

    fn some(pieces: u8, known: bool, whole: bool, chained: bool) -> Manifest {
        let digests: Vec<Digest> = (0..pieces).map(|byte| Digest([byte; 20])).collect();
        let chain = chained.then(|| (1..pieces).map(|byte| ChainState([byte; 20])).collect());
        let length = known.then(|| u64::from(pieces) * u64::from(PIECE_BYTES) - 5);
        let proof = if whole { FileProof::Whole(Digest([9; 20])) } else { FileProof::of_pieces(&digests) };
        Manifest::new(FileName::new("größe.bin").unwrap(), length, digests, proof, chain).unwrap()
    }

    proptest! {
        #[test]
        fn it_comes_back_as_it_was(pieces in 1u8..200, known: bool, whole: bool, chained: bool) {
            let manifest = some(pieces, known, whole, chained);
            prop_assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0usize..2_000) {
            let mut bytes = some(5, true, true, true).to_bytes();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Manifest::from_bytes(&bytes).is_err());
        }
    }

    #[test]
    fn the_empty_file_comes_back_too() {
        let whole = FileProof::Whole(EMPTY_DIGEST);
        let manifest = Manifest::new(FileName::new("f").unwrap(), Some(0), vec![], whole, None).unwrap();
        assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
    }

    #[test]
    fn whole_bytes_that_make_no_sense_are_refused() {
        let body = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
        assert_eq!(Manifest::from_bytes(&sealed::seal(MAGIC, &body)), Err(Damaged::Parts));
        let bytes = [some(2, true, true, true).to_bytes(), vec![0]].concat();
        assert_eq!(Manifest::from_bytes(&bytes), Err(Damaged::Parts));
    }
}
