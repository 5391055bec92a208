//! A running download, as whoever ordered it sees it.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::DownloadState;
use crate::proto::action::PeerAddress;
use crate::proto::manifest::FileKey;
use crate::proto::ticket::Ticket;
use crate::proto::units::PieceRange;
use crate::stats::{Progress, Suspect};

/// One running download. Cheap to clone; dropping it does not stop it.
#[derive(Clone)]
pub struct Download {
    state: Arc<DownloadState>,
}

impl Download {
    pub(crate) fn new(state: Arc<DownloadState>) -> Download {
        Download { state }
    }

    /// Which file.
    #[must_use]
    pub fn key(&self) -> &FileKey {
        &self.state.key
    }

    /// Names peers, as the tracker tells them; known ones are kept as they are.
    pub fn offer(&self, peers: &[PeerAddress]) {
        self.state.offer(peers);
    }

    /// A fresh ticket: used for new connections and sent on open ones.
    pub fn renew(&self, ticket: Ticket) {
        self.state.renew(ticket);
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
    pub fn progress(&self) -> Progress {
        self.state.progress()
    }

    /// Blocks until the progress has another version than `seen`, or `timeout` has passed.
    #[must_use]
    pub fn wait(&self, seen: u64, timeout: Duration) -> Progress {
        self.state.wait(seen, timeout)
    }

    /// Runs of pieces verified since the last call: for `update_pieces`.
    #[must_use]
    pub fn take_gained(&self) -> Vec<PieceRange> {
        self.state.take_gained()
    }

    /// Peers that were dropped for bad pieces since the last call: for `report_peer`.
    #[must_use]
    pub fn take_suspects(&self) -> Vec<Suspect> {
        self.state.take_suspects()
    }
}
