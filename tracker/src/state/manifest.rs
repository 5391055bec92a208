//! Manifests in the tables: digests and chain states in rows of [`MANIFEST_ROW_PIECES`] pieces, each manifest under a
//! number. A row is raw bytes: the digests, then the chain states, 20 bytes each.
//!
//! Invariants: all rows but the last are full. A chain has a state for each piece but the file's last. Manifests are
//! compared by their fold, a running SHA-256 over the rows' digests, so no decision reads a whole manifest.

use engine::proto::units::{ChainState, Digest};
use sha2::{Digest as _, Sha256};

use super::command::ManifestPart;
use super::limits::{MANIFEST_ROW_PIECES, ROW_MAX_BYTES};
use super::row_key::RowKey;
use super::rows::FileRow;
use super::tables::{Table, Tables};

/// Fold of no pieces.
pub(super) const EMPTY_FOLD: [u8; 32] = [0; 32];

/// Digests and chain of consecutive pieces of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestPieces {
    /// Digest of each piece.
    pub digests: Vec<Digest>,
    /// Chain state after each of these pieces except the file's last; `None` if the uploader gave no chain.
    pub chain: Option<Vec<ChainState>>,
}

/// Fold of all pieces up to and including this part.
pub(super) fn fold_part(before: [u8; 32], part: &ManifestPart) -> [u8; 32] {
    Sha256::new().chain_update(before).chain_update(part.digests.as_flattened()).finalize().into()
}

/// Writes the row that begins at piece `first`.
pub(super) fn store_part(tables: &mut dyn Tables, manifest: u64, first: u32, part: &ManifestPart) {
    let chain = part.chain.as_ref().map_or(&[][..], |states| &states.0);
    assert!(first.is_multiple_of(MANIFEST_ROW_PIECES), "a manifest's row begins at piece {first}");
    assert!(chain.len() <= part.digests.len(), "{} states of {} pieces", chain.len(), part.digests.len());
    let row = [part.digests.as_flattened(), chain.as_flattened()].concat();
    assert!(row.len() <= ROW_MAX_BYTES, "a manifest's row of {} bytes", row.len());
    tables.put(Table::Manifests, &RowKey::manifest_row(manifest, first / MANIFEST_ROW_PIECES).0, &row);
}

/// Removes the rows of a manifest of `pieces` pieces.
pub(super) fn remove_rows(tables: &mut dyn Tables, manifest: u64, pieces: u32) {
    for row in 0..pieces.div_ceil(MANIFEST_ROW_PIECES) {
        tables.remove(Table::Manifests, &RowKey::manifest_row(manifest, row).0);
    }
}

/// Reads up to `count` pieces of a file from `first`; `None` when a row could not be read.
pub(super) fn read_pieces(
    tables: &dyn Tables,
    file: &FileRow,
    first: u32,
    count: u32,
) -> Option<ManifestPieces> {
    let mut pieces = ManifestPieces { digests: Vec::new(), chain: file.has_chain.then(Vec::new) };
    let end = first.saturating_add(count).min(file.pieces);
    let mut next = first;
    while next < end {
        let base = next - next % MANIFEST_ROW_PIECES;
        let in_row = MANIFEST_ROW_PIECES.min(file.pieces - base);
        let wanted = (next - base) as usize..in_row.min(end - base) as usize;
        let key = RowKey::manifest_row(file.manifest, base / MANIFEST_ROW_PIECES);
        let row = tables.get(Table::Manifests, &key.0)?;
        let (digests, chain) = row.as_chunks::<20>().0.split_at((in_row as usize).min(row.len() / 20));
        pieces.digests.extend(digests.get(wanted.clone())?.iter().copied().map(Digest));
        if let Some(states) = &mut pieces.chain {
            let last = wanted.end.min(chain.len());
            states.extend(chain[wanted.start.min(last)..last].iter().copied().map(ChainState));
        }
        next = base.saturating_add(in_row);
    }
    assert!(pieces.digests.len() <= count as usize, "{} pieces, {count} wanted", pieces.digests.len());
    assert!(
        pieces.chain.as_ref().is_none_or(|states| states.len() <= pieces.digests.len()),
        "surplus chain states"
    );
    Some(pieces)
}
