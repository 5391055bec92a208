//! The record of one share.

use std::path::PathBuf;

use engine::proto::manifest::FileName;
use engine::proto::units::Digest;
use engine::storage::fingerprint::Fingerprint;
use serde::{Deserialize, Serialize};
use tracker::api::{GroupFile, GroupId};

use super::manifest::ManifestChecksum;
use crate::exit::ClientFault;
use crate::ipc::path_form;

/// How far the trackers know a share. Together with the file it is what outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::node) enum ShareStage {
    /// Not listed yet.
    Unlisted,
    /// Listed.
    Listed,
    /// Refused for good. It is not sent again until its user uploads the file again.
    Refused,
    /// Stopped, which no tracker has been told yet.
    Stopped,
}

/// A file that is shared: what it takes to serve it again without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct SharedFile {
    /// Its group and name.
    pub(in crate::node) key: GroupFile,
    /// The user who shares it.
    pub(in crate::node) user: String,
    /// Its path.
    pub(in crate::node) path: PathBuf,
    /// What it looked like when it was hashed.
    pub(in crate::node) fingerprint: Fingerprint,
    /// The SHA-1 that names its content.
    pub(in crate::node) content: Digest,
    /// The checksum of its manifest.
    pub(in crate::node) checksum: ManifestChecksum,
    /// Its user has uploaded it here; else it was downloaded.
    pub(in crate::node) is_upload: bool,
}

/// The record of a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredShare", into = "StoredShare")]
pub(in crate::node) struct ShareRecord {
    /// The file.
    pub(in crate::node) file: SharedFile,
    /// How far the trackers know the share.
    pub(in crate::node) stage: ShareStage,
    /// Why the tracker refused it, if it did.
    pub(in crate::node) refusal: Option<ClientFault>,
}

/// The record as JSON.
#[derive(Serialize, Deserialize)]
struct StoredShare {
    group: String,
    file: String,
    user: String,
    #[serde(with = "path_form")]
    path: PathBuf,
    fingerprint: String,
    content: String,
    manifest: ManifestChecksum,
    #[serde(default, rename = "upload", skip_serializing_if = "std::ops::Not::not")]
    is_upload: bool,
    stage: ShareStage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<ClientFault>,
}

impl From<ShareRecord> for StoredShare {
    fn from(record: ShareRecord) -> StoredShare {
        let ShareRecord { file, stage, refusal } = record;
        StoredShare {
            group: file.key.group.to_string(),
            file: file.key.name.to_string(),
            user: file.user,
            path: file.path,
            fingerprint: file.fingerprint.to_string(),
            content: file.content.to_string(),
            manifest: file.checksum,
            is_upload: file.is_upload,
            stage,
            refusal,
        }
    }
}

impl TryFrom<StoredShare> for ShareRecord {
    type Error = String;

    fn try_from(stored: StoredShare) -> Result<ShareRecord, String> {
        let file = SharedFile {
            key: parse_file_key(&stored.group, &stored.file)?,
            user: stored.user,
            path: stored.path,
            fingerprint: stored.fingerprint.parse().map_err(|bad| format!("{bad}"))?,
            content: stored.content.parse().map_err(|bad| format!("{bad}"))?,
            checksum: stored.manifest,
            is_upload: stored.is_upload,
        };
        Ok(ShareRecord { file, stage: stored.stage, refusal: stored.refusal })
    }
}

/// A file's key from the group and the name in a record.
pub(super) fn parse_file_key(group: &str, file: &str) -> Result<GroupFile, String> {
    let group = GroupId::new(group).map_err(|bad| bad.to_string())?;
    Ok(GroupFile { group, name: FileName::new(file).map_err(|bad| bad.to_string())? })
}

#[cfg(test)]
pub(in crate::node) mod tests {
    use super::*;
    use crate::exit::ExitCause;

    /// The shared file `f` of a group.
    pub(in crate::node) fn sample_file(group: &str, user: &str) -> SharedFile {
        SharedFile {
            key: parse_file_key(group, "f").unwrap(),
            user: user.into(),
            path: "/f".into(),
            fingerprint: Fingerprint {
                length: 1,
                modified: (2, 3),
                status_changed: Some((6, 7)),
                inode: 4,
                device: 5,
            },
            content: Digest([1; 20]),
            checksum: ManifestChecksum::try_from("07".repeat(32)).unwrap(),
            is_upload: false,
        }
    }

    #[test]
    fn a_record_reads_back_and_an_invalid_one_is_refused() {
        let listed = ShareRecord { file: sample_file("g", "u"), stage: ShareStage::Listed, refusal: None };
        let text = serde_json::to_string(&listed).unwrap();
        assert_eq!(serde_json::from_str::<ShareRecord>(&text).unwrap(), listed);
        let refusal = Some(ClientFault::new(ExitCause::Exists, "why").fix("what"));
        let refused = ShareRecord { stage: ShareStage::Refused, refusal, ..listed };
        let back: ShareRecord = serde_json::from_str(&serde_json::to_string(&refused).unwrap()).unwrap();
        assert_eq!(back, refused);
        for (right, wrong) in
            [("\"f\"", "\"../f\""), ("1:2:3:6:7:4:5", "1:2:3:4"), ("listed", "lost"), ("\"g\"", "\"\"")]
        {
            assert!(serde_json::from_str::<ShareRecord>(&text.replacen(right, wrong, 1)).is_err(), "{wrong}");
        }
    }
}
