//! A running download, as whoever ordered it sees it; and how its files are opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::driver::{ActiveDownload, OpenedFiles};
use crate::proto::action::PeerAddress;
use crate::proto::geometry::Geometry;
use crate::proto::manifest::{FileKey, Manifest};
use crate::proto::ticket::Ticket;
use crate::proto::units::{PieceIndex, PieceRange};
use crate::stats::{DownloadProgress, SuspectPeer};
use crate::storage::destination::{Destination, DestinationEntry};
use crate::storage::error::{StorageError, StorageErrorKind, StorageOperation};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::resume::{self, ResumeJournal};
use crate::storage::target::{Target, TargetLayout};

/// One running download. Cheap to clone; dropping it does not stop it.
#[derive(Clone)]
pub struct Download {
    state: Arc<ActiveDownload>,
}

impl Download {
    pub(crate) fn new(state: Arc<ActiveDownload>) -> Download {
        Download { state }
    }

    /// Which file.
    #[must_use]
    pub fn key(&self) -> &FileKey {
        &self.state.key
    }

    /// Names peers, as the tracker tells them; known ones are kept as they are.
    pub fn add_peers(&self, peers: &[PeerAddress]) {
        self.state.add_peers(peers);
    }

    /// A fresh ticket: used for new connections and sent on open ones.
    pub fn renew_ticket(&self, ticket: Ticket) {
        self.state.renew_ticket(ticket);
    }

    /// Stops for now: connections are closed, what is verified stays and is served.
    pub fn pause(&self) {
        self.state.pause();
    }

    /// Goes on after [`Download::pause`].
    pub fn resume(&self) {
        self.state.resume();
    }

    /// Gives it up; the partial file is removed.
    pub fn cancel(&self) {
        self.state.cancel();
    }

    /// As it stands.
    #[must_use]
    pub fn progress(&self) -> DownloadProgress {
        self.state.progress()
    }

    /// From the request for a piece to its proof, in microseconds: one value for each piece that a peer sent.
    #[must_use]
    pub fn latency(&self) -> Histogram<u32> {
        self.state.cost.latency()
    }

    /// What the file looks like under its final name, once it is durable: for [`Engine::share_file`](crate::Engine::reshare).
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.state.fingerprint.get().copied()
    }

    /// Blocks until the progress has another version than `seen`, or `timeout` has passed.
    #[must_use]
    pub fn wait(&self, seen: u64, timeout: Duration) -> DownloadProgress {
        self.state.wait(seen, timeout)
    }

    /// Runs of pieces verified since the last call: for `update_pieces`.
    #[must_use]
    pub fn take_gained(&self) -> Vec<PieceRange> {
        self.state.take_gained()
    }

    /// Peers that were dropped for bad pieces since the last call: for `report_peer`.
    #[must_use]
    pub fn take_suspects(&self) -> Vec<SuspectPeer> {
        self.state.take_suspects()
    }
}

/// Opens the partial file and its record: new ones, or those of an earlier attempt, with what is to be hashed of it.
pub(crate) fn open_files(
    destination: &Path,
    key: &FileKey,
    manifest: &Manifest,
    overwrite: bool,
) -> Result<(OpenedFiles, Vec<PieceIndex>), StorageError> {
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
    let wanted = byte_ranges(geometry, |index| !zeros.has(index));
    resume::remove_orphaned_record(&place, &key.group, content)?;
    let plan = TargetLayout { length: geometry.length(), reserved_ranges: &wanted };
    let target = Target::open(place, &key.group, content, plan)?;
    if !target.is_new() {
        // Whatever an earlier attempt was, pieces of zeros count as held without being read.
        byte_ranges(geometry, |index| zeros.has(index))
            .into_iter()
            .try_for_each(|range| target.zero_range(range))?;
    }
    let (ledger, left) = match ResumeJournal::open(&target, &key.group, manifest) {
        Ok(opened) => opened,
        Err(error) => {
            if target.is_new() {
                // The cause matters more than what may go wrong in cleaning up.
                let _ = target.discard();
            }
            return Err(error);
        }
    };
    // Pieces whose content is there elsewhere are filled in by the same thread that checks.
    let checking = !left.to_check.is_empty() || left.held.pieces.count().0 > 0;
    Ok((OpenedFiles { target, ledger, held: left.held, is_checking: checking }, left.to_check))
}

/// The ranges of the pieces that are chosen, in bytes.
fn byte_ranges(geometry: Geometry, chosen: impl Fn(PieceIndex) -> bool) -> Vec<std::ops::Range<u64>> {
    let indices = geometry.pieces().indices().filter(|index| chosen(*index));
    PieceRange::from_ascending(indices).into_iter().map(|run| geometry.bytes(run)).collect()
}
