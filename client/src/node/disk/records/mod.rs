//! What a node keeps of its work, so that it comes back after an exit, a kill or a reboot: one record a share, one a
//! download.
//!
//! ```text
//!   DIR/shares/     ID.json      a share's record (share)      ID.manifest   what it is made of (manifest)
//!   DIR/downloads/  ID.json      a download's record (download)
//!                   ID.json.damaged, ID.json.other-version     set aside, said, and left to the user
//!
//!   Records ──► folder (read, write, remove, set aside) ──► private (files)
//!      └──────► share, download, manifest
//! ```
//!
//! Crash order: the manifest, then the record that names it by its checksum; the record is on the disk before the command
//! that made it says that it is done, and goes before what it names is forgotten. So a record without its manifest is
//! damage, and a manifest without a record is what a crash left: it is removed.

mod download;
mod folder;
mod manifest;
mod share;

use std::path::Path;
use std::sync::Mutex;

use engine::lock::lock;
use engine::proto::manifest::Manifest;

pub(in crate::node) use download::DownloadRecord;
pub(in crate::node) use folder::{RecordFolder, RecordId};
use manifest::LoadFault;
pub(in crate::node) use manifest::ManifestChecksum;
#[cfg(test)]
pub(in crate::node) use share::tests;
pub(in crate::node) use share::{ShareRecord, ShareStage};

use crate::exit::ClientFault;
use crate::limits;

/// Why a share's manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum ManifestUnavailable {
    /// It is damaged or gone, and its record was set aside; with what to do.
    SetAside(String),
    /// It cannot be read now: its disk, the system's limits or its mode are to blame, and all of that may pass.
    Transient(String),
}

/// The records of one node.
pub(in crate::node) struct RecordStore {
    shares: RecordFolder,
    downloads: RecordFolder,
    problems: Mutex<Vec<String>>,
}

impl RecordStore {
    /// The records in a state directory.
    pub(in crate::node) fn in_state_dir(state: &Path) -> RecordStore {
        RecordStore {
            shares: RecordFolder::new(
                state,
                "shares",
                limits::SHARES_MAX + limits::RECORDS_BEING_WRITTEN_MAX,
            ),
            downloads: RecordFolder::new(
                state,
                "downloads",
                limits::DOWNLOAD_RECORDS_MAX + limits::RECORDS_BEING_WRITTEN_MAX,
            ),
            problems: Mutex::default(),
        }
    }

    /// All shares that were kept, oldest first. What cannot be understood is set aside, and named by
    /// [`RecordStore::problems`].
    pub(in crate::node) fn read_shares(&self) -> Vec<(RecordId, ShareRecord)> {
        self.collect_problems(self.shares.read())
    }

    /// All downloads that were kept, as [`RecordStore::read_shares`].
    pub(in crate::node) fn read_downloads(&self) -> Vec<(RecordId, DownloadRecord)> {
        self.collect_problems(self.downloads.read())
    }

    fn collect_problems<R>(
        &self,
        (records, troubles): (Vec<(RecordId, R)>, Vec<String>),
    ) -> Vec<(RecordId, R)> {
        lock(&self.problems).extend(troubles);
        records
    }

    /// What was set aside or could not be read since the node started, with what to do about it.
    pub(in crate::node) fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }

    /// Keeps a new share with its manifest; on the disk when it returns.
    ///
    /// # Errors
    /// A fault when it cannot be written; then nothing of it is kept.
    pub(in crate::node) fn keep_share(
        &self,
        shared: &ShareRecord,
        manifest: &Manifest,
    ) -> Result<RecordId, ClientFault> {
        let id = RecordId::new()?;
        manifest::save_manifest(&self.shares, &id, manifest)
            .and_then(|()| self.shares.write(&id, shared))
            .inspect_err(|_| self.shares.remove_files(&id))?;
        Ok(id)
    }

    /// Writes the record of a share anew.
    ///
    /// # Errors
    /// A fault when it cannot be written; the old one is then still there.
    pub(in crate::node) fn write_share(
        &self,
        id: &RecordId,
        shared: &ShareRecord,
    ) -> Result<(), ClientFault> {
        self.shares.write(id, shared)
    }

    /// Forgets a share.
    ///
    /// # Errors
    /// A fault when its record cannot be removed.
    pub(in crate::node) fn forget_share(&self, id: &RecordId) -> Result<(), ClientFault> {
        self.shares.remove(id)
    }

    /// The manifest of a share.
    ///
    /// # Errors
    /// Why not: for now, or since its record was set aside.
    pub(in crate::node) fn manifest(
        &self,
        id: &RecordId,
        shared: &ShareRecord,
    ) -> Result<Manifest, ManifestUnavailable> {
        manifest::load_manifest(&self.shares, id, shared.checksum).map_err(|fault| match fault {
            LoadFault::Unreadable(why) => ManifestUnavailable::Transient(why),
            LoadFault::Damaged(why) => {
                let trouble = self.shares.set_aside(id, &format!("the record of {}", shared.key), &why);
                lock(&self.problems).push(trouble.clone());
                ManifestUnavailable::SetAside(trouble)
            }
        })
    }

    /// Writes the record of a download; on the disk when it returns.
    ///
    /// # Errors
    /// A fault when it cannot be written; an old one is then still there.
    pub(in crate::node) fn write_download(
        &self,
        id: &RecordId,
        wanted: &DownloadRecord,
    ) -> Result<(), ClientFault> {
        self.downloads.write(id, wanted)
    }

    /// Forgets a download.
    ///
    /// # Errors
    /// A fault when its record cannot be removed.
    pub(in crate::node) fn forget_download(&self, id: &RecordId) -> Result<(), ClientFault> {
        self.downloads.remove(id)
    }
}

/// For fuzzing: whether these bytes are the file of a share's record.
pub(crate) fn accepts_share_record(bytes: &[u8]) -> bool {
    folder::accepts_record::<ShareRecord>(bytes)
}

/// For fuzzing: whether these bytes are the file of a download's record.
pub(crate) fn accepts_download_record(bytes: &[u8]) -> bool {
    folder::accepts_record::<DownloadRecord>(bytes)
}
