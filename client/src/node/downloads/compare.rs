//! Comparing what is at a destination with the file that is wanted there.
//!
//! All of it is hashed, and so this takes as long as that does. It is told how far it is, and is given up when somebody who
//! means otherwise asks for the claim under which it is done.
//!
//! Invariant: at most one for each claim; one that was given up has found nothing and changed nothing.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use engine::ExistingFile;
use engine::lock::lock;
use engine::proto::manifest::Manifest;
use tracker::api::GroupFile;

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{TransferRow, TransferState};
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::rows;

/// What a front end asked for.
pub(in crate::node) struct DownloadRequest {
    /// Which file.
    pub(in crate::node) key: GroupFile,
    /// Where to, absolute.
    pub(in crate::node) destination: PathBuf,
    /// Replace a file that differs.
    pub(in crate::node) overwrite: bool,
}

/// What was found at a destination.
pub(in crate::node) enum CompareOutcome {
    /// Nothing, or what is to be replaced.
    Vacant,
    /// The very file, at this path.
    Identical(PathBuf),
    /// Nothing yet: it was not wanted any more.
    Aborted,
}

/// Those under way that have read something.
#[derive(Default)]
pub(in crate::node) struct CompareTable {
    active: Mutex<Vec<Arc<CompareProgress>>>,
}

struct CompareProgress {
    key: GroupFile,
    destination: PathBuf,
    total_bytes: u64,
    done_bytes: AtomicU64,
}

impl CompareTable {
    /// Compares; `tell` is told after each piece how many bytes are, and says whether to go on.
    ///
    /// # Errors
    /// Exit 6 for what is not to be replaced: a file that differs, or something that is no file; whatever the disk says.
    pub(in crate::node) fn compare(
        &self,
        core: &NodeCore,
        wish: &DownloadRequest,
        manifest: &Manifest,
        tell: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<CompareOutcome, ClientFault> {
        let comparison = Arc::new(CompareProgress {
            key: wish.key.clone(),
            destination: wish.destination.clone(),
            total_bytes: manifest.geometry().length(),
            done_bytes: AtomicU64::new(0),
        });
        // Where nothing is there nothing is compared, and nobody is told so.
        let begun = Once::new();
        let progress = |done_bytes| {
            comparison.done_bytes.store(done_bytes, Ordering::Relaxed);
            begun.call_once(|| lock(&self.active).push(Arc::clone(&comparison)));
            tell(done_bytes)
        };
        let existing = core.peer.engine()?.compare_existing(&wish.destination, manifest, &progress);
        lock(&self.active).retain(|other| !Arc::ptr_eq(other, &comparison));
        match existing? {
            ExistingFile::Absent => Ok(CompareOutcome::Vacant),
            ExistingFile::Same(path) => Ok(CompareOutcome::Identical(path)),
            ExistingFile::Cancelled => Ok(CompareOutcome::Aborted),
            ExistingFile::NotAFile(path, what) => {
                let message = format!("{} is {what}, which is never replaced", path.display());
                Err(ClientFault::new(ExitCause::Exists, message).fix("choose another destination"))
            }
            ExistingFile::Differs(_) if wish.overwrite => Ok(CompareOutcome::Vacant),
            ExistingFile::Differs(path) => {
                let message = format!("{} exists and is not the file {}", path.display(), wish.key);
                Err(ClientFault::new(ExitCause::Exists, message)
                    .fix("choose another destination, or add `--overwrite`"))
            }
        }
    }

    /// The one for a file, as a download that is no further yet.
    pub(in crate::node) fn row(&self, key: &GroupFile) -> Option<TransferRow> {
        lock(&self.active).iter().find(|comparison| comparison.key == *key).map(|found| found.row())
    }

    /// All of them, likewise.
    pub(in crate::node) fn rows(&self) -> Vec<TransferRow> {
        lock(&self.active).iter().map(|comparison| comparison.row()).collect()
    }
}

impl CompareProgress {
    fn row(&self) -> TransferRow {
        let verified_bytes = self.done_bytes.load(Ordering::Relaxed);
        let still = rows::idle_transfer_row(
            &to_engine_key(&self.key),
            self.destination.clone(),
            self.total_bytes,
            (TransferState::Comparing, None),
        );
        TransferRow { verified_bytes, ..still }
    }
}
