//! Determines which pieces of a partial file an earlier attempt left, with or without its record.
//!
//! Invariant: a piece is trusted only if it was durable under a record of the same pieces and of this very
//! file, nothing was written to the file since that record, and the file is long enough to contain it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::record::{ContentIdentity, NotedPieces, ResumeRecord};
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::manifest::Manifest;
use crate::proto::transfer::ResumedPieces;
use crate::proto::units::{Digest, PieceIndex};
use crate::storage::destination::{Destination, partial_name, remove_name, sibling_name, sync_directory};
use crate::storage::error::{StorageError, StorageOperation, to_storage_error};
use crate::storage::file_identity::FileIdentity;
use crate::storage::limits::RECORD_MAX_BYTES;
use crate::storage::target::Target;

/// What an earlier attempt left in the partial file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorProgress {
    /// Trusted pieces.
    pub held: ResumedPieces,
    /// Pieces that may be there and have to be hashed, ascending.
    pub to_check: Vec<PieceIndex>,
    /// Whether all other pieces are known to be missing, and `to_check` was noted.
    pub is_complete: bool,
}

/// What is left, and what the next record has to repeat of it.
pub(super) struct RecoveredState {
    pub(super) progress: PriorProgress,
    /// The trusted pieces that are durable.
    pub(super) durable: Bitfield,
    /// Notes on all other pieces that still count.
    pub(super) noted: NotedPieces,
}

/// Determines what is left, from the record and notes if there are any.
pub(super) fn recover_state(
    recorded: Option<&(ResumeRecord, NotedPieces)>,
    identity: &ContentIdentity,
    manifest: &Manifest,
    target: &Target,
) -> RecoveredState {
    match recorded {
        Some((record, noted))
            if record.identity.same_pieces(identity) && record.durable.pieces() == manifest.pieces() =>
        {
            let is_same_chain = identity.chain.is_some() && identity.chain == record.identity.chain;
            progress_from_record(record, noted, is_same_chain, manifest, target)
        }
        _ => {
            let progress = progress_without_record(manifest, target);
            RecoveredState {
                progress,
                durable: Bitfield::empty(manifest.pieces()),
                noted: NotedPieces::new(),
            }
        }
    }
}

/// What a record of the same pieces proves, limited to pieces that the partial file was long enough to
/// contain. If the file is no longer in the state that the record names, that is which pieces to check.
fn progress_from_record(
    record: &ResumeRecord,
    noted: &NotedPieces,
    is_same_chain: bool,
    manifest: &Manifest,
    target: &Target,
) -> RecoveredState {
    let exact =
        if manifest.is_length_known() { Some(manifest.geometry().length()) } else { record.exact_length };
    let geometry = exact
        .and_then(|length| Geometry::new(length).ok())
        .filter(|geometry| geometry.pieces() == manifest.pieces())
        .unwrap_or(manifest.geometry());
    let was_there = |index: &PieceIndex| {
        fits_initial_length(geometry, *index, target) && (exact.is_some() || geometry.last() != Some(*index))
    };
    let is_unchanged = record.file_state.is_some() && record.file_state == target.initial_state();
    let mut durable = Bitfield::empty(manifest.pieces());
    let mut remaining: NotedPieces = noted.iter().copied().filter(was_there).collect();
    let mut to_check = remaining.clone();
    for index in record.durable.iter().filter(was_there) {
        remaining.remove(&index);
        to_check.insert(index);
        if is_unchanged {
            durable.insert(index);
        }
    }
    let to_check = if record.is_complete {
        to_check.into_iter().filter(|index| !durable.has(*index)).collect()
    } else {
        unproven_pieces(manifest, &durable).filter(was_there).collect()
    };
    let held = ResumedPieces {
        links_match: durable.count().0 == 0 || record.links_hold && is_same_chain,
        length: geometry.last().filter(|last| durable.has(*last)).map(|_| geometry.length()),
        pieces: durable.clone(),
    };
    // What the record claimed is in no note, so a crash during the check has every piece checked.
    let is_complete = record.is_complete && (is_unchanged || record.durable.count().0 == 0);
    RecoveredState { progress: PriorProgress { held, to_check, is_complete }, durable, noted: remaining }
}

