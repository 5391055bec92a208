//! The record of one download.

use std::path::PathBuf;

use engine::proto::units::Digest;
use serde::{Deserialize, Serialize};
use tracker::api::GroupFile;

use super::share::parse_file_key;
use crate::exit::ClientFault;

/// A download: what it takes to resume it. The trackers describe the file again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredDownload", into = "StoredDownload")]
pub(in crate::node) struct DownloadRecord {
    /// The file.
    pub(in crate::node) key: GroupFile,
    /// The user.
    pub(in crate::node) user: String,
    /// Where to put it as typed, made absolute. A final slash means a directory.
    pub(in crate::node) destination: PathBuf,
    /// Replace a file that differs.
    pub(in crate::node) overwrite: bool,
    /// The SHA-1 that named its content at the start. The name may belong to another file by now.
    pub(in crate::node) content: Digest,
    /// Its length in bytes, for display.
    pub(in crate::node) total_bytes: u64,
    /// Whether its user paused it.
    pub(in crate::node) paused: bool,
    /// Why it failed, if it did.
    pub(in crate::node) failed: Option<ClientFault>,
    /// The record of the download that it replaces, until it has started.
    pub(in crate::node) replaced: Option<Box<DownloadRecord>>,
}

/// The record as JSON.
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
    #[serde(rename = "former", default, skip_serializing_if = "Option::is_none")]
    replaced: Option<Box<DownloadRecord>>,
}

impl From<DownloadRecord> for StoredDownload {
    fn from(record: DownloadRecord) -> StoredDownload {
        StoredDownload {
            group: record.key.group.to_string(),
            file: record.key.name.to_string(),
            user: record.user,
            destination: record.destination,
            overwrite: record.overwrite,
            content: record.content.to_string(),
            total_bytes: record.total_bytes,
            paused: record.paused,
            failed: record.failed,
            replaced: record.replaced,
        }
    }
}

impl TryFrom<StoredDownload> for DownloadRecord {
    type Error = String;

    fn try_from(stored: StoredDownload) -> Result<DownloadRecord, String> {
        if !stored.destination.is_absolute() {
            return Err("its destination is no absolute path".into());
        }
        Ok(DownloadRecord {
            key: parse_file_key(&stored.group, &stored.file)?,
            user: stored.user,
            destination: stored.destination,
            overwrite: stored.overwrite,
            content: stored.content.parse().map_err(|bad| format!("{bad}"))?,
            total_bytes: stored.total_bytes,
            paused: stored.paused,
            failed: stored.failed,
            replaced: stored.replaced,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitCause;

    #[test]
    fn a_record_reads_back_and_an_invalid_one_is_refused() {
        let record = DownloadRecord {
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
        let replaced = Some(Box::new(DownloadRecord { destination: "/before/".into(), ..record.clone() }));
        let record = DownloadRecord { replaced, ..record };
        let text = serde_json::to_string(&record).unwrap();
        let back: DownloadRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(back, record);
        // Paths compare equal without the final slash.
        assert!(back.destination.as_os_str().to_str().is_some_and(|path| path.ends_with('/')));
        assert!(serde_json::from_str::<DownloadRecord>(&text.replacen("/to/", "to", 1)).is_err());
    }
}
