//! The manifest beside the record of a share.
//!
//! Always true: [`load_manifest`] returns the manifest that was saved, or an error. No other code reads the
//! file.

use std::convert::Infallible;
use std::io::Write;

use engine::proto::hashes::BackingBytes;
use engine::proto::manifest::Manifest;
use engine::storage::error::StorageErrorKind;
use engine::storage::sha1_list;
use serde::{Deserialize, Serialize};

use super::folder::{MANIFEST_EXTENSION, RecordFolder, RecordId};
use crate::exit::ClientFault;
use crate::printable::show_path;

const CHECKSUM_BYTES: usize = 32;

/// The checksum at the end of a manifest file. The record contains it, so that no other manifest is taken for
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::node) struct ManifestChecksum([u8; CHECKSUM_BYTES]);

impl ManifestChecksum {
    /// The checksum with which the file of a manifest ends.
    pub(in crate::node) fn of(manifest: &Manifest) -> ManifestChecksum {
        let Ok(checksum) = manifest.write(|_| Ok::<(), Infallible>(()));
        ManifestChecksum(checksum)
    }

    /// The checksum at the end of the bytes of a file. `None` if the file is too short.
    fn at_end_of(bytes: &dyn BackingBytes) -> Option<ManifestChecksum> {
        let mut checksum = [0; CHECKSUM_BYTES];
        bytes.copy(bytes.length().checked_sub(CHECKSUM_BYTES)?, &mut checksum);
        Some(ManifestChecksum(checksum))
    }
}

impl From<ManifestChecksum> for String {
    fn from(checksum: ManifestChecksum) -> String {
        checksum.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for ManifestChecksum {
    type Error = &'static str;

    fn try_from(text: String) -> Result<ManifestChecksum, &'static str> {
        let wrong = "a checksum has 64 hex digits";
        if text.len() != 2 * CHECKSUM_BYTES || !text.is_ascii() {
            return Err(wrong);
        }
        let mut checksum = [0; CHECKSUM_BYTES];
        for (at, byte) in checksum.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
        }
        Ok(ManifestChecksum(checksum))
    }
}

/// Why a manifest cannot be loaded, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LoadFault {
    /// It is missing, or not what was saved.
    Damaged(String),
    /// It cannot be read now.
    Unreadable(String),
}

/// Writes a manifest beside a record.
///
/// # Errors
/// A fault that names the file. Also if the manifest has lost hashes by now: then the file, and the
/// [`ManifestChecksum`], may be wrong.
pub(super) fn save_manifest(
    folder: &RecordFolder,
    id: &RecordId,
    manifest: &Manifest,
) -> Result<(), ClientFault> {
    folder.write_with(id, MANIFEST_EXTENSION, |file| {
        manifest.write(|block| file.write_all(block))?;
        match manifest.unreadable_at() {
            None => Ok(()),
            Some(place) => Err(std::io::Error::other(format!(
                "hashes that were kept in {place} cannot be read any more"
            ))),
        }
    })
}

