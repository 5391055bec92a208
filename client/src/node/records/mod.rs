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

use engine::proto::manifest::Manifest;

pub(super) use download::Wanted;
pub(super) use folder::{Folder, RecordId};
pub(super) use manifest::Seal;
#[cfg(test)]
pub(super) use share::tests;
pub(super) use share::{Shared, Stage};

use crate::exit::Fault;
use crate::limits;
use crate::lock::lock;

/// The records of one node.
pub(super) struct Records {
    shares: Folder,
    downloads: Folder,
    troubles: Mutex<Vec<String>>,
}

impl Records {
    /// The records in a state directory.
    pub(super) fn of(state: &Path) -> Records {
        Records {
            shares: Folder::new(state, "shares", limits::SHARES_MAX),
            downloads: Folder::new(state, "downloads", limits::DOWNLOAD_RECORDS_MAX),
            troubles: Mutex::default(),
        }
    }

    /// All shares that were kept, oldest first. What cannot be understood is set aside, and named by
    /// [`Records::troubles`].
    pub(super) fn read_shares(&self) -> Vec<(RecordId, Shared)> {
        self.shares.sweep();
        self.found(self.shares.read())
    }

    /// All downloads that were kept, as [`Records::read_shares`].
    pub(super) fn read_downloads(&self) -> Vec<(RecordId, Wanted)> {
        self.downloads.sweep();
        self.found(self.downloads.read())
    }

    fn found<R>(&self, (records, troubles): (Vec<(RecordId, R)>, Vec<String>)) -> Vec<(RecordId, R)> {
        lock(&self.troubles).extend(troubles);
        records
    }

    /// What was set aside or could not be read since the node started, with what to do about it.
    pub(super) fn troubles(&self) -> Vec<String> {
        lock(&self.troubles).clone()
    }

    /// Keeps a new share with its manifest; on the disk when it returns.
    ///
    /// # Errors
    /// A fault when it cannot be written; then nothing of it is kept.
    pub(super) fn keep_share(&self, shared: &Shared, manifest: &Manifest) -> Result<RecordId, Fault> {
        let id = RecordId::new()?;
        manifest::save(&self.shares, &id, manifest)
            .and_then(|()| self.shares.write(&id, shared))
            .inspect_err(|_| self.shares.erase(&id))?;
        Ok(id)
    }

    /// Writes the record of a share anew.
    ///
    /// # Errors
    /// A fault when it cannot be written; the old one is then still there.
    pub(super) fn write_share(&self, id: &RecordId, shared: &Shared) -> Result<(), Fault> {
        self.shares.write(id, shared)
    }

    /// Forgets a share.
    ///
    /// # Errors
    /// A fault when its record cannot be removed.
    pub(super) fn forget_share(&self, id: &RecordId) -> Result<(), Fault> {
        self.shares.remove(id)
    }

    /// The manifest of a share.
    ///
    /// # Errors
    /// Why its record was set aside, with what to do.
    pub(super) fn manifest(&self, id: &RecordId, shared: &Shared) -> Result<Manifest, String> {
        manifest::load(&self.shares, id, shared.seal).map_err(|why| {
            let trouble = self.shares.set_aside(id, &format!("the record of {}", shared.key), &why);
            lock(&self.troubles).push(trouble.clone());
            trouble
        })
    }

    /// Writes the record of a download; on the disk when it returns.
    ///
    /// # Errors
    /// A fault when it cannot be written; an old one is then still there.
    pub(super) fn write_download(&self, id: &RecordId, wanted: &Wanted) -> Result<(), Fault> {
        self.downloads.write(id, wanted)
    }

    /// Forgets a download.
    ///
    /// # Errors
    /// A fault when its record cannot be removed.
    pub(super) fn forget_download(&self, id: &RecordId) -> Result<(), Fault> {
        self.downloads.remove(id)
    }
}
