//! One download as all threads see it: the transfer behind a lock, the file that it writes, and what is told of it.
//!
//! ```text
//!   connections ──┐                      ┌─► outboxes (requests)
//!   verifiers   ──┼─► with(transfer) ────┼─► calls (new connections, made by the download's own task)
//!   front ends  ──┘                      └─► version, condvar (whoever waits for news)
//!   storage: what was found, what the disk refuses
//! ```
//!
//! Invariants: what the transfer wants done is carried out before its lock is let go; nothing is written, announced or
//! served that was not verified first.

mod storage;
mod wishes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::EngineClock;
use super::cost::DownloadCost;
use super::flushing::FlushState;
use super::outbox::{ConnectionEnd, RequestOutbox};
use super::shares::Share;
use super::stall::BusyMarker;
use super::write_turn::WriteTurn;
use crate::proto::DisconnectReason;
use crate::proto::action::{PeerAddress, TransferAction};
use crate::proto::frame::Message;
use crate::proto::manifest::{FileKey, Manifest};
use crate::proto::picker::ConnectionId;
use crate::proto::rate::RateMeter;
use crate::proto::session::ProviderFile;
use crate::proto::ticket::Ticket;
use crate::proto::time::Moment;
use crate::proto::transfer::{ReceivedPiece, ResumedPieces, Transfer, TransferStatus};
use crate::proto::units::PieceRange;
use crate::stats::{DownloadFailure, DownloadPhase, DownloadProgress, SuspectPeer, WaitReason};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::resume::ResumeJournal;
use crate::storage::target::Target;

/// One download.
pub(crate) struct ActiveDownload {
    /// Which file.
    pub(crate) key: FileKey,
    /// What it is.
    pub(crate) manifest: Arc<Manifest>,
    /// Where it is written.
    pub(crate) target: Target,
    /// Which worker writes it now.
    pub(crate) write_turn: WriteTurn,
    /// Whether a piece is being written.
    pub(super) write_busy: BusyMarker,
    /// What is recorded of it.
    pub(crate) ledger: ResumeJournal,
    /// Replace what has the final name.
    pub(crate) overwrite: bool,
    /// Wakes the download's own task: a call to make, the end, a change of mind.
    pub(crate) wake: Notify,
    /// Where the time went.
    pub(crate) cost: DownloadCost,
    /// How far making it durable is.
    pub(super) flush_state: FlushState,
    /// Of the file under its final name.
    pub(crate) fingerprint: OnceLock<Fingerprint>,
    /// Nobody looks after it any more: its node has gone down.
    is_detached: AtomicBool,
    /// One pass over the file has proven it, where the chain could not.
    whole_proven: AtomicBool,
    clock: EngineClock,
    started: Moment,
    core: Mutex<DownloadCore>,
    progress_changed: Condvar,
}

/// The files of a download, open, and what is held in them.
pub(crate) struct OpenedFiles {
    /// Where it is written.
    pub(crate) target: Target,
    /// What is recorded of it.
    pub(crate) ledger: ResumeJournal,
    /// Held from the start.
    pub(crate) held: ResumedPieces,
    /// What an earlier attempt left is still being hashed: see [`ActiveDownload::begin`].
    pub(crate) is_checking: bool,
}

struct DownloadCore {
    transfer: Transfer,
    outboxes: BTreeMap<ConnectionId, Arc<RequestOutbox>>,
    connects: Vec<ConnectRequest>,
    ticket: Ticket,
    intent: UserIntent,
    storage_wait: Option<WaitReason>,
    /// It cannot succeed, and its own task has yet to end it.
    fatal: Option<DownloadFailure>,
    /// What an earlier attempt left is being hashed: nobody is called yet.
    is_checking: bool,
    phase: DownloadPhase,
    share: Option<Arc<Share>>,
    gained: Vec<PieceRange>,
    suspects: Vec<SuspectPeer>,
    meter: RateMeter,
    metered_bytes: u64,
    waited_for_peers_ms: u64,
    last_poll: Moment,
    sequential_passes: u32,
    resumed_bytes: u64,
    checked_bytes: u64,
    proven_after: Option<Duration>,
    durable_after: Option<Duration>,
    version: u64,
}

/// What the user wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UserIntent {
    Run,
    Pause,
    Cancel,
}

