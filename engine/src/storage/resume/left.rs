//! What an earlier attempt left: by its record, or without one.
//!
//! Invariant: what is trusted was durable, or was written whole through the page cache that is still there; under a record
//! of the same pieces and of this very file, which was long enough to have it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::cache::PageCache;
use super::record::{Identity, Note, NotedPieces, Record};
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::manifest::Manifest;
use crate::proto::transfer::Held;
use crate::proto::units::{Digest, PieceIndex};
use crate::storage::destination::{Destination, partial_name, remove, sibling_name};
use crate::storage::error::{Operation, StorageError, failed};
use crate::storage::limits::RECORD_MAX_BYTES;
use crate::storage::origin::Origin;
use crate::storage::target::Target;

/// What an earlier attempt left in the partial file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What is to be trusted.
    pub held: Held,
    /// What may be there, to be hashed, ascending.
    pub to_check: Vec<PieceIndex>,
    /// Whether what is neither trusted nor to be checked is known not to be there, and `to_check` was noted.
    pub complete: bool,
}

/// What is left, and what the next record has to say of it.
pub(super) struct Found {
    pub(super) left: Left,
    /// Those of the trusted pieces that were durable.
    pub(super) durable: Bitfield,
    /// Of all other pieces that were noted, what still counts.
    pub(super) noted: NotedPieces,
}

/// What is left, by the record and its notes that were found, in the page cache `cache`.
pub(super) fn find(
    found: Option<&(Record, NotedPieces)>,
    identity: &Identity,
    cache: Option<PageCache>,
    manifest: &Manifest,
    target: &Target,
) -> Found {
    match found {
        Some((record, noted))
            if record.identity.same_pieces(identity) && record.durable.pieces() == manifest.pieces() =>
        {
            let same_cache = cache.is_some() && cache == record.cache;
            let same_chain = identity.chain.is_some() && identity.chain == record.identity.chain;
            let trust = Trust { same_cache, same_chain };
            left_by(record, noted, trust, manifest, target)
        }
        _ => {
            let left = left_without_record(manifest, target);
            Found { left, durable: Bitfield::empty(manifest.pieces()), noted: NotedPieces::new() }
        }
    }
}

/// What is as it was when a record was written.
#[derive(Clone, Copy)]
struct Trust {
    /// What was written since then is there.
    same_cache: bool,
    /// Links that held then hold now.
    same_chain: bool,
}

/// What a record of these pieces says, as far as the partial file was long enough to have it.
fn left_by(
    record: &Record,
    noted: &NotedPieces,
    trust: Trust,
    manifest: &Manifest,
    target: &Target,
) -> Found {
    let exact =
        if manifest.length_known() { Some(manifest.geometry().length()) } else { record.exact_length };
    let geometry = exact
        .and_then(|length| Geometry::new(length).ok())
        .filter(|geometry| geometry.pieces() == manifest.pieces())
        .unwrap_or(manifest.geometry());
    let was_there = |index: &PieceIndex| {
        is_within(geometry, *index, target) && (exact.is_some() || geometry.last() != Some(*index))
    };
    let mut durable = Bitfield::empty(manifest.pieces());
    for index in record.durable.iter().filter(was_there) {
        durable.insert(index);
    }
    let mut pieces = durable.clone();
    let mut links_hold = durable.count().0 == 0 || record.links_hold && trust.same_chain;
    let mut still = NotedPieces::new();
    for (index, note) in noted.iter().filter(|(index, _)| was_there(index) && !durable.has(**index)) {
        match note {
            Note::Done { link_holds } if trust.same_cache => {
                let link_holds = *link_holds && trust.same_chain;
                pieces.insert(*index);
                links_hold &= link_holds;
                still.insert(*index, Note::Done { link_holds });
            }
            _ if record.complete => drop(still.insert(*index, Note::Begun)),
            _ => {}
        }
    }
    let to_check = if record.complete {
        still.keys().copied().filter(|index| !pieces.has(*index)).collect()
    } else {
        unproven(manifest, &pieces).filter(was_there).collect()
    };
    let length = geometry.last().filter(|last| pieces.has(*last)).map(|_| geometry.length());
    let left = Left { held: Held { pieces, links_hold, length }, to_check, complete: record.complete };
    Found { left, durable, noted: still }
}

