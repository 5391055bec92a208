//! The record of one share.

use std::path::PathBuf;

use engine::proto::manifest::FileName;
use engine::proto::units::Digest;
use engine::storage::fingerprint::Fingerprint;
use serde::{Deserialize, Serialize};
use tracker::api::{GroupFile, GroupId};

use super::manifest::ManifestChecksum;
use crate::exit::ClientFault;

/// How far the trackers know of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::node) enum ShareStage {
    /// They have not taken it yet: it is listed when they can be reached.
    Unlisted,
    /// They took it: it is served.
    Listed,
    /// They refused it for good: it is set aside, and not listed until its user uploads it again.
    Refused,
    /// It is served no more, which they have not been told yet.
    Stopped,
}

/// One shared file: what it takes to share it again without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredShare", into = "StoredShare")]
pub(in crate::node) struct ShareRecord {
    /// Under which key.
    pub(in crate::node) key: GroupFile,
    /// By whom.
    pub(in crate::node) user: String,
    /// Where it lies.
    pub(in crate::node) path: PathBuf,
    /// What it looked like when it was hashed.
    pub(in crate::node) fingerprint: Fingerprint,
    /// What names its content.
    pub(in crate::node) content: Digest,
    /// Its manifest's checksum.
    pub(in crate::node) checksum: ManifestChecksum,
    /// How far the trackers know of it.
    pub(in crate::node) stage: ShareStage,
    /// Why they refused it, where they did.
    pub(in crate::node) refusal: Option<ClientFault>,
}

/// The form at rest.
#[derive(Serialize, Deserialize)]
struct StoredShare {
    group: String,
    file: String,
    user: String,
    path: PathBuf,
    fingerprint: String,
    content: String,
    manifest: ManifestChecksum,
    stage: ShareStage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<ClientFault>,
}

impl From<ShareRecord> for StoredShare {
    fn from(shared: ShareRecord) -> StoredShare {
        StoredShare {
            group: shared.key.group.to_string(),
            file: shared.key.name.to_string(),
            user: shared.user,
            path: shared.path,
            fingerprint: shared.fingerprint.to_string(),
            content: shared.content.to_string(),
            manifest: shared.checksum,
            stage: shared.stage,
            refusal: shared.refusal,
        }
    }
}

impl TryFrom<StoredShare> for ShareRecord {
    type Error = String;

    fn try_from(written: StoredShare) -> Result<ShareRecord, String> {
        Ok(ShareRecord {
            key: parse_file_key(&written.group, &written.file)?,
            user: written.user,
            path: written.path,
            fingerprint: written.fingerprint.parse().map_err(|bad| format!("{bad}"))?,
            content: written.content.parse().map_err(|bad| format!("{bad}"))?,
            checksum: written.manifest,
            stage: written.stage,
            refusal: written.refusal,
        })
    }
}

/// The key of a group and a name at rest.
pub(super) fn parse_file_key(group: &str, file: &str) -> Result<GroupFile, String> {
    let group = GroupId::new(group).map_err(|bad| bad.to_string())?;
    Ok(GroupFile { group, name: FileName::new(file).map_err(|bad| bad.to_string())? })
}

#[cfg(test)]
pub(in crate::node) mod tests {
    use super::*;
    use crate::exit::ExitCause;

    /// A share of the file `f` in a group.
    pub(in crate::node) fn sample_record(group: &str, user: &str) -> ShareRecord {
        ShareRecord {
            key: parse_file_key(group, "f").unwrap(),
            user: user.into(),
            path: "/f".into(),
            fingerprint: Fingerprint { length: 1, modified: (2, 3), inode: 4, device: 5 },
            content: Digest([1; 20]),
            checksum: ManifestChecksum::try_from("07".repeat(32)).unwrap(),
            stage: ShareStage::Listed,
            refusal: None,
        }
    }

    #[test]
    fn a_record_reads_back_and_one_that_makes_no_sense_does_not() {
        let text = serde_json::to_string(&sample_record("g", "u")).unwrap();
        assert_eq!(serde_json::from_str::<ShareRecord>(&text).unwrap(), sample_record("g", "u"));
        let why = ClientFault::new(ExitCause::Exists, "why").fix("what");
        let refused =
            ShareRecord { stage: ShareStage::Refused, refusal: Some(why), ..sample_record("g", "u") };
        let back: ShareRecord = serde_json::from_str(&serde_json::to_string(&refused).unwrap()).unwrap();
        assert_eq!(back, refused);
        for (right, wrong) in
            [("\"f\"", "\"../f\""), ("1:2:3:4:5", "1:2:3:4"), ("listed", "lost"), ("\"g\"", "\"\"")]
        {
            assert!(serde_json::from_str::<ShareRecord>(&text.replacen(right, wrong, 1)).is_err(), "{wrong}");
        }
    }
}
