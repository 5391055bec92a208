//! What is on record of a download while another of the same file takes its place.
//!
//! Invariant: until the later one has begun, the earlier one stands on the disk, inside the later one's record; whatever goes
//! wrong in between, a kill too, it stands again as it was.

use std::sync::Arc;

use super::recorded::RecordedDownload;
use super::running::DownloadRun;
use crate::node::core::NodeCore;
use crate::node::disk::records::{DownloadRecord, RecordId, RecordStore};

/// A download that has a record, and does not go on.
pub(in crate::node) struct ReplacedDownload {
    /// Its record's name.
    pub(in crate::node) id: RecordId,
    wanted: DownloadRecord,
    run: Option<Arc<DownloadRun>>,
}

impl ReplacedDownload {
    /// One that is on record alone.
    pub(in crate::node) fn from_recorded(dormant: RecordedDownload) -> ReplacedDownload {
        ReplacedDownload { id: dormant.id, wanted: dormant.wanted, run: None }
    }

    /// One that failed in this process, and from here on leaves its record to whatever is begun.
    pub(in crate::node) fn from_failed_run(entry: Arc<DownloadRun>) -> ReplacedDownload {
        ReplacedDownload { id: entry.id.clone(), wanted: entry.hand_over_record(), run: Some(entry) }
    }

    /// The record of the one that takes its place.
    pub(in crate::node) fn successor_record(&self, wanted: DownloadRecord) -> DownloadRecord {
        DownloadRecord { replaced: Some(Box::new(self.wanted.clone())), ..wanted }
    }

    /// It stands again, as it was.
    pub(in crate::node) fn restore(self, core: &NodeCore) {
        if let Err(fault) = core.records.write_download(&self.id, &self.wanted) {
            // What is on the disk leads to the same, at the next start.
            tracing::info!("{fault}");
        }
        if let Some(entry) = self.run {
            entry.take_back_record();
        }
    }
}

/// What a record says at the start: where the node ended before a download had begun, the one before it.
pub(in crate::node) fn settle_record(
    records: &RecordStore,
    id: &RecordId,
    wanted: DownloadRecord,
) -> DownloadRecord {
    let Some(former) = wanted.replaced else { return wanted };
    if let Err(fault) = records.write_download(id, &former) {
        // Nor does anything else change what is there.
        tracing::warn!("{fault}");
    }
    *former
}
