//! The public handle of a running download.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::driver::ActiveDownload;
use crate::proto::action::PeerAddress;
use crate::proto::manifest::FileKey;
use crate::proto::ticket::Ticket;
use crate::proto::units::PieceRange;
use crate::stats::{DownloadProgress, SuspectPeer, WithdrawalCause};
use crate::storage::fingerprint::Fingerprint;

/// A running download. Cheap to clone; dropping it does not stop the download.
#[derive(Clone)]
pub struct Download {
    active: Arc<ActiveDownload>,
}

impl Download {
    pub(crate) fn new(active: Arc<ActiveDownload>) -> Download {
        Download { active }
    }

    /// The file that is downloaded.
    #[must_use]
    pub fn key(&self) -> &FileKey {
        &self.active.key
    }

    /// Adds peers that the tracker named; known ones stay as they are.
    pub fn add_peers(&self, peers: &[PeerAddress]) {
        self.active.add_peers(peers);
    }

    /// Uses a renewed ticket for new connections and sends it on open ones.
    pub fn renew_ticket(&self, ticket: Ticket) {
        self.active.renew_ticket(ticket);
    }

    /// Closes the connections; verified pieces stay and are served.
    pub fn pause(&self) {
        self.active.pause();
    }

    /// Fetches again after [`Download::pause`].
    pub fn resume(&self) {
        self.active.resume();
    }

    /// Calls all usable peers at once, without their pauses. Does nothing while the download is paused.
    pub fn retry(&self) {
        self.active.retry();
    }

    /// Ends the download and removes the partial file.
    pub fn cancel(&self) {
        self.active.cancel();
    }

    /// Ends the download, unless all pieces are held: the tracker no longer lets this node fetch the content. The partial
    /// file stays and is no longer served.
    pub fn withdraw(&self, cause: WithdrawalCause, message: String) {
        self.active.withdraw(cause, message);
    }

    /// A snapshot of phase and figures.
    #[must_use]
    pub fn progress(&self) -> DownloadProgress {
        self.active.progress()
    }

    /// Microseconds from the request for a piece to its verification: one value for each piece that a peer sent.
    #[must_use]
    pub fn latency(&self) -> Histogram<u32> {
        self.active.cost.latency()
    }

    /// The file's fingerprint under its final name, once it is durable: for
    /// [`Engine::share_file`](crate::Engine::share_file).
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.active.fingerprint.get().copied()
    }

    /// Blocks until the progress has another version than `seen`, or `timeout` has passed.
    #[must_use]
    pub fn wait(&self, seen: u64, timeout: Duration) -> DownloadProgress {
        self.active.wait(seen, timeout)
    }

    /// Runs of pieces verified since the last call: for the tracker's `update_pieces`.
    #[must_use]
    pub fn take_gained(&self) -> Vec<PieceRange> {
        self.active.take_gained()
    }

    /// Peers that were dropped for bad pieces since the last call: for the tracker's `report_peer`.
    #[must_use]
    pub fn take_suspects(&self) -> Vec<SuspectPeer> {
        self.active.take_suspects()
    }
}
