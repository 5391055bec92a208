//! The manifest that lies beside a share's record.
//!
//! Invariant: [`load`] gives the manifest that was saved or says why not; nothing else reads the file.

use std::io::{BufWriter, Write};

use engine::proto::manifest::Manifest;
use engine::storage::gather::open_kept;
use serde::{Deserialize, Serialize};

use super::folder::{Folder, MANIFEST, RecordId};
use crate::exit::Fault;

const SEAL_BYTES: usize = 32;

/// The checksum with which a manifest at rest ends: the record names it, so that no other manifest is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::node) struct Seal([u8; SEAL_BYTES]);

impl Seal {
    /// That of a manifest at rest; `None` for bytes that are none.
    pub(in crate::node) fn of(manifest: &[u8]) -> Option<Seal> {
        manifest.last_chunk::<SEAL_BYTES>().copied().map(Seal)
    }
}

impl From<Seal> for String {
    fn from(seal: Seal) -> String {
        seal.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Seal {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Seal, &'static str> {
        let wrong = "a checksum has 64 hex digits";
        if text.len() != 2 * SEAL_BYTES || !text.is_ascii() {
            return Err(wrong);
        }
        let mut seal = [0; SEAL_BYTES];
        for (at, byte) in seal.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Seal(seal))
    }
}

/// Writes a manifest beside the record that is to name it; what is to name it.
///
/// # Errors
/// A fault that names the file.
pub(super) fn save(folder: &Folder, id: &RecordId, manifest: &Manifest) -> Result<Seal, Fault> {
    let mut end = Seal([0; SEAL_BYTES]);
    folder.write_by(id, MANIFEST, |file| {
        let mut file = BufWriter::new(file);
        manifest.write(|block| {
            // The checksum is what comes last, in one block.
            end = Seal::of(block).unwrap_or(end);
            file.write_all(block)
        })?;
        file.flush()
    })?;
    Ok(end)
}

/// Maps the manifest that a record names.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn load(folder: &Folder, id: &RecordId, seal: Seal) -> Result<Manifest, String> {
    let path = folder.path_of(id, MANIFEST);
    let kept = open_kept(&path).map_err(|error| format!("its manifest cannot be read: {error}"))?;
    let mut end = [0; SEAL_BYTES];
    let short = || format!("its manifest {} is damaged: its end is missing", path.display());
    kept.copy(kept.length().checked_sub(SEAL_BYTES).ok_or_else(short)?, &mut end);
    if Seal(end) != seal {
        return Err(format!("its manifest {} is another one's", path.display()));
    }
    Manifest::from_kept(kept)
        .map_err(|damaged| format!("its manifest {} is damaged: {damaged}", path.display()))
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::{FileName, FileProof};
    use engine::proto::units::Digest;

    use super::*;

    fn manifest(byte: u8) -> Manifest {
        let digests = vec![Digest([byte; 20])];
        let proof = FileProof::Whole(Digest([byte; 20]));
        Manifest::new(FileName::new("f").unwrap(), Some(5), digests, proof, Some(vec![])).unwrap()
    }

    #[test]
    fn it_comes_back_and_no_other_is_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "shares", 9);
        let id = RecordId::new().unwrap();
        let seal = Seal::of(&manifest(1).to_bytes()).unwrap();
        assert!(load(&folder, &id, seal).is_err(), "there is none");
        assert_eq!(save(&folder, &id, &manifest(1)).unwrap(), seal);
        assert_eq!(load(&folder, &id, seal), Ok(manifest(1)));
        save(&folder, &id, &manifest(2)).unwrap();
        assert!(load(&folder, &id, seal).unwrap_err().contains("another one's"));
        let mut flipped = manifest(1).to_bytes();
        flipped[20] ^= 1;
        folder.write_by(&id, MANIFEST, |file| file.write_all(&flipped)).unwrap();
        assert!(load(&folder, &id, seal).unwrap_err().contains("damaged"));
        folder.write_by(&id, MANIFEST, |file| file.write_all(b"short")).unwrap();
        assert!(load(&folder, &id, seal).unwrap_err().contains("its end is missing"));
    }

    #[test]
    fn a_seal_reads_back_from_its_text() {
        let seal = Seal([0xA7; SEAL_BYTES]);
        assert_eq!(Seal::try_from(String::from(seal)), Ok(seal));
        for wrong in ["", "a7", &"g".repeat(64), &"é".repeat(32)] {
            assert!(Seal::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