/// A connection to make.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    /// Its number.
    pub(crate) connection: ConnectionId,
    /// Whom to call.
    pub(crate) peer: PeerAddress,
    /// It has connections already.
    pub(crate) is_additional: bool,
    /// What to say there.
    pub(crate) outbox: Arc<RequestOutbox>,
}

/// What the download's own task has to do next.
#[derive(Debug)]
pub(crate) enum DriveStep {
    /// Make these calls, and look again soon.
    Connect(Vec<ConnectRequest>),
    /// Everything is held: prove the whole if need be, and finish.
    Finish {
        /// One pass over the file must decide.
        unproven: bool,
    },
    /// It was given up.
    Cancelled,
    /// It cannot succeed.
    Failed(DownloadFailure),
}

impl ActiveDownload {
    /// A download whose file is open and reserved.
    pub(crate) fn new(
        key: FileKey,
        manifest: Arc<Manifest>,
        opened: OpenedFiles,
        overwrite: bool,
        ticket: Ticket,
        seed: u64,
        clock: EngineClock,
    ) -> ActiveDownload {
        let now = clock.now();
        let OpenedFiles { target, ledger, held, is_checking: checking } = opened;
        let mut transfer = Transfer::resumed(Arc::clone(&manifest), &held, seed, now);
        if checking {
            transfer.hold(now);
        }
        let resumed_bytes = transfer.counts().verified_bytes;
        let flush_state = FlushState::new(manifest.geometry().length(), now);
        let inner = DownloadCore {
            transfer,
            outboxes: BTreeMap::new(),
            connects: Vec::new(),
            ticket,
            intent: UserIntent::Run,
            storage_wait: None,
            fatal: None,
            is_checking: checking,
            phase: if checking { DownloadPhase::Checking } else { DownloadPhase::Transferring },
            share: None,
            gained: Vec::new(),
            suspects: Vec::new(),
            meter: RateMeter::new(now),
            metered_bytes: resumed_bytes,
            waited_for_peers_ms: 0,
            last_poll: now,
            sequential_passes: 0,
            resumed_bytes,
            checked_bytes: 0,
            proven_after: None,
            durable_after: None,
            version: 1,
        };
        ActiveDownload {
            key,
            manifest,
            target,
            write_turn: WriteTurn::default(),
            write_busy: BusyMarker::default(),
            ledger,
            overwrite,
            wake: Notify::new(),
            cost: DownloadCost::default(),
            flush_state,
            fingerprint: OnceLock::new(),
            is_detached: AtomicBool::new(false),
            whole_proven: AtomicBool::new(false),
            clock,
            started: now,
            core: Mutex::new(inner),
            progress_changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, DownloadCore> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the transfer decide, and carries out what it wants.
    pub(crate) fn with_transfer<R>(&self, decide: impl FnOnce(&mut Transfer, Moment) -> R) -> R {
        let mut inner = self.lock();
        let result = decide(&mut inner.transfer, self.clock.now());
        if inner.apply_actions() {
            self.wake.notify_one();
        }
        result
    }

    /// A connection is open, by `used`: when a fresh ticket has come since, it is sent there.
    pub(crate) fn connection_opened(&self, connection: ConnectionId, holding: ProviderFile, used: &Ticket) {
        let mut inner = self.lock();
        inner.transfer.connection_opened(self.clock.now(), connection, holding);
        if inner.ticket != *used
            && let Some(outbox) = inner.outboxes.get(&connection)
        {
            outbox.push(Message::Renew { ticket: inner.ticket.clone() });
        }
        if inner.apply_actions() {
            self.wake.notify_one();
        }
    }

    /// A connection is over.
    pub(crate) fn connection_closed(&self, connection: ConnectionId, ending: &DisconnectReason) {
        self.lock().outboxes.remove(&connection);
        self.with_transfer(|transfer, now| transfer.connection_closed(now, connection, ending));
    }

    /// The ticket to open connections with.
    pub(crate) fn ticket(&self) -> Ticket {
        self.lock().ticket.clone()
    }

    /// Serves what is verified from here on.
    pub(crate) fn attach_share(&self, share: Arc<Share>) {
        let mut inner = self.lock();
        let held: Vec<_> = inner.transfer.held().iter().collect();
        share.add_pieces(&held);
        inner.share = Some(share);
    }

    /// The share of what is verified, if there is one.
    pub(crate) fn share(&self) -> Option<Arc<Share>> {
        self.lock().share.clone()
    }

    /// A verified piece is written at all its places.
    pub(crate) fn piece_written(&self, job: &ReceivedPiece) {
        let mut inner = self.lock();
        inner.transfer.piece_written(job);
        if let Some(share) = &inner.share {
            share.add_pieces(&job.copies);
        }
        let done = inner.transfer.held().is_full();
        if inner.apply_actions() || done {
            self.wake.notify_one();
        }
    }

    /// Looks after time, and tells what the download's own task has to do. `own_stall`: a worker of this node stands still.
    pub(crate) fn poll(&self, own_stall: bool) -> DriveStep {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.transfer.poll(now, own_stall);
        inner.apply_actions();
        inner.update_meters(now);
        if inner.intent == UserIntent::Cancel {
            return DriveStep::Cancelled;
        }
        if let Some(failure) = &inner.fatal {
            return DriveStep::Failed(failure.clone());
        }
        let standing = inner.transfer.status();
        let phase = inner.phase_for(standing);
        self.set_phase(&mut inner, phase);
        match standing {
            TransferStatus::Complete | TransferStatus::Unverified if inner.storage_wait.is_none() => {
                DriveStep::Finish { unproven: standing == TransferStatus::Unverified }
            }
            _ => DriveStep::Connect(std::mem::take(&mut inner.connects)),
        }
    }

    /// The download enters a phase that its own task decides on.
    pub(crate) fn enter_phase(&self, phase: DownloadPhase) {
        let mut inner = self.lock();
        let after = Some(self.clock.now().since(self.started));
        match &phase {
            DownloadPhase::Checking => inner.sequential_passes += 1,
            DownloadPhase::Syncing => inner.proven_after = inner.proven_after.or(after),
            DownloadPhase::Durable => inner.durable_after = after,
            _ => {}
        }
        if phase.is_end() {
            // Nobody is asked for anything any more.
            inner.transfer.hold(self.clock.now());
            inner.apply_actions();
        }
        self.set_phase(&mut inner, phase);
    }

    /// The moment, by the download's clock.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    fn set_phase(&self, inner: &mut DownloadCore, phase: DownloadPhase) {
        let moved = inner.transfer.counts().verified_bytes != inner.metered_bytes;
        inner.metered_bytes = inner.transfer.counts().verified_bytes;
        if inner.phase != phase || moved {
            inner.phase = phase;
            inner.version += 1;
            self.progress_changed.notify_all();
        }
    }

    /// Learns of peers.
    pub(crate) fn add_peers(&self, peers: &[PeerAddress]) {
        self.with_transfer(|transfer, now| transfer.add_peers(now, peers));
    }

    /// A fresh ticket.
    pub(crate) fn renew_ticket(&self, ticket: Ticket) {
        let mut inner = self.lock();
        inner.transfer.renew_ticket(self.clock.now(), &ticket);
        inner.ticket = ticket;
        if inner.apply_actions() {
            self.wake.notify_one();
        }
    }

    /// As it stands.
    pub(crate) fn progress(&self) -> DownloadProgress {
        self.progress_of(&mut self.lock())
    }

    /// Blocks until the version differs from `seen`, or the time is over.
    pub(crate) fn wait(&self, seen: u64, timeout: Duration) -> DownloadProgress {
        let unchanged = |inner: &mut DownloadCore| inner.version == seen;
        let waited = self.progress_changed.wait_timeout_while(self.lock(), timeout, unchanged);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.progress_of(&mut inner)
    }

    fn progress_of(&self, inner: &mut DownloadCore) -> DownloadProgress {
        let now = self.clock.now();
        let counts = inner.transfer.counts();
        DownloadProgress {
            version: inner.version,
            phase: self.current_phase(inner, now),
            total_bytes: inner.transfer.geometry().length(),
            verified_bytes: counts.verified_bytes,
            received_bytes: counts.received_bytes,
            duplicate_bytes: counts.duplicate_bytes,
            verified_bytes_per_s: inner.meter.rate(now).unwrap_or(0),
            peers: inner.transfer.open_peers(),
            resumed_bytes: inner.resumed_bytes,
            checked_bytes: inner.checked_bytes,
            sequential_passes: inner.sequential_passes,
            wire_bytes: self.cost.wire_bytes.load(Ordering::Relaxed),
            hashing_time: Duration::from_micros(self.cost.hashing_us.load(Ordering::Relaxed)),
            writing_time: Duration::from_micros(self.cost.writing_us.load(Ordering::Relaxed)),
            age: now.since(self.started),
            first_verified_after: self.cost.first_verified().map(|first| first.since(self.started)),
            limited_by: self.cost.bottleneck(
                inner.proven_after.unwrap_or_else(|| now.since(self.started)),
                inner.waited_for_peers_ms,
            ),
            proven_after: inner.proven_after,
            durable_after: inner.durable_after,
            path: self.target.path(),
        }
    }

    /// Runs verified since the last call.
    pub(crate) fn take_gained(&self) -> Vec<PieceRange> {
        let mut inner = self.lock();
        inner.collect_reports();
        std::mem::take(&mut inner.gained)
    }

    /// Peers dropped for bad pieces since the last call.
    pub(crate) fn take_suspects(&self) -> Vec<SuspectPeer> {
        let mut inner = self.lock();
        inner.collect_reports();
        std::mem::take(&mut inner.suspects)
    }

    /// The partial file, for people.
    pub(crate) fn partial_path(&self) -> PathBuf {
        self.target.partial_path()
    }
}

impl DownloadCore {
    /// Whether nothing of this node's own stands in the way of fetching.
    fn can_fetch(&self) -> bool {
        self.intent == UserIntent::Run
            && self.storage_wait.is_none()
            && self.fatal.is_none()
            && !self.is_checking
    }

