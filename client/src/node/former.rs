//! What is on record of a download while another of the same file takes its place.
//!
//! Invariant: until the later one has begun, the earlier one stands on the disk, inside the later one's record; whatever goes
//! wrong in between, a kill too, it stands again as it was.

use std::sync::Arc;

use super::core::Core;
use super::dormant::Dormant;
use super::entry::Entry;
use super::records::{RecordId, Records, Wanted};

/// A download that has a record, and does not go on.
pub(super) struct Former {
    /// Its record's name.
    pub(super) id: RecordId,
    wanted: Wanted,
    entry: Option<Arc<Entry>>,
}

impl Former {
    /// One that is on record alone.
    pub(super) fn dormant(dormant: Dormant) -> Former {
        Former { id: dormant.id, wanted: dormant.wanted, entry: None }
    }

    /// One that failed in this process, and from here on leaves its record to whatever is begun.
    pub(super) fn failed(entry: Arc<Entry>) -> Former {
        Former { id: entry.id.clone(), wanted: entry.leave_record(), entry: Some(entry) }
    }

    /// The record of the one that takes its place.
    pub(super) fn replaced_by(&self, wanted: Wanted) -> Wanted {
        Wanted { former: Some(Box::new(self.wanted.clone())), ..wanted }
    }

    /// It stands again, as it was.
    pub(super) fn stand_again(self, core: &Core) {
        if let Err(fault) = core.records.write_download(&self.id, &self.wanted) {
            // What is on the disk leads to the same, at the next start.
            tracing::info!("{fault}");
        }
        if let Some(entry) = self.entry {
            entry.take_back_record();
        }
    }
}

/// What a record says at the start: where the node ended before a download had begun, the one before it.
pub(super) fn settled(records: &Records, id: &RecordId, wanted: Wanted) -> Wanted {
    let Some(former) = wanted.former else { return wanted };
    if let Err(fault) = records.write_download(id, &former) {
        // Nor does anything else change what is there.
        tracing::warn!("{fault}");
    }
    *former
}
