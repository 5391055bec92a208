//! The manifest that lies beside a share's record.
//!
//! Invariant: [`load_manifest`] gives the manifest that was saved or says why not; nothing else reads the file.

use std::convert::Infallible;
use std::io::Write;

use engine::proto::hashes::BackingBytes;
use engine::proto::manifest::Manifest;
use engine::storage::error::StorageErrorKind;
use engine::storage::sha1_list;
use serde::{Deserialize, Serialize};

use super::folder::{MANIFEST_EXTENSION, RecordFolder, RecordId};
use crate::exit::ClientFault;

const CHECKSUM_BYTES: usize = 32;

/// The checksum with which a manifest at rest ends: the record names it, so that no other manifest is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::node) struct ManifestChecksum([u8; CHECKSUM_BYTES]);

impl ManifestChecksum {
    /// That of a manifest, at rest.
    pub(in crate::node) fn of(manifest: &Manifest) -> ManifestChecksum {
        let Ok(seal) = manifest.write(|_| Ok::<(), Infallible>(()));
        ManifestChecksum(seal)
    }

    /// That with which these bytes end; `None` for bytes that are no manifest.
    fn at_end_of(bytes: &dyn BackingBytes) -> Option<ManifestChecksum> {
        let mut seal = [0; CHECKSUM_BYTES];
        bytes.copy(bytes.length().checked_sub(CHECKSUM_BYTES)?, &mut seal);
        Some(ManifestChecksum(seal))
    }
}

impl From<ManifestChecksum> for String {
    fn from(seal: ManifestChecksum) -> String {
        seal.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for ManifestChecksum {
    type Error = &'static str;

    fn try_from(text: String) -> Result<ManifestChecksum, &'static str> {
        let wrong = "a checksum has 64 hex digits";
        if text.len() != 2 * CHECKSUM_BYTES || !text.is_ascii() {
            return Err(wrong);
        }
        let mut seal = [0; CHECKSUM_BYTES];
        for (at, byte) in seal.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
        }
        Ok(ManifestChecksum(seal))
    }
}

/// Why a manifest cannot be loaded, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LoadFault {
    /// It is not there, or not what was saved.
    Damaged(String),
    /// The system does not give it now.
    Unreadable(String),
}

/// Writes a manifest beside the record that is to name it.
///
/// # Errors
/// A fault that names the file; also when hashes were lost where the manifest keeps them, by now: what is written, and what a
/// [`ManifestChecksum`] was made of, may be wrong then.
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

/// The manifest that a record names. Its file is read over once and mapped: the hashes stay there.
///
/// # Errors
/// What is wrong with it.
pub(super) fn load_manifest(
    folder: &RecordFolder,
    id: &RecordId,
    seal: ManifestChecksum,
) -> Result<Manifest, LoadFault> {
    let path = folder.path_of(id, MANIFEST_EXTENSION);
    let bytes = sha1_list::map_private_file(&path).map_err(|error| {
        let why = format!("its manifest cannot be read: {error}");
        // Without its manifest a record is damage; whatever else the system says may pass.
        match error.kind {
            StorageErrorKind::Missing => LoadFault::Damaged(why),
            _ => LoadFault::Unreadable(why),
        }
    })?;
    // What the disk did not give reads as zeros, which are nobody's fault but its own.
    let judged = |why: String| match bytes.unreadable_at() {
        Some(place) => LoadFault::Unreadable(format!("{place} cannot be read")),
        None => LoadFault::Damaged(why),
    };
    if ManifestChecksum::at_end_of(&*bytes) != Some(seal) {
        return Err(judged(format!("its manifest {} is another one's", path.display())));
    }
    Manifest::from_backing(&bytes)
        .map_err(|damaged| judged(format!("its manifest {} is damaged: {damaged}", path.display())))
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
        let folder = RecordFolder::new(dir.path(), "shares", 9);
        let id = RecordId::new().unwrap();
        let seal = ManifestChecksum::of(&manifest(1));
        let damaged = || match load_manifest(&folder, &id, seal) {
            Err(LoadFault::Damaged(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(damaged().contains("cannot be read"), "there is none");
        save_manifest(&folder, &id, &manifest(1)).unwrap();
        assert_eq!(load_manifest(&folder, &id, seal), Ok(manifest(1)));
        save_manifest(&folder, &id, &manifest(2)).unwrap();
        assert!(damaged().contains("another one's"));
        let mut flipped = manifest(1).to_bytes();
        flipped[20] ^= 1;
        std::fs::write(folder.path_of(&id, MANIFEST_EXTENSION), flipped).unwrap();
        assert!(damaged().contains("damaged"));
    }

    #[test]
    fn what_the_system_does_not_give_now_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RecordFolder::new(dir.path(), "shares", 9);
        let id = RecordId::new().unwrap();
        save_manifest(&folder, &id, &manifest(1)).unwrap();
        let path = folder.path_of(&id, MANIFEST_EXTENSION);
        std::fs::remove_file(&path).unwrap();
        // Links in a circle are refused even to root, whom no mode stops.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let found = load_manifest(&folder, &id, ManifestChecksum::of(&manifest(1)));
        assert!(matches!(found, Err(LoadFault::Unreadable(_))), "{found:?}");
    }

    /// A digest that counts as lost once it was read.
    #[derive(Debug, Default)]
    struct LosingDigest(std::sync::atomic::AtomicBool);

    impl BackingBytes for LosingDigest {
        fn length(&self) -> usize {
            20
        }

        fn copy(&self, _: usize, into: &mut [u8]) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            into.fill(0);
        }

        fn unreadable_at(&self) -> Option<String> {
            self.0.load(std::sync::atomic::Ordering::SeqCst).then(|| "/the/disk".to_owned())
        }
    }

    #[test]
    fn a_manifest_that_is_lost_while_it_is_written_is_not_saved() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RecordFolder::new(dir.path(), "shares", 9);
        let id = RecordId::new().unwrap();
        let digests =
            engine::proto::hashes::Sha1List::from_backing(std::sync::Arc::new(LosingDigest::default()), 0, 1);
        let right = manifest(1);
        let losing =
            Manifest::from_lists(right.name().clone(), Some(5), digests.unwrap(), right.proof(), None);
        let refused = save_manifest(&folder, &id, &losing.unwrap()).unwrap_err();
        assert!(refused.message.contains("/the/disk"), "{refused}");
        assert!(!folder.path_of(&id, MANIFEST_EXTENSION).exists());
    }

    #[test]
    fn a_seal_reads_back_from_its_text() {
        let seal = ManifestChecksum([0xA7; CHECKSUM_BYTES]);
        assert_eq!(ManifestChecksum::try_from(String::from(seal)), Ok(seal));
        for wrong in ["", "a7", &"g".repeat(64), &"é".repeat(32)] {
            assert!(ManifestChecksum::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