    /// Hands on what the transfer wants done; whether there are calls to make.
    fn apply_actions(&mut self) -> bool {
        for action in self.transfer.take_actions() {
            match action {
                TransferAction::Connect { connection, peer, is_additional: further } => {
                    let outbox = Arc::new(RequestOutbox::default());
                    self.outboxes.insert(connection, Arc::clone(&outbox));
                    self.connects.push(ConnectRequest { connection, peer, is_additional: further, outbox });
                }
                TransferAction::Send { connection, message } => {
                    if let Some(outbox) = self.outboxes.get(&connection) {
                        outbox.push(message);
                    }
                }
                TransferAction::Close { connection, code } => {
                    if let Some(outbox) = self.outboxes.remove(&connection) {
                        outbox.end(ConnectionEnd::Bye(code));
                    }
                }
            }
        }
        !self.connects.is_empty()
    }

    /// Notes what others will ask for.
    fn collect_reports(&mut self) {
        self.gained.extend(self.transfer.take_gained());
        let suspect = |peer: PeerAddress| SuspectPeer {
            address: peer.address,
            reason: "sent pieces whose SHA-1 is not the file's".to_owned(),
        };
        self.suspects.extend(self.transfer.take_dropped().into_iter().map(suspect));
    }

    fn update_meters(&mut self, now: Moment) {
        let verified = self.transfer.counts().verified_bytes;
        self.meter.add(now, verified.saturating_sub(self.metered_bytes));
        if matches!(&self.phase, DownloadPhase::Waiting(wait) if wait.is_for_peers()) {
            self.waited_for_peers_ms += now.ms_since(self.last_poll);
        }
        self.last_poll = now;
    }