/// Without a record everything may be there, unless the file is new.
fn left_without_record(manifest: &Manifest, target: &Target) -> Left {
    let geometry = manifest.geometry();
    let pieces = Bitfield::empty(manifest.pieces());
    let is_known = |index: &PieceIndex| manifest.length_known() || geometry.last() != Some(*index);
    let to_check: Vec<PieceIndex> = unproven(manifest, &pieces)
        .filter(|index| is_within(geometry, *index, target) && is_known(index))
        .collect();
    let complete = to_check.is_empty();
    Left { held: Held { pieces, links_hold: true, length: None }, to_check, complete }
}

fn is_within(geometry: Geometry, index: PieceIndex, target: &Target) -> bool {
    geometry.end(index) <= target.found_length()
}

/// All pieces but those of zeros, which are never written, and those that are trusted.
fn unproven(manifest: &Manifest, trusted: &Bitfield) -> impl Iterator<Item = PieceIndex> {
    let zeros = manifest.zero_pieces();
    manifest.pieces().indices().filter(move |index| !zeros.has(*index) && !trusted.has(*index))
}

/// Removes a record whose partial file is gone, before another file takes that name: what it claims is not there.
///
/// # Errors
/// [`StorageError`] when it is there and cannot be removed.
pub fn forget_orphan(destination: &Destination, group: &str, content: Digest) -> Result<(), StorageError> {
    let partial = partial_name(destination.name(), group, content);
    let name = sibling_name(destination.name(), group, content, ".record");
    let path = destination.path().with_file_name(&name);
    let stat = |name: &OsStr| destination.stat(name).map_err(failed(Operation::Open, &path));
    if stat(&partial)?.is_some() || stat(&name)?.is_none() {
        return Ok(());
    }
    remove(&destination.directory, &name).map_err(failed(Operation::Remove, &path))?;
    match rustix::fs::fsync(&destination.directory) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(failed(Operation::Sync, &path)(errno)),
    }
}

/// Reads the record of `part`; `None` when there is none, none of ours, one that was copied or is of a file that was copied, or
/// a damaged one, which is set aside.
pub(super) fn read(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    aside: &OsStr,
    part: Origin,
) -> Result<Option<(Record, NotedPieces)>, StorageError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(Operation::Open, path)(errno)),
    };
    let metadata = file.metadata().map_err(failed(Operation::Open, path))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        tracing::warn!(path = %path.display(), "the record of a download belongs to another user; everything is hashed instead");
        return Ok(None);
    }
    let own = Origin::of(&file).map_err(failed(Operation::Open, path))?;
    let mut bytes = Vec::new();
    file.take(RECORD_MAX_BYTES).read_to_end(&mut bytes).map_err(failed(Operation::Read, path))?;
    if bytes.is_empty() {
        // A crash before anything was claimed.
        return Ok(None);
    }
    match Record::parse(&bytes) {
        Ok(found) if (found.0.part, found.0.own) == (part, own) => Ok(Some(found)),
        Ok(_) => {
            tracing::warn!(
                path = %path.display(),
                "the record of a download, or the partial file beside it, is a copy; everything is hashed instead"
            );
            Ok(None)
        }
        Err(why) => {
            tracing::warn!(
                path = %path.display(), %why, set_aside = %aside.display(),
                "the record of a download is damaged; everything is hashed instead"
            );
            rustix::fs::renameat(directory, name, directory, aside)
                .map_err(failed(Operation::Rename, path))?;
            Ok(None)
        }
    }
}
