//! The files of one download: how they are opened, which worker writes, and what is being flushed.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::proto::geometry::Geometry;
use crate::proto::manifest::{FileKey, Manifest};
use crate::proto::time::Moment;
use crate::proto::transfer::ResumedPieces;
use crate::proto::units::{PieceIndex, PieceRange};
use crate::storage::cache_eviction::CacheEviction;
use crate::storage::destination::{Destination, DestinationEntry};
use crate::storage::error::{StorageError, StorageErrorKind, StorageOperation};
use crate::storage::resume::{self, ResumeJournal};
use crate::storage::target::{Target, TargetLayout};

/// The partial file of a download and its record, open, and what an earlier attempt left in them.
pub(crate) struct OpenedFiles {
    /// The partial file.
    pub(crate) target: Target,
    /// Which pieces are written, and which of them are durable.
    pub(crate) journal: ResumeJournal,
    /// Pieces held from the start.
    pub(crate) held: ResumedPieces,
    /// Nothing is fetched before `ActiveDownload::finish_check`.
    pub(crate) is_checking: bool,
}

/// Opens the partial file and its record: new ones, or those of an earlier attempt. Returns also the pieces that have to be
/// hashed before anything is fetched; `None` when no check is needed.
///
/// # Errors
/// [`StorageError`]: the destination is taken, the disk is full, or another download writes the same partial file.
pub(crate) fn open_files(
    destination: &Path,
    key: &FileKey,
    manifest: &Manifest,
    overwrite: bool,
) -> Result<(OpenedFiles, Option<Vec<PieceIndex>>), StorageError> {
    let place = Destination::resolve(destination, manifest.name())?;
    let taken = |kind| Err(StorageError { operation: StorageOperation::Create, path: place.path(), kind });
    match place.existing_entry()? {
        DestinationEntry::Absent => {}
        DestinationEntry::File { .. } if overwrite => {}
        DestinationEntry::File { .. } => return taken(StorageErrorKind::Exists),
        DestinationEntry::Other(what) => return taken(StorageErrorKind::NotAFile(what)),
    }
    let geometry = manifest.geometry();
    let content = manifest.proof().id();
    let zeros = manifest.zero_pieces();
    let reserved_ranges = byte_ranges(geometry, |index| !zeros.has(index));
    resume::remove_orphaned_record(&place, &key.group, content)?;
    let layout = TargetLayout { length: geometry.length(), reserved_ranges: &reserved_ranges };
    let target = Target::open(place, &key.group, content, layout)?;
    if !target.is_new() {
        clear_zero_pieces(&target, manifest)?;
    }
    let (journal, prior) = match ResumeJournal::open(&target, &key.group, manifest) {
        Ok(opened) => opened,
        Err(error) => {
            if target.is_new() {
                // The first error is the one to report.
                let _ = target.discard();
            }
            return Err(error);
        }
    };
    // The check also fills in pieces whose content is held at another index, so it runs whenever any piece is held.
    let is_checking = !prior.to_check.is_empty() || prior.held.pieces.count().0 > 0;
    let to_check = is_checking.then_some(prior.to_check);
    Ok((OpenedFiles { target, journal, held: prior.held, is_checking }, to_check))
}

/// Makes the pieces of zeros read as zeros. They count as held without being read, so nothing may have been left there.
pub(crate) fn clear_zero_pieces(target: &Target, manifest: &Manifest) -> Result<(), StorageError> {
    let zeros = manifest.zero_pieces();
    let mut ranges = byte_ranges(manifest.geometry(), |index| zeros.has(index)).into_iter();
    ranges.try_for_each(|range| target.zero_range(range))
}

/// The byte ranges of the chosen pieces.
fn byte_ranges(geometry: Geometry, is_chosen: impl Fn(PieceIndex) -> bool) -> Vec<std::ops::Range<u64>> {
    let indices = geometry.pieces().indices().filter(|index| is_chosen(*index));
    PieceRange::from_ascending(indices).into_iter().map(|run| geometry.bytes(run)).collect()
}

/// The right to write one file, held by one worker at a time.
///
/// The kernel lets one thread at a time write a file and has the others spin for the inode's lock. A worker that waits
/// here goes back to its sockets and hashes instead.
#[derive(Debug, Default)]
pub(crate) struct WriteTurn {
    is_taken: AtomicBool,
    free: Notify,
}

impl WriteTurn {
    /// Waits for the turn. It is not fair: the first worker to ask when it is free gets it.
    pub(crate) async fn acquire(&self) -> WriteTurnGuard<'_> {
        loop {
            if !self.is_taken.swap(true, Ordering::Acquire) {
                return WriteTurnGuard(self);
            }
            // A turn that ended since the swap has left a permit here.
            self.free.notified().await;
        }
    }
}

/// The turn to write, until it is dropped.
#[derive(Debug)]
pub(crate) struct WriteTurnGuard<'a>(&'a WriteTurn);

impl Drop for WriteTurnGuard<'_> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
        self.0.free.notify_one();
    }
}

/// What the flushes of one download remember.
#[derive(Debug)]
pub(crate) struct FlushState {
    /// The download is in the flush queue, or being flushed.
    pub(crate) is_queued: AtomicBool,
    /// Write-backs that wait for a thread.
    pub(crate) writebacks_waiting: AtomicUsize,
    /// When a flush was last requested, in milliseconds since the clock's start.
    pub(crate) requested_ms: AtomicU64,
    /// Recorded pieces that may leave the page cache.
    pub(crate) eviction: Mutex<CacheEviction>,
}

impl FlushState {
    /// Of a file of `length` bytes, of which nothing is written yet.
    pub(super) fn new(length: u64, now: Moment) -> FlushState {
        FlushState {
            is_queued: AtomicBool::new(false),
            writebacks_waiting: AtomicUsize::new(0),
            requested_ms: AtomicU64::new(now.ms_since(Moment::default())),
            eviction: Mutex::new(CacheEviction::new(length)),
        }
    }
}
