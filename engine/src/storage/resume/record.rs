//! On-disk form of a record: which file it is for and which pieces are durable, followed by 8-byte notes on
//! other pieces.
//!
//! ```text
//!   sealed: page cache, partial file, own file, identity, exact length, flags, │ note │ note │ …
//!           bit field of durable pieces                                        │
//!   written whole, flushed, renamed                                            │ written, never flushed
//! ```
//!
//! docs/formats.md draws it byte by byte. A record names the partial file that it was written for and the
//! file that it is in, and counts nowhere else: two files are never copied at the same moment, so a copied
//! record may claim what a copied partial file does not have.
//!
//! The last note on a piece counts. In the page cache that the record names, a note of a written piece is
//! trusted; in another, all notes only say which pieces to hash. A wrong note costs hashing one piece, a lost
//! one fetching it.

use std::collections::BTreeMap;

use sha2::Digest as _;

use super::page_cache::PageCacheId;
use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::{FileProof, Manifest};
use crate::proto::sealed::{self, FieldReader, FormatMagic, SealError, put_optional};
use crate::proto::units::{Digest, PieceIndex};
use crate::storage::file_identity::FileIdentity;

/// Name and version of the format.
const MAGIC: FormatMagic = *b"shoalrc3";

/// Length of a note: the piece's index, and a check of it (see [`PieceNote::to_bytes`]).
pub(super) const NOTE_BYTES: usize = 8;

/// Flag: every link of the recorded pieces held.
const LINKS_HOLD: u8 = 1;

/// Flag: pieces neither recorded nor noted are missing.
const COMPLETE: u8 = 2;

/// What a note says about a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceNote {
    /// It is about to be written.
    Begun,
    /// It was proven and written completely.
    Written {
        /// Its link held under the identity's chain.
        link_holds: bool,
    },
}

impl PieceNote {
    const ALL: [PieceNote; 3] =
        [PieceNote::Begun, PieceNote::Written { link_holds: false }, PieceNote::Written { link_holds: true }];

    /// Mixed into the check. The values differ in 16 bits or more, so damage does not turn one note into
    /// another.
    const fn check_mask(self) -> u32 {
        match self {
            PieceNote::Begun => 0,
            PieceNote::Written { link_holds: false } => 0x0F0F_0F0F,
            PieceNote::Written { link_holds: true } => 0xF0F0_F0F0,
        }
    }

    /// The on-disk form behind a record with this seal.
    pub(super) fn to_bytes(self, index: PieceIndex, seal: u32) -> [u8; NOTE_BYTES] {
        let check = u64::from(!index.0 ^ seal ^ self.check_mask());
        (check << u32::BITS | u64::from(index.0)).to_le_bytes()
    }

    fn read(bytes: &[u8], seal: u32) -> Option<(PieceIndex, PieceNote)> {
        let index = PieceIndex(FieldReader::of(bytes).u32()?);
        let note = PieceNote::ALL.into_iter().find(|note| note.to_bytes(index, seal) == bytes)?;
        Some((index, note))
    }
}

/// The last note of each piece.
pub(super) type NotedPieces = BTreeMap<PieceIndex, PieceNote>;

/// Identifies the content that a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentIdentity {
    /// Length in bytes, as the manifest states it.
    pub(super) length: Option<u64>,
    /// See [`FileProof::id`].
    pub(super) content: Digest,
    /// SHA-256 over the kind of proof and all piece digests.
    pub(super) digests: [u8; 32],
    /// SHA-256 of the chain; `None` where there is none.
    pub(super) chain: Option<[u8; 32]>,
}

impl ContentIdentity {
    pub(super) fn of(manifest: &Manifest) -> ContentIdentity {
        let mut digests = sha2::Sha256::new();
        digests.update([u8::from(matches!(manifest.proof(), FileProof::Whole(_)))]);
        manifest.digests().iter().for_each(|digest| digests.update(digest.0));
        let chain = manifest.chain().map(|chain| {
            let mut hash = sha2::Sha256::new();
            chain.iter().for_each(|state| hash.update(state.0));
            hash.finalize().into()
        });
        ContentIdentity {
            length: manifest.is_length_known().then(|| manifest.geometry().length()),
            content: manifest.proof().id(),
            digests: digests.finalize().into(),
            chain,
        }
    }

