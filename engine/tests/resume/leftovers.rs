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

/// The pieces that a record claims, and the length of the notes behind it.
pub(crate) struct Claims {
    notes_bytes: u64,
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
    Claims { notes_bytes: notes.len() as u64, durable }
}

/// Removes the notes behind the record, as a crash that loses what was not flushed does.
fn lose_notes(directory: &Path, pieces: usize) {
    let path = ending(directory, ".record").unwrap();
    let record = File::options().write(true).open(&path).unwrap();
    let notes = claims(&path, pieces).notes_bytes;
    record.set_len(record.metadata().unwrap().len() - notes).unwrap();
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
    if !notes_survive {
        lose_notes(directory, pieces);
    }
    kept
}
