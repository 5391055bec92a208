//! The worked record and notes of docs/formats.md equal what this code writes.

use std::fmt::Write as _;

use super::record::note_to_bytes;
use super::*;
use crate::proto::sealed::FieldReader;

/// Bytes in one line of the page.
const LINE_BYTES: usize = 32;

/// Bytes in the form of the page, indented below their name.
fn worked_block(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("{name}\n");
    for line in bytes.chunks(LINE_BYTES) {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "  {}", line.join(" ")).unwrap();
    }
    text
}

/// The identity of inode `inode`, born `seconds` after 1970.
fn identity(inode: u64, seconds: i64) -> FileIdentity {
    let birth = [&seconds.to_le_bytes()[..], &500u32.to_le_bytes()].concat();
    let bytes = [&inode.to_le_bytes()[..], &[1], &birth].concat();
    FileIdentity::read_from(&mut FieldReader::of(&bytes)).unwrap()
}

#[test]
fn a_record_and_its_notes_are_written_as_the_page_shows_them() {
    let mut durable = Bitfield::empty(PieceCount(10));
    for index in [0, 1, 9] {
        durable.insert(PieceIndex(index));
    }
    let time = |seconds: i64| [&seconds.to_le_bytes()[..], &500u32.to_le_bytes()].concat();
    let state = [&5_000_000u64.to_le_bytes()[..], &time(3_000), &time(4_000)].concat();
    let record = ResumeRecord {
        partial_file: identity(7, 1_000),
        record_file: identity(8, 2_000),
        file_state: Some(FileState::read_from(&mut FieldReader::of(&state)).unwrap()),
        identity: ContentIdentity {
            length: Some(5_000_000),
            content: Digest([0x33; 20]),
            digests: [0x44; 32],
            chain: None,
        },
        exact_length: None,
        links_hold: true,
        is_complete: true,
        durable,
    };
    let (bytes, seal) = record.to_bytes();
    let mut blocks = worked_block("Record", &bytes);
    let notes = worked_block("Note: piece 3", &note_to_bytes(PieceIndex(3), seal));
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md");
    let page = std::fs::read_to_string(page).unwrap();
    let has_both = page.contains(&blocks) && page.contains(&notes);
    blocks += &notes;
    assert!(has_both, "the page lacks:\n{blocks}");
}
