//! One download of this node: what it is, whose, and where to; and its record.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use engine::Download;
use engine::proto::manifest::{FileProof, Manifest};
use engine::stats::Progress;
use tracker::api::FileKey;

use super::core::{Core, engine_key};
use super::ending::Ending;
use super::records::{RecordId, Wanted};
use super::view;
use crate::exit::Fault;
use crate::front::rows::Transfer;
use crate::lock::lock;

/// One download.
pub(super) struct Entry {
    /// Which file.
    pub(super) key: FileKey,
    /// Whose it is.
    pub(super) user: String,
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    pub(super) wanted: Mutex<Wanted>,
    /// What the file is.
    pub(super) manifest: Arc<Manifest>,
    /// Ends when its end is on record.
    pub(super) recorded: Ending,
    /// Ends when the trackers were told for the first time that it is complete, whatever they said.
    pub(super) telling: Ending,
    /// The engine's part.
    pub(super) download: Download,
    /// Why the node paused it, when it did.
    pub(super) held_back: Mutex<Option<String>>,
    /// The node's limit for what it receives, in bytes a second.
    pub(super) limit_down: Option<NonZeroU64>,
}

impl Entry {
    /// As it stands.
    pub(super) fn transfer(&self) -> Transfer {
        self.transfer_at(&self.download.progress())
    }

    /// As it stood.
    pub(super) fn transfer_at(&self, progress: &Progress) -> Transfer {
        let held_back = lock(&self.held_back);
        let transfer =
            view::transfer(&engine_key(&self.key), progress, held_back.as_deref(), self.limit_down);
        let pieces_only = matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
        Transfer { pieces_only, figures: view::figures(&self.download, progress), ..transfer }
    }

    /// Goes on, whoever had paused it.
    pub(super) fn release(&self) {
        *lock(&self.held_back) = None;
        self.download.resume();
    }

    /// Changes its record, here and on the disk.
    ///
    /// # Errors
    /// A fault when it cannot be written.
    pub(super) fn record(&self, core: &Core, change: impl FnOnce(&mut Wanted)) -> Result<(), Fault> {
        let mut wanted = lock(&self.wanted);
        change(&mut wanted);
        core.records.write_download(&self.id, &wanted)
    }

    /// Whether nothing more will happen to it.
    pub(super) fn has_ended(&self) -> bool {
        self.download.progress().phase.is_end()
    }
}
