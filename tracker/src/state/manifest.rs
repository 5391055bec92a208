//! Manifests in the tables: piece digests and chain, in rows of [`MANIFEST_ROW_PIECES`] pieces, each manifest under a
//! number.
//!
//! A row is raw: the number of digests (u32, big-endian), the digests, then the chain states, 20 bytes each.
//! Invariants: all rows but the last are full; a chain has a state for each piece but the file's last. A manifest is
//! compared by its fold, a running SHA-256 over its rows' digests, so no decision reads one whole.

use engine::proto::units::{ChainState, Digest};
use sha2::{Digest as _, Sha256};

use super::command::ManifestPart;
use super::key::Key;
use super::limits::{MANIFEST_ROW_PIECES, ROW_MAX_BYTES};
use super::tables::{Table, Tables};

/// The fold of no pieces.
pub(super) const EMPTY_FOLD: [u8; 32] = [0; 32];

/// Digests and chain of consecutive pieces of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// One digest a piece.
    pub digests: Vec<Digest>,
    /// The state after each of these pieces, but not after the file's last; `None` where the uploader gave no chain.
    pub chain: Option<Vec<ChainState>>,
}

/// The fold of the pieces up to and including this part.
pub(super) fn fold(before: [u8; 32], part: &ManifestPart) -> [u8; 32] {
    Sha256::new().chain_update(before).chain_update(part.digests.as_flattened()).finalize().into()
}

/// Writes the row that begins at piece `first`.
pub(super) fn store(tables: &mut dyn Tables, manifest: u64, first: u32, part: &ManifestPart) {
    let count = u32::try_from(part.digests.len()).expect("a part is checked to be at most a row");
    let chain = part.chain.as_ref().map_or(&[][..], |states| &states.0);
    let mut row = count.to_be_bytes().to_vec();
    row.extend_from_slice(part.digests.as_flattened());
    row.extend_from_slice(chain.as_flattened());
    assert!(row.len() <= ROW_MAX_BYTES, "a manifest's row of {} bytes", row.len());
    tables.put(Table::Manifests, &Key::manifest_row(manifest, first / MANIFEST_ROW_PIECES).0, &row);
}

/// Removes the rows of a manifest of `pieces` pieces.
pub(super) fn remove(tables: &mut dyn Tables, manifest: u64, pieces: u32) {
    for row in 0..pieces.div_ceil(MANIFEST_ROW_PIECES) {
        tables.remove(Table::Manifests, &Key::manifest_row(manifest, row).0);
    }
}

/// Reads `count` pieces from `first`, or as many as there are, row by row.
pub(super) fn read(tables: &dyn Tables, manifest: u64, has_chain: bool, first: u32, count: u32) -> Pieces {
    let mut pieces = Pieces { digests: Vec::new(), chain: has_chain.then(Vec::new) };
    let end = first.saturating_add(count);
    let mut next = first;
    while next < end {
        let row = next / MANIFEST_ROW_PIECES;
        let Some(bytes) = tables.get(Table::Manifests, &Key::manifest_row(manifest, row).0) else { break };
        let (digests, chain) = split(&bytes);
        let base = row * MANIFEST_ROW_PIECES;
        let (from, to) = ((next - base) as usize, ((end - base) as usize).min(digests.len()));
        if from >= to {
            break;
        }
        pieces.digests.extend(digests[from..to].iter().copied().map(Digest));
        if let Some(states) = &mut pieces.chain {
            let states_here = &chain[from.min(chain.len())..to.min(chain.len())];
            states.extend(states_here.iter().copied().map(ChainState));
        }
        next = base.saturating_add(MANIFEST_ROW_PIECES);
    }
    pieces
}

/// A row's digests and chain states.
fn split(row: &[u8]) -> (&[[u8; 20]], &[[u8; 20]]) {
    let (count, values) = row.split_first_chunk::<4>().expect("`store` writes the count first");
    values.as_chunks::<20>().0.split_at(u32::from_be_bytes(*count) as usize)
}
