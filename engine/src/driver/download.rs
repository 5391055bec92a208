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

use super::clock::Clock;
use super::flushing::Flushing;
use super::outbox::{End, Outbox};
use super::pulse::Pulse;
use super::shares::Share;
use super::spent::Spent;
use super::turn::Turn;
use crate::proto::Ending;
use crate::proto::action::{Action, PeerAddress};
use crate::proto::frame::Message;
use crate::proto::manifest::{FileKey, Manifest};
use crate::proto::picker::ConnectionId;
use crate::proto::rate::RateMeter;
use crate::proto::session::Holding;
use crate::proto::ticket::Ticket;
use crate::proto::time::Moment;
use crate::proto::transfer::{Held, Job, Standing, Transfer};
use crate::proto::units::PieceRange;
use crate::stats::{Failure, Phase, Progress, Suspect, Wait};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::resume::Ledger;
use crate::storage::target::Target;

/// One download.
pub(crate) struct DownloadState {
    /// Which file.
    pub(crate) key: FileKey,
    /// What it is.
    pub(crate) manifest: Arc<Manifest>,
    /// Where it is written.
    pub(crate) target: Target,
    /// Which worker writes it now.
    pub(crate) turn: Turn,
    /// Whether a piece is being written.
    pub(super) writing: Pulse,
    /// What is recorded of it.
    pub(crate) ledger: Ledger,
    /// Replace what has the final name.
    pub(crate) overwrite: bool,
    /// Wakes the download's own task: a call to make, the end, a change of mind.
    pub(crate) wake: Notify,
    /// Where the time went.
    pub(crate) spent: Spent,
    /// How far making it durable is.
    pub(super) flushing: Flushing,
    /// Of the file under its final name.
    pub(crate) fingerprint: OnceLock<Fingerprint>,
    /// Nobody looks after it any more: its node has gone down.
    left_alone: AtomicBool,
    /// One pass over the file has proven it, where the chain could not.
    whole_proven: AtomicBool,
    clock: Clock,
    started: Moment,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// The files of a download, open, and what is held in them.
pub(crate) struct Opened {
    /// Where it is written.
    pub(crate) target: Target,
    /// What is recorded of it.
    pub(crate) ledger: Ledger,
    /// Held from the start.
    pub(crate) held: Held,
    /// What an earlier attempt left is still being hashed: see [`DownloadState::begin`].
    pub(crate) checking: bool,
}

struct Inner {
    transfer: Transfer,
    outboxes: BTreeMap<ConnectionId, Arc<Outbox>>,
    calls: Vec<Call>,
    ticket: Ticket,
    wish: Wish,
    storage: Option<Wait>,
    /// It cannot succeed, and its own task has yet to end it.
    doom: Option<Failure>,
    /// What an earlier attempt left is being hashed: nobody is called yet.
    checking: bool,
    phase: Phase,
    share: Option<Arc<Share>>,
    gained: Vec<PieceRange>,
    suspects: Vec<Suspect>,
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
enum Wish {
    Run,
    Pause,
    Cancel,
}

/// A connection to make.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) connection: ConnectionId,
    /// Whom to call.
    pub(crate) peer: PeerAddress,
    /// It has connections already.
    pub(crate) further: bool,
    /// What to say there.
    pub(crate) outbox: Arc<Outbox>,
}

/// What the download's own task has to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Make these calls, and look again soon.
    Calls(Vec<Call>),
    /// Everything is held: prove the whole if need be, and finish.
    Finish {
        /// One pass over the file must decide.
        unproven: bool,
    },
    /// It was given up.
    Cancelled,
    /// It cannot succeed.
    Failed(Failure),
}

