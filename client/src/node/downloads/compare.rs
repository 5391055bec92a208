//! Compares the file at a destination with the file that is to be downloaded there, and refuses destinations that another
//! download has.
//!
//! The whole file is read and hashed. Progress is reported after each piece, and the callback may abort the
//! comparison. An aborted comparison has changed nothing.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use engine::ExistingFile;
use engine::proto::manifest::Manifest;
use engine::storage::destination::Destination;
use engine::storage::fingerprint::Fingerprint;
use tracker::api::GroupFile;

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{TransferRow, TransferState};
use crate::node::core::{NodeCore, quote_key, to_engine_key};
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
    /// The wanted file is already there, at this path. With its fingerprint from before it was hashed.
    Identical(PathBuf, Fingerprint),
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

/// Refuses the path of another download. `others` are the destinations of the other downloads, of which only those with the
/// same file name are looked at: a filesystem that hangs must delay no other download.
///
/// # Errors
/// Exit code 6 for a path that another download has. A storage fault.
pub(super) fn refuse_claimed_destination(
    request: &DownloadRequest,
    mut others: Vec<(GroupFile, PathBuf)>,
) -> Result<(), ClientFault> {
    // A destination that is a directory stands for the file's name in it.
    let possible_names = |destination: &Path, key: &GroupFile| {
        [destination.file_name().unwrap_or_default().to_owned(), key.name.as_str().into()]
    };
    let names = possible_names(&request.destination, &request.key);
    others.retain(|(key, path)| possible_names(path, key).iter().any(|name| names.contains(name)));
    if others.is_empty() {
        return Ok(());
    }
    let place = Destination::resolve(&request.destination, &request.key.name)?;
    for (other, destination) in others {
        // One that cannot be resolved leads to no path.
        let claimed = Destination::resolve(&destination, &other.name);
        if claimed.is_ok_and(|claimed| claimed.is_same_place(&place)) {
            let message =
                format!("another download, {other}, is being fetched to {}", show_path(&place.path()));
            let fix = format!("choose another destination, or `cancel {}`", quote_key(&other));
            return Err(ClientFault::new(ExitCause::Exists, message).fix(fix));
        }
    }
    Ok(())
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
        ExistingFile::Same(path, fingerprint) => Ok(CompareOutcome::Identical(path, fingerprint)),
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

/// Whether a comparison goes on, in the form that its report returns.
pub(super) fn continue_while(should_continue: bool) -> ControlFlow<()> {
    if should_continue { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// The error of a command whose comparison another command has ended.
pub(super) fn aborted_fault(core: &NodeCore, key: &GroupFile) -> ClientFault {
    if core.shutdown.is_set() {
        return ClientFault::ending();
    }
    let message =
        format!("{key} was paused or cancelled while the file at its destination was being compared");
    ClientFault::new(ExitCause::Other, message)
        .fix("`show_downloads` shows its state; the same command compares the file again from its start")
}