/// Loads the manifest that a record names. The file is read once for its checksum, and stays open.
///
/// # Errors
/// Those of [`LoadFault`].
pub(super) fn load_manifest(
    folder: &RecordFolder,
    id: &RecordId,
    checksum: ManifestChecksum,
) -> Result<Manifest, LoadFault> {
    let path = folder.path_of(id, MANIFEST_EXTENSION);
    let bytes = sha1_list::open_private_file(&path).map_err(|error| {
        let why = format!("its manifest cannot be read: {error}");
        // A missing manifest makes its record damaged; other errors of the system may pass.
        match error.kind {
            StorageErrorKind::Missing => LoadFault::Damaged(why),
            _ => LoadFault::Unreadable(why),
        }
    })?;
    // What the disk did not give reads as zeros, so a wrong checksum does not prove damage.
    let fault = |why: String| match bytes.unreadable_at() {
        Some(place) => LoadFault::Unreadable(format!("{place} cannot be read")),
        None => LoadFault::Damaged(why),
    };
    if ManifestChecksum::at_end_of(&*bytes) != Some(checksum) {
        return Err(fault(format!("its manifest {} is another one's", show_path(&path))));
    }
    Manifest::from_backing(&bytes)
        .map_err(|damaged| fault(format!("its manifest {} is damaged: {damaged}", show_path(&path))))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use engine::proto::hashes::Sha1List;
    use engine::proto::manifest::{FileName, FileProof};
    use engine::proto::units::Digest;

    use super::*;

    fn manifest(byte: u8) -> Manifest {
        let digests = vec![Digest([byte; 20])];
        let proof = FileProof::Whole(Digest([byte; 20]));
        Manifest::new(FileName::new("f").unwrap(), Some(5), digests, proof, Some(vec![])).unwrap()
    }

    #[test]
    fn a_saved_manifest_is_loaded_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RecordFolder::new(dir.path(), "shares", 9);
        let id = RecordId::new().unwrap();
        let checksum = ManifestChecksum::of(&manifest(1));
        let damaged = || match load_manifest(&folder, &id, checksum) {
            Err(LoadFault::Damaged(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(damaged().contains("cannot be read"), "there is no file");
        save_manifest(&folder, &id, &manifest(1)).unwrap();
        assert_eq!(load_manifest(&folder, &id, checksum), Ok(manifest(1)));
        save_manifest(&folder, &id, &manifest(2)).unwrap();
        assert!(damaged().contains("another one's"));
        let mut flipped = manifest(1).to_bytes();
        flipped[20] ^= 1;
        std::fs::write(folder.path_of(&id, MANIFEST_EXTENSION), flipped).unwrap();
        assert!(damaged().contains("damaged"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_now_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RecordFolder::new(dir.path(), "shares", 9);
        let id = RecordId::new().unwrap();
        save_manifest(&folder, &id, &manifest(1)).unwrap();
        let path = folder.path_of(&id, MANIFEST_EXTENSION);
        std::fs::remove_file(&path).unwrap();
        // A circle of links is refused to root too, whom no mode stops.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let found = load_manifest(&folder, &id, ManifestChecksum::of(&manifest(1)));
        assert!(matches!(found, Err(LoadFault::Unreadable(_))), "{found:?}");
    }

    /// Bytes of this length that count as lost once they have been read.
    #[derive(Debug)]
    pub(in crate::node) struct LosingBytes(usize, AtomicBool);

    impl LosingBytes {
        pub(in crate::node) fn new(length: usize) -> LosingBytes {
            LosingBytes(length, AtomicBool::new(false))
        }
    }

    impl BackingBytes for LosingBytes {
        fn length(&self) -> usize {
            self.0
        }

        fn copy(&self, _: usize, into: &mut [u8]) {
            self.1.store(true, Ordering::SeqCst);
            into.fill(0);
        }

        fn unreadable_at(&self) -> Option<String> {
            self.1.load(Ordering::SeqCst).then(|| "/the/disk".to_owned())
        }
    }

    #[test]
    fn a_manifest_that_loses_hashes_while_it_is_written_is_not_saved() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RecordFolder::new(dir.path(), "shares", 9);
        let id = RecordId::new().unwrap();
        let digests = Sha1List::from_backing(Arc::new(LosingBytes::new(20)), 0, 1);
        let right = manifest(1);
        let losing =
            Manifest::from_lists(right.name().clone(), Some(5), digests.unwrap(), right.proof(), None);
        let refused = save_manifest(&folder, &id, &losing.unwrap()).unwrap_err();
        assert!(refused.message.contains("/the/disk"), "{refused}");
        assert!(!folder.path_of(&id, MANIFEST_EXTENSION).exists());
    }

    #[test]
    fn a_checksum_reads_back_from_its_text() {
        let checksum = ManifestChecksum([0xA7; CHECKSUM_BYTES]);
        assert_eq!(ManifestChecksum::try_from(String::from(checksum)), Ok(checksum));
        for wrong in ["", "a7", &"g".repeat(64), &"é".repeat(32)] {
            assert!(ManifestChecksum::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
