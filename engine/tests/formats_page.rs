//! The worked bytes of docs/formats.md equal the bytes that the engine writes: names and manifest files. Those of
//! records are compared beside their code, in `storage::resume`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fmt::Write as _;

use engine::proto::manifest::{FileName, FileProof, Manifest};
use engine::proto::units::{ChainState, Digest};
use engine::storage::destination::partial_name;

/// Bytes in one line of the page.
const LINE_BYTES: usize = 32;

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md")).unwrap()
}

#[test]
fn a_manifest_file_is_written_as_the_page_shows_it() {
    let digests = vec![Digest([0x11; 20]), Digest([0x22; 20])];
    let proof = FileProof::Whole(Digest([0x33; 20]));
    let chain = Some(vec![ChainState([0x44; 20])]);
    let manifest = Manifest::new(FileName::new("disk.img").unwrap(), Some(600_000), digests, proof, chain);
    let mut wanted = String::from("Manifest file\n");
    for line in manifest.unwrap().to_bytes().chunks(LINE_BYTES) {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(wanted, "  {}", line.join(" ")).unwrap();
    }
    assert!(page().contains(&wanted), "the page lacks:\n{wanted}");
}

#[test]
fn a_partial_file_is_named_as_the_page_shows_it() {
    let name = partial_name("disk.img".as_ref(), "team", Digest([0x33; 20]));
    assert!(page().contains(&format!("`{}`", name.display())), "the page lacks {}", name.display());
}
