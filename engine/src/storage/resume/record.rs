//! A record at rest: of which file, which pieces are durable; and after it, in notes of eight bytes, which pieces may have
//! been written since.
//!
//! ```text
//!   sealed: identity, exact length, flags, bit field of durable pieces │ note │ note │ …
//!   written whole, flushed, renamed                                    │ appended, never flushed
//! ```
//!
//! Notes are hints: they say where to look after a kill. A false one costs a piece's hashing, a lost one a piece's
//! fetching, and neither the file.

use sha2::Digest as _;

use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::{FileProof, Manifest};
use crate::proto::sealed::{self, Damaged, Magic, Parts, put_optional};
use crate::proto::units::{Digest, PieceIndex};

/// The form's name and version.
const MAGIC: Magic = *b"shoalrc1";

/// A note: the piece's index, and the same once more, mixed with the record's seal.
pub(super) const NOTE_BYTES: usize = 8;

/// Every link of the recorded pieces held.
const LINKS_HOLD: u8 = 1;

/// What is neither recorded nor noted is not there.
const COMPLETE: u8 = 2;

/// What a record is about: content, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// In bytes, as the manifest states it.
    pub(super) length: Option<u64>,
    /// See [`FileProof::id`].
    pub(super) content: Digest,
    /// Of all piece digests, and of which kind of proof they go with.
    pub(super) digests: [u8; 32],
    /// Of the chain; `None` where there is none.
    pub(super) chain: Option<[u8; 32]>,
}

impl Identity {
    /// Of a manifest's file.
    pub(super) fn of(manifest: &Manifest) -> Identity {
        let mut digests = sha2::Sha256::new();
        digests.update([u8::from(matches!(manifest.proof(), FileProof::Whole(_)))]);
        manifest.digests().iter().for_each(|digest| digests.update(digest.0));
        let chain = manifest.chain().map(|chain| {
            let mut hash = sha2::Sha256::new();
            chain.iter().for_each(|state| hash.update(state.0));
            hash.finalize().into()
        });
        Identity {
            length: manifest.length_known().then(|| manifest.geometry().length()),
            content: manifest.proof().id(),
            digests: digests.finalize().into(),
            chain,
        }
    }

    /// Whether these are the same pieces, whatever the chain says.
    pub(super) fn same_pieces(&self, other: &Identity) -> bool {
        (self.length, self.content, self.digests) == (other.length, other.content, other.digests)
    }
}

/// What is claimed of a partial file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Of which file.
    pub(super) identity: Identity,
    /// In bytes, as far as it was known: the last piece has proven it.
    pub(super) exact_length: Option<u64>,
    /// The link of each durable piece held under the identity's chain.
    pub(super) links_hold: bool,
    /// What is neither durable nor noted is not there; else it may be.
    pub(super) complete: bool,
    /// Pieces that were flushed before this record was written.
    pub(super) durable: Bitfield,
}

impl Record {
    /// The form at rest, without notes, and the seal that its notes need.
    pub(super) fn to_bytes(&self) -> (Vec<u8>, u32) {
        let mut body = Vec::new();
        put_optional(&mut body, self.identity.length.map(u64::to_le_bytes));
        body.extend_from_slice(&self.identity.content.0);
        body.extend_from_slice(&self.identity.digests);
        put_optional(&mut body, self.identity.chain);
        put_optional(&mut body, self.exact_length.map(u64::to_le_bytes));
        let links = if self.links_hold { LINKS_HOLD } else { 0 };
        let complete = if self.complete { COMPLETE } else { 0 };
        body.push(links | complete);
        body.extend_from_slice(&self.durable.pieces().0.to_le_bytes());
        body.extend_from_slice(&self.durable.to_bytes());
        let sealed = sealed::seal(MAGIC, &body);
        let seal = seal_of(&sealed);
        (sealed, seal)
    }

    /// Reads a record and its notes. Notes that are cut short or spoilt are left out, as a crash leaves such.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Record, Vec<PieceIndex>), Damaged> {
        let (body, tail) = sealed::open(MAGIC, bytes)?;
        let record = Record::read(&mut Parts::of(body)).ok_or(Damaged::Parts)?;
        let seal = seal_of(&bytes[..bytes.len() - tail.len()]);
        let pieces = record.durable.pieces();
        let mut noted: Vec<PieceIndex> = tail
            .chunks_exact(NOTE_BYTES)
            .filter_map(|bytes| read_note(bytes, seal))
            .filter(|index| index.0 < pieces.0)
            .collect();
        noted.sort_unstable();
        noted.dedup();
        Ok((record, noted))
    }

    fn read(parts: &mut Parts<'_>) -> Option<Record> {
        let length = parts.optional(Parts::u64)?;
        let content = Digest(parts.array()?);
        let digests = parts.array()?;
        let chain = parts.optional(Parts::array)?;
        let exact_length = parts.optional(Parts::u64)?;
        let flags = parts.u8()?;
        let pieces = crate::proto::units::PieceCount(parts.u32()?);
        let durable = Bitfield::from_bytes(parts.rest(), pieces).ok()?;
        Some(Record {
            identity: Identity { length, content, digests, chain },
            exact_length,
            links_hold: flags & LINKS_HOLD != 0,
            complete: flags & COMPLETE != 0,
            durable,
        })
    }
}

/// Ties notes to the record that they follow: the end of its checksum.
fn seal_of(sealed: &[u8]) -> u32 {
    sealed.last_chunk().copied().map_or(0, u32::from_le_bytes)
}

/// A note behind a record of this seal.
pub(super) fn note(index: PieceIndex, seal: u32) -> [u8; NOTE_BYTES] {
    let check = u64::from(!index.0 ^ seal);
    (check << u32::BITS | u64::from(index.0)).to_le_bytes()
}

fn read_note(bytes: &[u8], seal: u32) -> Option<PieceIndex> {
    let index = PieceIndex(Parts::of(bytes).u32()?);
    (note(index, seal) == bytes).then_some(index)
}