    fn phase_for(&self, standing: TransferStatus) -> DownloadPhase {
        match (self.intent, &self.storage_wait, standing) {
            (_, None, TransferStatus::Complete | TransferStatus::Unverified) => self.phase.clone(),
            (UserIntent::Pause, ..) => DownloadPhase::Paused,
            (_, Some(wait), _) => DownloadPhase::Waiting(wait.clone()),
            (_, None, _) if self.is_checking => DownloadPhase::Checking,
            (_, None, TransferStatus::Active) => DownloadPhase::Transferring,
            (_, None, TransferStatus::TicketRefused) => DownloadPhase::Waiting(WaitReason::Ticket),
            (_, None, TransferStatus::NoPeers { missing, after_bad_pieces: true, .. }) => {
                DownloadPhase::Waiting(WaitReason::BadPieces { missing: missing.0 })
            }
            (_, None, TransferStatus::NoPeers { missing, .. }) if self.transfer.has_changed_source() => {
                DownloadPhase::Waiting(WaitReason::SourceChanged { missing: missing.0 })
            }
            (_, None, TransferStatus::NoPeers { missing, first, .. }) => {
                DownloadPhase::Waiting(WaitReason::NoPeers { missing: missing.0, first_missing: first.0 })
            }
        }
    }
}