impl DownloadState {
    /// A download whose file is open and reserved.
    pub(crate) fn new(
        key: FileKey,
        manifest: Arc<Manifest>,
        opened: Opened,
        overwrite: bool,
        ticket: Ticket,
        seed: u64,
        clock: Clock,
    ) -> DownloadState {
        let now = clock.now();
        let Opened { target, ledger, held, checking } = opened;
        let mut transfer = Transfer::resumed(Arc::clone(&manifest), &held, seed, now);
        if checking {
            transfer.hold(now);
        }
        let resumed_bytes = transfer.counts().verified_bytes;
        let flushing = Flushing::new(manifest.geometry().length(), now);
        let inner = Inner {
            transfer,
            outboxes: BTreeMap::new(),
            calls: Vec::new(),
            ticket,
            wish: Wish::Run,
            storage: None,
            doom: None,
            checking,
            phase: if checking { Phase::Checking } else { Phase::Transferring },
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
        DownloadState {
            key,
            manifest,
            target,
            turn: Turn::default(),
            writing: Pulse::default(),
            ledger,
            overwrite,
            wake: Notify::new(),
            spent: Spent::default(),
            flushing,
            fingerprint: OnceLock::new(),
            left_alone: AtomicBool::new(false),
            whole_proven: AtomicBool::new(false),
            clock,
            started: now,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the transfer decide, and carries out what it wants.
    pub(crate) fn with<R>(&self, decide: impl FnOnce(&mut Transfer, Moment) -> R) -> R {
        let mut inner = self.lock();
        let result = decide(&mut inner.transfer, self.clock.now());
        if inner.carry_out() {
            self.wake.notify_one();
        }
        result
    }

    /// A connection is open, by `used`: when a fresh ticket has come since, it is sent there.
    pub(crate) fn opened(&self, connection: ConnectionId, holding: Holding, used: &Ticket) {
        let mut inner = self.lock();
        inner.transfer.opened(self.clock.now(), connection, holding);
        if inner.ticket != *used
            && let Some(outbox) = inner.outboxes.get(&connection)
        {
            outbox.push(Message::Renew { ticket: inner.ticket.clone() });
        }
        if inner.carry_out() {
            self.wake.notify_one();
        }
    }

    /// A connection is over.
    pub(crate) fn closed(&self, connection: ConnectionId, ending: &Ending) {
        self.lock().outboxes.remove(&connection);
        self.with(|transfer, now| transfer.closed(now, connection, ending));
    }

    /// The ticket to open connections with.
    pub(crate) fn ticket(&self) -> Ticket {
        self.lock().ticket.clone()
    }

    /// Serves what is verified from here on.
    pub(crate) fn serve_by(&self, share: Arc<Share>) {
        let mut inner = self.lock();
        let held: Vec<_> = inner.transfer.held().iter().collect();
        share.gain(&held);
        inner.share = Some(share);
    }

    /// The share of what is verified, if there is one.
    pub(crate) fn share(&self) -> Option<Arc<Share>> {
        self.lock().share.clone()
    }

    /// A verified piece is written at all its places.
    pub(crate) fn written(&self, job: &Job) {
        let mut inner = self.lock();
        inner.transfer.written(job);
        if let Some(share) = &inner.share {
            share.gain(&job.copies);
        }
        let done = inner.transfer.held().is_full();
        if inner.carry_out() || done {
            self.wake.notify_one();
        }
    }

    /// Looks after time, and tells what the download's own task has to do. `own_stall`: a worker of this node stands still.
    pub(crate) fn poll(&self, own_stall: bool) -> Next {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.transfer.poll(now, own_stall);
        inner.carry_out();
        inner.measure(now);
        if inner.wish == Wish::Cancel {
            return Next::Cancelled;
        }
        if let Some(failure) = &inner.doom {
            return Next::Failed(failure.clone());
        }
        let standing = inner.transfer.standing();
        let phase = inner.phase_of(standing);
        self.set_phase(&mut inner, phase);
        match standing {
            Standing::Proven | Standing::Unproven if inner.storage.is_none() => {
                Next::Finish { unproven: standing == Standing::Unproven }
            }
            _ => Next::Calls(std::mem::take(&mut inner.calls)),
        }
    }

    /// The download enters a phase that its own task decides on.
    pub(crate) fn enter(&self, phase: Phase) {
        let mut inner = self.lock();
        let after = Some(self.clock.now().since(self.started));
        match &phase {
            Phase::Checking => inner.sequential_passes += 1,
            Phase::Syncing => inner.proven_after = inner.proven_after.or(after),
            Phase::Durable => inner.durable_after = after,
            _ => {}
        }
        if phase.is_end() {
            // Nobody is asked for anything any more.
            inner.transfer.hold(self.clock.now());
            inner.carry_out();
        }
        self.set_phase(&mut inner, phase);
    }

    /// The moment, by the download's clock.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    fn set_phase(&self, inner: &mut Inner, phase: Phase) {
        let moved = inner.transfer.counts().verified_bytes != inner.metered_bytes;
        inner.metered_bytes = inner.transfer.counts().verified_bytes;
        if inner.phase != phase || moved {
            inner.phase = phase;
            inner.version += 1;
            self.changed.notify_all();
        }
    }

    /// Learns of peers.
    pub(crate) fn offer(&self, peers: &[PeerAddress]) {
        self.with(|transfer, now| transfer.offer(now, peers));
    }

    /// A fresh ticket.
    pub(crate) fn renew(&self, ticket: Ticket) {
        let mut inner = self.lock();
        inner.transfer.renewed(self.clock.now(), &ticket);
        inner.ticket = ticket;
        if inner.carry_out() {
            self.wake.notify_one();
        }
    }

    /// As it stands.
    pub(crate) fn progress(&self) -> Progress {
        self.progress_of(&mut self.lock())
    }

    /// Blocks until the version differs from `seen`, or the time is over.
    pub(crate) fn wait(&self, seen: u64, timeout: Duration) -> Progress {
        let unchanged = |inner: &mut Inner| inner.version == seen;
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, unchanged);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.progress_of(&mut inner)
    }

    fn progress_of(&self, inner: &mut Inner) -> Progress {
        let now = self.clock.now();
        let counts = inner.transfer.counts();
        Progress {
            version: inner.version,
            phase: self.phase_now(inner, now),
            total_bytes: inner.transfer.geometry().length(),
            verified_bytes: counts.verified_bytes,
            received_bytes: counts.received_bytes,
            duplicate_bytes: counts.duplicate_bytes,
            rate: inner.meter.rate(now).unwrap_or(0),
            peers: inner.transfer.open_peers(),
            resumed_bytes: inner.resumed_bytes,
            checked_bytes: inner.checked_bytes,
            sequential_passes: inner.sequential_passes,
            wire_bytes: self.spent.wire_bytes.load(Ordering::Relaxed),
            spent_hashing: Duration::from_micros(self.spent.hashing.load(Ordering::Relaxed)),
            spent_writing: Duration::from_micros(self.spent.writing.load(Ordering::Relaxed)),
            age: now.since(self.started),
            first_verified_after: self.spent.first_verified().map(|first| first.since(self.started)),
            limited_by: self.spent.limit(
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
        inner.collect();
        std::mem::take(&mut inner.gained)
    }

    /// Peers dropped for bad pieces since the last call.
    pub(crate) fn take_suspects(&self) -> Vec<Suspect> {
        let mut inner = self.lock();
        inner.collect();
        std::mem::take(&mut inner.suspects)
    }

    /// The partial file, for people.
    pub(crate) fn partial_path(&self) -> PathBuf {
        self.target.partial_path()
    }
}

impl Inner {
    /// Whether nothing of this node's own stands in the way of fetching.
    fn may_run(&self) -> bool {
        self.wish == Wish::Run && self.storage.is_none() && self.doom.is_none() && !self.checking
    }

    /// Hands on what the transfer wants done; whether there are calls to make.
    fn carry_out(&mut self) -> bool {
        for action in self.transfer.take_actions() {
            match action {
                Action::Connect { connection, peer, further } => {
                    let outbox = Arc::new(Outbox::default());
                    self.outboxes.insert(connection, Arc::clone(&outbox));
                    self.calls.push(Call { connection, peer, further, outbox });
                }
                Action::Send { connection, message } => {
                    if let Some(outbox) = self.outboxes.get(&connection) {
                        outbox.push(message);
                    }
                }
                Action::Close { connection, code } => {
                    if let Some(outbox) = self.outboxes.remove(&connection) {
                        outbox.end(End::Bye(code));
                    }
                }
            }
        }
        !self.calls.is_empty()
    }

    /// Notes what others will ask for.
    fn collect(&mut self) {
        self.gained.extend(self.transfer.take_gained());
        let suspect = |peer: PeerAddress| Suspect {
            address: peer.address,
            reason: "sent pieces whose SHA-1 is not the file's".to_owned(),
        };
        self.suspects.extend(self.transfer.take_dropped().into_iter().map(suspect));
    }

    fn measure(&mut self, now: Moment) {
        let verified = self.transfer.counts().verified_bytes;
        self.meter.add(now, verified.saturating_sub(self.metered_bytes));
        if matches!(&self.phase, Phase::Waiting(wait) if wait.is_for_peers()) {
            self.waited_for_peers_ms += now.ms_since(self.last_poll);
        }
        self.last_poll = now;
    }

    fn phase_of(&self, standing: Standing) -> Phase {
        match (self.wish, &self.storage, standing) {
            (_, None, Standing::Proven | Standing::Unproven) => self.phase.clone(),
            (Wish::Pause, ..) => Phase::Paused,
            (_, Some(wait), _) => Phase::Waiting(wait.clone()),
            (_, None, _) if self.checking => Phase::Checking,
            (_, None, Standing::Moving) => Phase::Transferring,
            (_, None, Standing::TicketRefused) => Phase::Waiting(Wait::Ticket),
            (_, None, Standing::NoPeers { missing, after_bad_pieces: true, .. }) => {
                Phase::Waiting(Wait::BadPieces { missing: missing.0 })
            }
            (_, None, Standing::NoPeers { missing, .. }) if self.transfer.has_lost_a_source() => {
                Phase::Waiting(Wait::SourceChanged { missing: missing.0 })
            }
            (_, None, Standing::NoPeers { missing, first, .. }) => {
                Phase::Waiting(Wait::NoPeers { missing: missing.0, first_missing: first.0 })
            }
        }
    }
}
