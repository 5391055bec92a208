//! The public handle of a download.
//!
//! Invariant: once the end of a download was seen through a handle, its handles keep the figures alone: files, manifest and
//! lists are released.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::driver::{ActiveDownload, EngineClock};
use crate::lock::lock;
use crate::proto::action::NamedPeer;
use crate::proto::manifest::FileKey;
use crate::proto::ticket::Ticket;
use crate::proto::time::Moment;
use crate::proto::units::PieceRange;
use crate::stats::{DownloadProgress, SuspectPeer, WithdrawalCause};
use crate::storage::fingerprint::Fingerprint;

/// A download. Cheap to clone; dropping it does not stop the download.
#[derive(Clone)]
pub struct Download {
    key: FileKey,
    clock: EngineClock,
    state: Arc<Mutex<HandleState>>,
}

enum HandleState {
    Running(Arc<ActiveDownload>),
    Ended(Box<EndedDownload>),
}

/// What is left of a download that has ended.
struct EndedDownload {
    progress: DownloadProgress,
    ended_at: Moment,
    latency: Histogram<u32>,
    fingerprint: Option<Fingerprint>,
    gained: Vec<PieceRange>,
    suspects: Vec<SuspectPeer>,
}

impl EndedDownload {
    fn progress(&self, now: Moment) -> DownloadProgress {
        let age = self.progress.age + now.since(self.ended_at);
        DownloadProgress { age, ..self.progress.clone() }
    }
}

impl Download {
    pub(crate) fn new(active: Arc<ActiveDownload>, clock: EngineClock) -> Download {
        let key = active.key.clone();
        Download { key, clock, state: Arc::new(Mutex::new(HandleState::Running(active))) }
    }

    /// The download, unless its end was seen.
    fn active(&self) -> Option<Arc<ActiveDownload>> {
        match &*lock(&self.state) {
            HandleState::Running(active) => Some(Arc::clone(active)),
            HandleState::Ended(_) => None,
        }
    }

    /// Reads from the download, or from what is left of it.
    fn read<R>(
        &self,
        running: impl FnOnce(&ActiveDownload) -> R,
        ended: impl FnOnce(&mut EndedDownload) -> R,
    ) -> R {
        if let Some(active) = self.active() {
            return running(&active);
        }
        match &mut *lock(&self.state) {
            HandleState::Ended(left) => ended(left),
            HandleState::Running(_) => unreachable!("an end stays"),
        }
    }

    /// If `progress` is an end, keeps the figures alone.
    fn note_end(&self, progress: DownloadProgress) -> DownloadProgress {
        let ended = progress.phase.is_end().then(|| self.active()).flatten();
        if let Some(active) = ended {
            let left = EndedDownload {
                progress: progress.clone(),
                ended_at: self.clock.now(),
                latency: active.cost.latency(),
                fingerprint: active.fingerprint.get().copied(),
                gained: active.take_gained(),
                suspects: active.take_suspects(),
            };
            let mut state = lock(&self.state);
            if let HandleState::Running(_) = &*state {
                let running = std::mem::replace(&mut *state, HandleState::Ended(Box::new(left)));
                // Dropped without the lock: it owns files.
                drop(state);
                drop(running);
            }
        }
        progress
    }

    /// The file that is downloaded.
    #[must_use]
    pub fn key(&self) -> &FileKey {
        &self.key
    }

    /// Adds peers that the tracker named; known ones stay as they are.
    pub fn add_peers(&self, peers: impl IntoIterator<Item = impl Into<NamedPeer>>) {
        self.read(|active| active.add_peers(peers), |_| ());
    }

    /// Uses a renewed ticket for new connections and sends it on open ones.
    pub fn renew_ticket(&self, ticket: Ticket) {
        self.read(|active| active.renew_ticket(ticket), |_| ());
    }

    /// Closes the connections; verified pieces stay and are served.
    pub fn pause(&self) {
        self.read(ActiveDownload::pause, |_| ());
    }

    /// Fetches again after [`Download::pause`].
    pub fn resume(&self) {
        self.read(ActiveDownload::resume, |_| ());
    }

    /// Calls all usable peers at once, without their pauses. Does nothing while the download is paused.
    pub fn retry(&self) {
        self.read(ActiveDownload::retry, |_| ());
    }

    /// Ends the download and removes the partial file.
    pub fn cancel(&self) {
        self.read(ActiveDownload::cancel, |_| ());
    }

    /// Ends the download, unless all pieces are held: the tracker no longer lets this node fetch the content. The partial
    /// file stays and is no longer served.
    pub fn withdraw(&self, cause: WithdrawalCause, message: String) {
        self.read(|active| active.withdraw(cause, message), |_| ());
    }

    /// A snapshot of phase and figures.
    #[must_use]
    pub fn progress(&self) -> DownloadProgress {
        let now = self.clock.now();
        let progress = self.read(ActiveDownload::progress, |left| left.progress(now));
        self.note_end(progress)
    }

    /// Microseconds from the request for a piece to its verification: one value for each piece that a peer sent.
    #[must_use]
    pub fn latency(&self) -> Histogram<u32> {
        self.read(|active| active.cost.latency(), |left| left.latency.clone())
    }

    /// The file's fingerprint under its final name, once it is durable: for
    /// [`Engine::share_file`](crate::Engine::share_file).
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.read(|active| active.fingerprint.get().copied(), |left| left.fingerprint)
    }

    /// Blocks until the progress has another version than `seen`, or `timeout` has passed. Returns at once after the end.
    #[must_use]
    pub fn wait(&self, seen: u64, timeout: Duration) -> DownloadProgress {
        let now = self.clock.now();
        let progress = self.read(|active| active.wait(seen, timeout), |left| left.progress(now));
        self.note_end(progress)
    }

    /// Runs of pieces verified since the last call: for the tracker's `update_pieces`.
    #[must_use]
    pub fn take_gained(&self) -> Vec<PieceRange> {
        self.read(ActiveDownload::take_gained, |left| std::mem::take(&mut left.gained))
    }

    /// Peers that were dropped for bad pieces since the last call: for the tracker's `report_peer`.
    #[must_use]
    pub fn take_suspects(&self) -> Vec<SuspectPeer> {
        self.read(ActiveDownload::take_suspects, |left| std::mem::take(&mut left.suspects))
    }
}
