//! Manifests at rest: a node keeps them to share or fetch a file again without the tracker and without hashing.
//!
//! The body is flags, name length, file length, piece count, content digest, name, digests and chain; `sealed` adds a
//! format name, the body's length and a checksum. It has 20 bytes a piece, or 40 with a chain: 80 MiB for 1 TiB. It is
//! therefore written in blocks and read in place.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use super::hashes::{self, BackingBytes, HASH_BYTES, Sha1List, Sha1Value};
use super::manifest::{FileName, FileProof, MAX_FILE_NAME_BYTES, Manifest};
use super::sealed::{self, FieldReader, FormatMagic, SealError, SealWriter};
use super::units::Digest;

/// Name and version of the form.
const MAGIC: FormatMagic = *b"shoalmf1";

const LENGTH_KNOWN: u8 = 1;
const PROVES_WHOLE: u8 = 2;
const HAS_CHAIN: u8 = 4;

/// Most bytes before the digests: flags, name length, file length, pieces, content digest, name.
const HEAD_MAX_BYTES: usize = 1 + 1 + 8 + 4 + HASH_BYTES + MAX_FILE_NAME_BYTES;

/// Digests or chain states in one written block: 80 KiB.
const WRITE_VALUES: usize = 4_096;

impl Manifest {
    /// The form at rest as one value, for manifests that fit in memory.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let put = |block: &[u8]| -> Result<(), Infallible> {
            bytes.extend_from_slice(block);
            Ok(())
        };
        let Ok(_) = self.write(put);
        bytes
    }

    /// Passes the form at rest to `put` in blocks. Returns the checksum at its end.
    ///
    /// # Errors
    /// The errors of `put`.
    pub fn write<E>(
        &self,
        mut put: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<[u8; sealed::SUM_BYTES], E> {
        let head = self.head();
        let chain_len = self.chain().map_or(0, Sha1List::len);
        let hashes_bytes = (self.digests().len() + chain_len) * HASH_BYTES;
        let (mut sealer, opening) = SealWriter::new(MAGIC, (head.len() + hashes_bytes) as u64);
        put(&opening)?;
        let mut body = |block: &[u8]| {
            sealer.add(block);
            put(block)
        };
        body(&head)?;
        write_values(self.digests(), &mut body)?;
        self.chain().map_or(Ok(()), |chain| write_values(chain, &mut body))?;
        let sum = sealer.finish();
        put(&sum).map(|()| sum)
    }

    fn head(&self) -> Vec<u8> {
        let (id, whole) = match self.proof() {
            FileProof::Whole(digest) => (digest, PROVES_WHOLE),
            FileProof::PiecesOnly(digest) => (digest, 0),
        };
        let known = if self.is_length_known() { LENGTH_KNOWN } else { 0 };
        let chained = if self.chain().is_some() { HAS_CHAIN } else { 0 };
        let name = self.name().as_str().as_bytes();
        let mut head = vec![known | whole | chained];
        head.push(u8::try_from(name.len()).expect("a file name has at most 255 bytes"));
        head.extend_from_slice(&self.geometry().length().to_le_bytes());
        head.extend_from_slice(&self.pieces().0.to_le_bytes());
        head.extend_from_slice(&id.0);
        head.extend_from_slice(name);
        assert!(head.len() <= HEAD_MAX_BYTES, "the reader looks no further for the digests");
        head
    }

    /// Reads the form at rest; all bytes must be used.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, SealError> {
        let bytes: Arc<dyn BackingBytes> = Arc::new(bytes.to_vec());
        Manifest::from_backing(&bytes)
    }

    /// As [`Manifest::from_bytes`]; the digests and the chain stay in `bytes`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn from_backing(bytes: &Arc<dyn BackingBytes>) -> Result<Manifest, SealError> {
        let body = sealed::check_seal(MAGIC, &**bytes)?;
        if body.end + sealed::SUM_BYTES != bytes.length() {
            return Err(SealError::Inconsistent);
        }
        read_manifest(bytes, body).ok_or(SealError::Inconsistent)
    }
}

fn write_values<T: Sha1Value, E>(
    values: &Sha1List<T>,
    put: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    (0..values.len())
        .step_by(WRITE_VALUES)
        .try_for_each(|start| put(&hashes::join_values(&values.range(start..start + WRITE_VALUES))))
}

fn read_manifest(bytes: &Arc<dyn BackingBytes>, body: Range<usize>) -> Option<Manifest> {
    let mut start = vec![0; body.len().min(HEAD_MAX_BYTES)];
    bytes.copy(body.start, &mut start);
    let mut parts = FieldReader::of(&start);
    let flags = parts.u8()?;
    let name_bytes = usize::from(parts.u8()?);
    let length = parts.u64()?;
    let pieces = parts.u32()? as usize;
    let id = Digest(parts.array()?);
    let name = FileName::new(std::str::from_utf8(parts.take(name_bytes)?).ok()?).ok()?;
    let first = body.start + start.len() - parts.rest().len();
    let digests = Sha1List::from_backing(Arc::clone(bytes), first, pieces)?;
    let mut end = first + pieces * HASH_BYTES;
    let chain = match flags & HAS_CHAIN {
        0 => None,
        _ => {
            let states = pieces.saturating_sub(1);
            let chain = Sha1List::from_backing(Arc::clone(bytes), end, states)?;
            end += states * HASH_BYTES;
            Some(chain)
        }
    };
    let proof = if flags & PROVES_WHOLE == 0 { FileProof::PiecesOnly(id) } else { FileProof::Whole(id) };
    let length = (flags & LENGTH_KNOWN != 0).then_some(length);
    // The lists must end where the body does: the checksum follows, and is not part of them.
    if end == body.end { Manifest::from_lists(name, length, digests, proof, chain).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::manifest::EMPTY_DIGEST;
    use super::super::units::{ChainState, PIECE_BYTES};
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
    fn a_sealed_body_whose_fields_contradict_each_other_is_refused() {
        let body = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
        assert_eq!(Manifest::from_bytes(&sealed::seal_body(MAGIC, &body)), Err(SealError::Inconsistent));
        let bytes = [some(2, true, true, true).to_bytes(), vec![0]].concat();
        assert_eq!(Manifest::from_bytes(&bytes), Err(SealError::Inconsistent));
    }
}