/// Without a record every piece may be there, unless the file is new.
fn progress_without_record(manifest: &Manifest, target: &Target) -> PriorProgress {
    let geometry = manifest.geometry();
    let pieces = Bitfield::empty(manifest.pieces());
    let is_known = |index: &PieceIndex| manifest.is_length_known() || geometry.last() != Some(*index);
    let to_check: Vec<PieceIndex> = unproven_pieces(manifest, &pieces)
        .filter(|index| fits_initial_length(geometry, *index, target) && is_known(index))
        .collect();
    let complete = to_check.is_empty();
    PriorProgress {
        held: ResumedPieces { pieces, links_match: true, length: None },
        to_check,
        is_complete: complete,
    }
}

fn fits_initial_length(geometry: Geometry, index: PieceIndex, target: &Target) -> bool {
    geometry.end(index) <= target.initial_length()
}

/// All pieces except trusted ones and pieces of zeros, which are never written.
fn unproven_pieces(manifest: &Manifest, trusted: &Bitfield) -> impl Iterator<Item = PieceIndex> {
    let zeros = manifest.zero_pieces();
    manifest.pieces().indices().filter(move |index| !zeros.has(*index) && !trusted.has(*index))
}

/// Removes a record whose partial file is gone, before a new file takes that name: its claims are no longer
/// true.
///
/// # Errors
/// [`StorageError`] when it exists and cannot be removed.
pub fn remove_orphaned_record(
    destination: &Destination,
    group: &str,
    content: Digest,
) -> Result<(), StorageError> {
    let partial = partial_name(destination.name(), group, content);
    let name = sibling_name(destination.name(), group, content, ".record");
    let path = destination.path().with_file_name(&name);
    let stat =
        |name: &OsStr| destination.stat_name(name).map_err(to_storage_error(StorageOperation::Open, &path));
    if stat(&partial)?.is_some() || stat(&name)?.is_none() {
        return Ok(());
    }
    remove_name(&destination.directory, &name).map_err(to_storage_error(StorageOperation::Remove, &path))?;
    sync_directory(&destination.directory).map_err(to_storage_error(StorageOperation::Sync, &path))
}

/// Reads the record of the partial file `part`. `None` when there is none, it belongs to another user, or
/// record or partial file is a copy. A damaged record is renamed to `aside`, and also gives `None`.
pub(super) fn read_record(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    damaged_name: &OsStr,
    partial_file: FileIdentity,
) -> Result<Option<(ResumeRecord, NotedPieces)>, StorageError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(to_storage_error(StorageOperation::Open, path)(errno)),
    };
    let metadata = file.metadata().map_err(to_storage_error(StorageOperation::Open, path))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        tracing::warn!(path = %path.display(), "the record of a download belongs to another user; everything is hashed instead");
        return Ok(None);
    }
    let record_file = FileIdentity::of(&file).map_err(to_storage_error(StorageOperation::Open, path))?;
    let mut bytes = Vec::new();
    file.take(RECORD_MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(to_storage_error(StorageOperation::Read, path))?;
    if bytes.is_empty() {
        // The machine crashed before anything was claimed.
        return Ok(None);
    }
    if ResumeRecord::is_other_version(&bytes) {
        tracing::info!(
            path = %path.display(),
            "the record of a download was written by another version of this program; everything is hashed instead"
        );
        return Ok(None);
    }
    match ResumeRecord::parse(&bytes) {
        Ok(recorded) if (recorded.0.partial_file, recorded.0.record_file) == (partial_file, record_file) => {
            Ok(Some(recorded))
        }
        Ok(_) => {
            tracing::warn!(
                path = %path.display(),
                "the record of a download, or the partial file beside it, is a copy; everything is hashed instead"
            );
            Ok(None)
        }
        Err(why) => {
            tracing::warn!(
                path = %path.display(), %why, renamed_to = %damaged_name.display(),
                "the record of a download is damaged; everything is hashed instead"
            );
            rustix::fs::renameat(directory, name, directory, damaged_name)
                .map_err(to_storage_error(StorageOperation::Rename, path))?;
            Ok(None)
        }
    }
}
