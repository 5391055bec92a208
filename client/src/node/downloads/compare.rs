//! Compares the file at a destination with the file that is to be downloaded there.
//!
//! The whole file is read and hashed. Progress is reported after each piece, and the callback may abort the
//! comparison. An aborted comparison has changed nothing.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::ExistingFile;
use engine::proto::manifest::Manifest;
use tracker::api::GroupFile;

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{TransferRow, TransferState};
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::rows;
use crate::printable::show_path;

/// A download as a command asks for it.
pub(in crate::node) struct DownloadRequest {
    /// The file.
    pub(in crate::node) key: GroupFile,
    /// Where to put the file: an absolute path of a file or a directory.
    pub(in crate::node) destination: PathBuf,
    /// Whether to replace a file that differs.
    pub(in crate::node) overwrite: bool,
}

/// The result of a comparison.
pub(super) enum CompareOutcome {
    /// There is no file, or one that may be replaced.
    Vacant,
    /// The wanted file is already there, at this path.
    Identical(PathBuf),
    /// The callback aborted the comparison; the result is unknown.
    Aborted,
}

/// Progress of a comparison.
pub(super) struct CompareProgress {
    key: GroupFile,
    destination: PathBuf,
    total_bytes: u64,
    done_bytes: AtomicU64,
}

impl CompareProgress {
    /// The progress of a comparison that has not begun.
    pub(super) fn new(request: &DownloadRequest, manifest: &Manifest) -> CompareProgress {
        CompareProgress {
            key: request.key.clone(),
            destination: request.destination.clone(),
            total_bytes: manifest.geometry().length(),
            done_bytes: AtomicU64::new(0),
        }
    }

    /// Sets the number of compared bytes.
    pub(super) fn set(&self, done_bytes: u64) {
        self.done_bytes.store(done_bytes, Ordering::Relaxed);
    }

    /// The row of the download that this comparison belongs to.
    pub(super) fn row(&self) -> TransferRow {
        let verified_bytes = self.done_bytes.load(Ordering::Relaxed);
        let idle = rows::idle_transfer_row(
            &to_engine_key(&self.key),
            self.destination.clone(),
            self.total_bytes,
            (TransferState::Comparing, None),
        );
        TransferRow { verified_bytes, ..idle }
    }
}

/// Compares the file at the destination with `manifest`. After each piece `report` gets the number of
/// compared bytes and decides whether to continue. It is never called if there is no file.
///
/// # Errors
/// Exit code 6 for a file that differs and may not be replaced, or for something that is not a file. A
/// storage fault.
pub(super) fn compare_destination(
    core: &NodeCore,
    request: &DownloadRequest,
    manifest: &Manifest,
    report: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
) -> Result<CompareOutcome, ClientFault> {
    match core.peer.engine()?.compare_existing(&request.destination, manifest, report)? {
        ExistingFile::Absent => Ok(CompareOutcome::Vacant),
        ExistingFile::Same(path) => Ok(CompareOutcome::Identical(path)),
        ExistingFile::Cancelled => Ok(CompareOutcome::Aborted),
        ExistingFile::NotAFile(path, what) => {
            let message = format!("{} is {what}, which is never replaced", show_path(&path));
            Err(ClientFault::new(ExitCause::Exists, message).fix("choose another destination"))
        }
        ExistingFile::Differs(_) if request.overwrite => Ok(CompareOutcome::Vacant),
        ExistingFile::Differs(path) => {
            let message = format!("{} exists and is not the file {}", show_path(&path), request.key);
            Err(ClientFault::new(ExitCause::Exists, message)
                .fix("choose another destination, or add `--overwrite`"))
        }
    }
}
