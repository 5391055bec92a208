//! The records of a node's shares and downloads, with which it continues after an exit, a kill or a reboot.
//!
//! ```text
//!   DIR/shares/     ID.json      the record of a share (share)       ID.manifest   its manifest (manifest)
//!   DIR/downloads/  ID.json      the record of a download (download)
//!                   ID.json.damaged, ID.json.other-version     set aside and reported; left to the user
//!
//!   RecordStore ──► folder (read, write, remove, set aside) ──► private (files)
//!       └─────────► share, download, manifest
//! ```
//!
//! Crash order: the manifest is written first, then the record, which names the manifest by its checksum. A
//! record is on the disk before the command that made it succeeds, and is removed before what it names. So a
//! record without its manifest is damaged, and a manifest without a record is left over from a crash and
//! removed.

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
pub(in crate::node) use manifest::tests::LosingBytes;
#[cfg(test)]
pub(in crate::node) use share::tests;
pub(in crate::node) use share::{ShareRecord, ShareStage, SharedFile};

use crate::exit::ClientFault;
use crate::limits;

/// Why the manifest of a share cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum ManifestUnavailable {
    /// It is damaged or missing. The record was set aside, as this message says.
    SetAside(String),
    /// It cannot be read now, for this reason.
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
        let shares_max = limits::SHARES_MAX + limits::RECORDS_BEING_WRITTEN_MAX;
        let downloads_max = limits::DOWNLOAD_RECORDS_MAX + limits::RECORDS_BEING_WRITTEN_MAX;
        RecordStore {
            shares: RecordFolder::new(state, "shares", shares_max),
            downloads: RecordFolder::new(state, "downloads", downloads_max),
            problems: Mutex::default(),
        }
    }

    /// All records of shares, in the order in which they were written. [`RecordStore::problems`] names those that cannot be read.
    pub(in crate::node) fn read_shares(&self) -> Vec<(RecordId, ShareRecord)> {
        self.collect_problems(self.shares.read())
    }

    /// All records of downloads, as [`RecordStore::read_shares`].
    pub(in crate::node) fn read_downloads(&self) -> Vec<(RecordId, DownloadRecord)> {
        self.collect_problems(self.downloads.read())
    }

    fn collect_problems<R>(
        &self,
        (records, problems): (Vec<(RecordId, R)>, Vec<String>),
    ) -> Vec<(RecordId, R)> {
        lock(&self.problems).extend(problems);
        records
    }

    /// The records that could not be read since the node started, with what to do about each.
    pub(in crate::node) fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }

    /// Writes the record of a new share, with its manifest. Both are on the disk when it returns.
    ///
    /// # Errors
    /// One of them cannot be written; then neither is kept.
    pub(in crate::node) fn keep_share(
        &self,
        record: &ShareRecord,
        manifest: &Manifest,
    ) -> Result<RecordId, ClientFault> {
        let id = RecordId::new()?;
        manifest::save_manifest(&self.shares, &id, manifest)
            .and_then(|()| self.shares.write(&id, record))
            .inspect_err(|_| self.shares.remove_files(&id))?;
        Ok(id)
    }

    /// Replaces the record of a share.
    ///
    /// # Errors
    /// It cannot be written; then the old one is kept.
    pub(in crate::node) fn write_share(
        &self,
        id: &RecordId,
        record: &ShareRecord,
    ) -> Result<(), ClientFault> {
        self.shares.write(id, record)
    }

    /// Removes the record of a share, with its manifest.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(in crate::node) fn remove_share(&self, id: &RecordId) -> Result<(), ClientFault> {
        self.shares.remove(id)
    }

    /// Reads the manifest of a share. The record of a damaged one is set aside.
    ///
    /// # Errors
    /// It is damaged, or cannot be read now.
    pub(in crate::node) fn manifest(
        &self,
        id: &RecordId,
        file: &SharedFile,
    ) -> Result<Manifest, ManifestUnavailable> {
        manifest::load_manifest(&self.shares, id, file.checksum).map_err(|fault| match fault {
            LoadFault::Unreadable(reason) => ManifestUnavailable::Transient(reason),
            LoadFault::Damaged(reason) => {
                let problem = self.shares.set_aside(id, &format!("the record of {}", file.key), &reason);
                lock(&self.problems).push(problem.clone());
                ManifestUnavailable::SetAside(problem)
            }
        })
    }

    /// Writes or replaces the record of a download. It is on the disk when it returns.
    ///
    /// # Errors
    /// It cannot be written; then the old one, if any, is kept.
    pub(in crate::node) fn write_download(
        &self,
        id: &RecordId,
        record: &DownloadRecord,
    ) -> Result<(), ClientFault> {
        self.downloads.write(id, record)
    }

    /// Removes the record of a download.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(in crate::node) fn remove_download(&self, id: &RecordId) -> Result<(), ClientFault> {
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
