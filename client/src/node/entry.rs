//! One download of this node: what it is, whose, and where to.

use std::path::PathBuf;
use std::sync::Mutex;

use engine::Download;
use engine::proto::manifest::FileProof;
use engine::stats::Progress;
use tracker::api::FileKey;

use super::core::engine_key;
use super::ending::Ending;
use super::registry::Shared;
use super::view;
use crate::front::rows::Transfer;
use crate::lock::lock;

/// One download.
pub(super) struct Entry {
    /// Which file.
    pub(super) key: FileKey,
    /// Where to, as it was asked for.
    pub(super) destination: PathBuf,
    /// Whose it is.
    pub(super) user: String,
    /// What proves it.
    pub(super) proof: FileProof,
    /// Ends when the trackers were told for the first time that it is complete, whatever they said.
    pub(super) telling: Ending,
    /// The engine's part.
    pub(super) download: Download,
    /// Why the node paused it, when it did.
    pub(super) held_back: Mutex<Option<String>>,
}

impl Entry {
    /// As it stands.
    pub(super) fn transfer(&self) -> Transfer {
        self.transfer_at(&self.download.progress())
    }

    /// As it stood.
    pub(super) fn transfer_at(&self, progress: &Progress) -> Transfer {
        let transfer = view::transfer(&engine_key(&self.key), progress, lock(&self.held_back).as_deref());
        let pieces_only = matches!(self.proof, FileProof::PiecesOnly(_));
        Transfer { pieces_only, figures: view::figures(&self.download, progress), ..transfer }
    }

    /// Goes on, whoever had paused it.
    pub(super) fn release(&self) {
        *lock(&self.held_back) = None;
        self.download.resume();
    }

    /// The share that it has become, once it is complete; `None` for one that could not be recognised by its hash.
    pub(super) fn shared(&self) -> Option<Shared> {
        let FileProof::Whole(content) = self.proof else { return None };
        let path = self.download.progress().path;
        Some(Shared { key: self.key.clone(), user: self.user.clone(), path, content })
    }

    /// Whether nothing more will happen to it.
    pub(super) fn has_ended(&self) -> bool {
        self.download.progress().phase.is_end()
    }
}
