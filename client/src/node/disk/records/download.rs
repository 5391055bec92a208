//! The record of one download.

use std::path::PathBuf;

use engine::proto::units::Digest;
use serde::{Deserialize, Serialize};
use tracker::api::GroupFile;

use super::share::parse_file_key;
use crate::exit::ClientFault;

/// One wanted file: what it takes to go on with it. What the file is, the trackers say again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredDownload", into = "StoredDownload")]
pub(in crate::node) struct DownloadRecord {
    /// Which file.
    pub(in crate::node) key: GroupFile,
    /// By whom.
    pub(in crate::node) user: String,
    /// Where to, as it was asked for, absolute.
    pub(in crate::node) destination: PathBuf,
    /// Replace a file that differs.
    pub(in crate::node) overwrite: bool,
    /// What named its content when it was begun: under the same name there may be another file by now.
    pub(in crate::node) content: Digest,
    /// Its length in bytes, for people.
    pub(in crate::node) total_bytes: u64,
    /// Whether its user paused it.
    pub(in crate::node) paused: bool,
    /// Why it cannot succeed, when that is known.
    pub(in crate::node) failed: Option<ClientFault>,
    /// What was on record before, as long as this one has not begun.
    pub(in crate::node) replaced: Option<Box<DownloadRecord>>,
}

/// The form at rest.
#[derive(Serialize, Deserialize)]
struct StoredDownload {
    group: String,
    file: String,
    user: String,
    destination: PathBuf,
    overwrite: bool,
    content: String,
    total_bytes: u64,
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<ClientFault>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<Box<DownloadRecord>>,
}

impl From<DownloadRecord> for StoredDownload {
    fn from(wanted: DownloadRecord) -> StoredDownload {
        StoredDownload {
            group: wanted.key.group.to_string(),
            file: wanted.key.name.to_string(),
            user: wanted.user,
            destination: wanted.destination,
            overwrite: wanted.overwrite,
            content: wanted.content.to_string(),
            total_bytes: wanted.total_bytes,
            paused: wanted.paused,
            failed: wanted.failed,
            former: wanted.replaced,
        }
    }
}

impl TryFrom<StoredDownload> for DownloadRecord {
    type Error = String;

    fn try_from(written: StoredDownload) -> Result<DownloadRecord, String> {
        if !written.destination.is_absolute() {
            return Err("its destination is no absolute path".into());
        }
        Ok(DownloadRecord {
            key: parse_file_key(&written.group, &written.file)?,
            user: written.user,
            destination: written.destination,
            overwrite: written.overwrite,
            content: written.content.parse().map_err(|bad| format!("{bad}"))?,
            total_bytes: written.total_bytes,
            paused: written.paused,
            failed: written.failed,
            replaced: written.former,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitCause;

    #[test]
    fn a_record_reads_back_and_one_that_makes_no_sense_does_not() {
        let wanted = DownloadRecord {
            key: parse_file_key("g", "f").unwrap(),
            user: "u".into(),
            destination: "/to/".into(),
            overwrite: true,
            content: Digest([3; 20]),
            total_bytes: 9,
            paused: true,
            failed: Some(ClientFault::new(ExitCause::Exists, "why").fix("what")),
            replaced: None,
        };
        let former = Some(Box::new(DownloadRecord { destination: "/before/".into(), ..wanted.clone() }));
        let wanted = DownloadRecord { replaced: former, ..wanted };
        let text = serde_json::to_string(&wanted).unwrap();
        let back: DownloadRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(back, wanted);
        // A final slash says that a directory is meant; paths compare equal without it.
        assert!(back.destination.as_os_str().to_str().is_some_and(|path| path.ends_with('/')));
        assert!(serde_json::from_str::<DownloadRecord>(&text.replacen("/to/", "to", 1)).is_err());
    }
}
