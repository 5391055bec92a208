//! On-disk form of a record: which file it is for and which pieces are durable, followed by 8-byte notes on
//! pieces that may have been written since.
//!
//! ```text
//!   sealed: partial file, own file, state, identity, exact length, flags, │ note │ note │ …
//!           bit field of durable pieces                                    │
//!   written whole, flushed, renamed                                        │ written, never flushed
//! ```
//!
//! docs/formats.md draws it byte by byte. A record names the partial file that it was written for and the
//! file that it is in, and counts nowhere else: two files are never copied at the same moment, so a copied
//! record may claim what a copied partial file does not have.
//!
//! A wrong note costs hashing one piece, a lost one fetching it.

use std::collections::BTreeSet;

use sha2::Digest as _;

use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::{FileProof, Manifest};
use crate::proto::sealed::{self, FieldReader, FormatMagic, SealError, put_optional};
use crate::proto::units::{Digest, PieceIndex};
use crate::storage::file_identity::FileIdentity;
use crate::storage::file_state::FileState;

/// Name and version of the format.
const MAGIC: FormatMagic = *b"shoalrc4";

/// What the names of all versions begin with.
const MAGIC_STEM: &[u8] = b"shoalrc";

/// Length of a note: the piece's index, and a check of it (see [`note_to_bytes`]).
pub(super) const NOTE_BYTES: usize = 8;

/// Flag: every link of the recorded pieces held.
const LINKS_HOLD: u8 = 1;

/// Flag: pieces neither recorded nor noted are missing.
const COMPLETE: u8 = 2;

/// Pieces that may have been written since the record.
pub(super) type NotedPieces = BTreeSet<PieceIndex>;

/// The on-disk form of a note behind a record with this seal.
pub(super) fn note_to_bytes(index: PieceIndex, seal: u32) -> [u8; NOTE_BYTES] {
    let check = u64::from(!index.0 ^ seal);
    (check << u32::BITS | u64::from(index.0)).to_le_bytes()
}

fn read_note(bytes: &[u8], seal: u32) -> Option<PieceIndex> {
    let index = PieceIndex(FieldReader::of(bytes).u32()?);
    (note_to_bytes(index, seal) == bytes).then_some(index)
}

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
    /// The partial file.
    pub(super) partial_file: FileIdentity,
    /// The file that this record is in.
    pub(super) record_file: FileIdentity,
    /// State of the partial file after the last piece of the record was written; `None` while more was being
    /// written.
    pub(super) file_state: Option<FileState>,
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
        self.partial_file.write_to(&mut body);
        self.record_file.write_to(&mut body);
        put_optional(&mut body, self.file_state.map(FileState::to_bytes));
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

    /// Whether these bytes are a record of another version of this program.
    pub(super) fn is_other_version(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC_STEM) && !bytes.starts_with(&MAGIC)
    }

    /// Reads a record and its notes. Skips notes that are truncated or damaged, as a crash leaves them.
    pub(super) fn parse(bytes: &[u8]) -> Result<(ResumeRecord, NotedPieces), SealError> {
        let (body, tail) = sealed::open_sealed(MAGIC, bytes)?;
        let record = ResumeRecord::read(&mut FieldReader::of(body)).ok_or(SealError::Inconsistent)?;
        let seal = record_seal(&bytes[..bytes.len() - tail.len()]);
        let pieces = record.durable.pieces();
        let noted = tail
            .chunks_exact(NOTE_BYTES)
            .filter_map(|bytes| read_note(bytes, seal))
            .filter(|index| index.0 < pieces.0)
            .collect();
        Ok((record, noted))
    }

    fn read(parts: &mut FieldReader<'_>) -> Option<ResumeRecord> {
        let (partial_file, record_file) = (FileIdentity::read_from(parts)?, FileIdentity::read_from(parts)?);
        let file_state = parts.optional(FileState::read_from)?;
        let length = parts.optional(FieldReader::u64)?;
        let content = Digest(parts.array()?);
        let digests = parts.array()?;
        let chain = parts.optional(FieldReader::array)?;
        let exact_length = parts.optional(FieldReader::u64)?;
        let flags = parts.u8()?;
        let pieces = crate::proto::units::PieceCount(parts.u32()?);
        let durable = Bitfield::from_bytes(parts.rest(), pieces).ok()?;
        Some(ResumeRecord {
            partial_file,
            record_file,
            file_state,
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
