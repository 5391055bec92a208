//! The record of one share.

use std::path::PathBuf;

use engine::proto::manifest::FileName;
use engine::proto::units::Digest;
use engine::storage::fingerprint::Fingerprint;
use serde::{Deserialize, Serialize};
use tracker::api::{FileKey, GroupId};

use super::manifest::Seal;
use crate::exit::Fault;

/// How far the trackers know of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::node) enum Stage {
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
#[serde(try_from = "Written", into = "Written")]
pub(in crate::node) struct Shared {
    /// Under which key.
    pub(in crate::node) key: FileKey,
    /// By whom.
    pub(in crate::node) user: String,
    /// Where it lies.
    pub(in crate::node) path: PathBuf,
    /// What it looked like when it was hashed.
    pub(in crate::node) fingerprint: Fingerprint,
    /// What names its content.
    pub(in crate::node) content: Digest,
    /// Its manifest's checksum.
    pub(in crate::node) seal: Seal,
    /// How far the trackers know of it.
    pub(in crate::node) stage: Stage,
    /// Why they refused it, where they did.
    pub(in crate::node) refusal: Option<Fault>,
}

/// The form at rest.
#[derive(Serialize, Deserialize)]
struct Written {
    group: String,
    file: String,
    user: String,
    path: PathBuf,
    fingerprint: String,
    content: String,
    manifest: Seal,
    stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<Fault>,
}

impl From<Shared> for Written {
    fn from(shared: Shared) -> Written {
        Written {
            group: shared.key.group.to_string(),
            file: shared.key.name.to_string(),
            user: shared.user,
            path: shared.path,
            fingerprint: shared.fingerprint.to_string(),
            content: shared.content.to_string(),
            manifest: shared.seal,
            stage: shared.stage,
            refusal: shared.refusal,
        }
    }
}

impl TryFrom<Written> for Shared {
    type Error = String;

    fn try_from(written: Written) -> Result<Shared, String> {
        Ok(Shared {
            key: key_of(&written.group, &written.file)?,
            user: written.user,
            path: written.path,
            fingerprint: written.fingerprint.parse().map_err(|bad| format!("{bad}"))?,
            content: written.content.parse().map_err(|bad| format!("{bad}"))?,
            seal: written.manifest,
            stage: written.stage,
            refusal: written.refusal,
        })
    }
}

/// The key of a group and a name at rest.
pub(super) fn key_of(group: &str, file: &str) -> Result<FileKey, String> {
    let group = GroupId::new(group).map_err(|bad| bad.to_string())?;
    Ok(FileKey { group, name: FileName::new(file).map_err(|bad| bad.to_string())? })
}

#[cfg(test)]
pub(in crate::node) mod tests {
    use super::*;
    use crate::exit::Exit;

    /// A share of the file `f` in a group.
    pub(in crate::node) fn shared(group: &str, user: &str) -> Shared {
        Shared {
            key: key_of(group, "f").unwrap(),
            user: user.into(),
            path: "/f".into(),
            fingerprint: Fingerprint { length: 1, modified: (2, 3), inode: 4, device: 5 },
            content: Digest([1; 20]),
            seal: Seal::try_from("07".repeat(32)).unwrap(),
            stage: Stage::Listed,
            refusal: None,
        }
    }

    #[test]
    fn a_record_reads_back_and_one_that_makes_no_sense_does_not() {
        let text = serde_json::to_string(&shared("g", "u")).unwrap();
        assert_eq!(serde_json::from_str::<Shared>(&text).unwrap(), shared("g", "u"));
        let why = Fault::new(Exit::Exists, "why").fix("what");
        let refused = Shared { stage: Stage::Refused, refusal: Some(why), ..shared("g", "u") };
        let back: Shared = serde_json::from_str(&serde_json::to_string(&refused).unwrap()).unwrap();
        assert_eq!(back, refused);
        for (right, wrong) in
            [("\"f\"", "\"../f\""), ("1:2:3:4:5", "1:2:3:4"), ("listed", "lost"), ("\"g\"", "\"\"")]
        {
            assert!(serde_json::from_str::<Shared>(&text.replacen(right, wrong, 1)).is_err(), "{wrong}");
        }
    }
}
