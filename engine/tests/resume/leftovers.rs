//! What a killed leecher has left in its directory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use engine::proto::bitfield::Bitfield;
use engine::proto::sealed;
use engine::proto::units::{PieceCount, PieceIndex};

use crate::PIECE;
use crate::partial_files::ending;

/// Indices of the partial file's correct pieces.
pub(crate) fn right_pieces(directory: &Path, content: &[u8]) -> Vec<usize> {
    let Some(path) = ending(directory, ".part") else { return Vec::new() };
    let part = std::fs::read(path).unwrap();
    let pieces = part.chunks(PIECE).zip(content.chunks(PIECE)).enumerate();
    pieces.filter(|(_, (found, wanted))| found == wanted).map(|(index, _)| index).collect()
}

/// Total length of these pieces, in bytes.
pub(crate) fn bytes_of(pieces: &[usize], content: &[u8]) -> u64 {
    pieces.iter().map(|index| content.chunks(PIECE).nth(*index).unwrap().len() as u64).sum()
}

/// A record: its body, its notes, and the pieces it claims.
pub(crate) struct Claims {
    magic: sealed::FormatMagic,
    body: Vec<u8>,
    notes: Vec<u8>,
    pub(crate) durable: Bitfield,
}

/// Reads a record. Its body ends with the bit field.
pub(crate) fn claims(path: &Path, pieces: usize) -> Claims {
    let bytes = std::fs::read(path).unwrap();
    let magic = *bytes.first_chunk().unwrap();
    let (body, notes) = sealed::open_sealed(magic, &bytes).unwrap();
    let field = &body[body.len() - pieces.div_ceil(8)..];
    let count = PieceCount(u32::try_from(pieces).unwrap());
    let durable = Bitfield::from_bytes(field, count).unwrap();
    Claims { magic, body: body.to_vec(), notes: notes.to_vec(), durable }
}

/// Turns a record into one of another boot, with its notes or without. Its body begins with the page cache;
/// the second half of each note is mixed with the end of the record's checksum.
pub(crate) fn boot_again(directory: &Path, pieces: usize, notes_survive: bool) {
    let path = ending(directory, ".record").unwrap();
    let Claims { magic, mut body, mut notes, .. } = claims(&path, pieces);
    let seal_of = |sealed: &[u8]| u32::from_le_bytes(*sealed.last_chunk().unwrap());
    let old = seal_of(&sealed::seal_body(magic, &body));
    assert_eq!(body[0], 1, "the page cache is known");
    body[1] ^= 1;
    let mut bytes = sealed::seal_body(magic, &body);
    let mix = (old ^ seal_of(&bytes)).to_le_bytes();
    for note in notes.chunks_exact_mut(8) {
        note[4..].iter_mut().zip(mix).for_each(|(byte, mix)| *byte ^= mix);
    }
    if notes_survive {
        bytes.extend_from_slice(&notes);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Simulates a crash of the machine on a disk that lost everything unflushed: writes garbage over every piece
/// that the record does not claim. Returns the number of bytes kept.
pub(crate) fn lose_what_was_not_flushed(directory: &Path, content: &[u8], notes_survive: bool) -> u64 {
    let part = File::options().write(true).open(ending(directory, ".part").unwrap()).unwrap();
    let pieces = content.len().div_ceil(PIECE);
    let durable = claims(&ending(directory, ".record").unwrap(), pieces).durable;
    let mut kept = 0;
    for (index, piece) in content.chunks(PIECE).enumerate() {
        if durable.has(PieceIndex(u32::try_from(index).unwrap())) {
            kept += piece.len() as u64;
        } else {
            part.write_all_at(&vec![0xA5; piece.len()], (index * PIECE) as u64).unwrap();
        }
    }
    boot_again(directory, pieces, notes_survive);
    kept
}