    /// Whether both have the same pieces; the chain may differ.
    pub(super) fn same_pieces(&self, other: &ContentIdentity) -> bool {
        (self.length, self.content, self.digests) == (other.length, other.content, other.digests)
    }
}

/// A record: what is claimed of a partial file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResumeRecord {
    /// Page cache that the noted pieces were written through, if known.
    pub(super) page_cache: Option<PageCacheId>,
    /// The partial file.
    pub(super) partial_file: FileIdentity,
    /// The file that this record is in.
    pub(super) record_file: FileIdentity,
    pub(super) identity: ContentIdentity,
    /// Exact length in bytes, once the last piece has proven it.
    pub(super) exact_length: Option<u64>,
    /// Whether the link of each durable piece held under the identity's chain.
    pub(super) links_hold: bool,
    /// Whether pieces neither durable nor noted are known to be missing; otherwise they may be there.
    pub(super) is_complete: bool,
    /// Pieces that were flushed before this record was written.
    pub(super) durable: Bitfield,
}

impl ResumeRecord {
    /// The on-disk form without notes, and the seal that its notes need.
    pub(super) fn to_bytes(&self) -> (Vec<u8>, u32) {
        let mut body = Vec::new();
        put_optional(&mut body, self.page_cache.map(|page_cache| page_cache.0));
        self.partial_file.write_to(&mut body);
        self.record_file.write_to(&mut body);
        put_optional(&mut body, self.identity.length.map(u64::to_le_bytes));
        body.extend_from_slice(&self.identity.content.0);
        body.extend_from_slice(&self.identity.digests);
        put_optional(&mut body, self.identity.chain);
        put_optional(&mut body, self.exact_length.map(u64::to_le_bytes));
        let links = if self.links_hold { LINKS_HOLD } else { 0 };
        let complete = if self.is_complete { COMPLETE } else { 0 };
        body.push(links | complete);
        body.extend_from_slice(&self.durable.pieces().0.to_le_bytes());
        body.extend_from_slice(&self.durable.to_bytes());
        let sealed = sealed::seal_body(MAGIC, &body);
        let seal = record_seal(&sealed);
        (sealed, seal)
    }

    /// Reads a record and its notes. Skips notes that are truncated or damaged, as a crash leaves them.
    pub(super) fn parse(bytes: &[u8]) -> Result<(ResumeRecord, NotedPieces), SealError> {
        let (body, tail) = sealed::open_sealed(MAGIC, bytes)?;
        let record = ResumeRecord::read(&mut FieldReader::of(body)).ok_or(SealError::Inconsistent)?;
        let seal = record_seal(&bytes[..bytes.len() - tail.len()]);
        let pieces = record.durable.pieces();
        let noted = tail
            .chunks_exact(NOTE_BYTES)
            .filter_map(|bytes| PieceNote::read(bytes, seal))
            .filter(|(index, _)| index.0 < pieces.0)
            .collect();
        Ok((record, noted))
    }

    fn read(parts: &mut FieldReader<'_>) -> Option<ResumeRecord> {
        let page_cache = parts.optional(FieldReader::array)?.map(PageCacheId);
        let (partial_file, record_file) = (FileIdentity::read_from(parts)?, FileIdentity::read_from(parts)?);
        let length = parts.optional(FieldReader::u64)?;
        let content = Digest(parts.array()?);
        let digests = parts.array()?;
        let chain = parts.optional(FieldReader::array)?;
        let exact_length = parts.optional(FieldReader::u64)?;
        let flags = parts.u8()?;
        let pieces = crate::proto::units::PieceCount(parts.u32()?);
        let durable = Bitfield::from_bytes(parts.rest(), pieces).ok()?;
        Some(ResumeRecord {
            page_cache,
            partial_file,
            record_file,
            identity: ContentIdentity { length, content, digests, chain },
            exact_length,
            links_hold: flags & LINKS_HOLD != 0,
            is_complete: flags & COMPLETE != 0,
            durable,
        })
    }
}

/// Binds notes to the record they follow: the last four bytes of its checksum.
fn record_seal(sealed: &[u8]) -> u32 {
    sealed.last_chunk().copied().map_or(0, u32::from_le_bytes)
}
