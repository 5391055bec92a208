//! One download as all threads share it: its files, its costs, and its state behind a lock.
//!
//! ```text
//!   connections ──┐                      ┌─► RequestOutbox (messages), ConnectRequest (new connections)
//!   verifiers   ──┼─► ActiveDownload ────┤
//!   front ends  ──┘   └ DownloadCore     └─► wake (its own task), progress_changed (callers of `wait`)
//! ```
//!
//! Invariant: the lock is held for microseconds; nothing waits, hashes or touches the disk under it.

mod connections;
mod core;
mod cost;
mod files;
mod progress;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use self::core::DownloadCore;
use super::clock::EngineClock;
use super::limits::SLOW_WRITE_MS;
use super::share_table::ShareTable;
use super::shares::Share;
use super::stall::BusyMarker;
use crate::lock::lock;
use crate::proto::DisconnectReason;
use crate::proto::action::NamedPeer;
use crate::proto::manifest::{FileKey, Manifest};
use crate::proto::picker::ConnectionId;
use crate::proto::session::ProviderFile;
use crate::proto::ticket::Ticket;
use crate::proto::time::Moment;
use crate::proto::transfer::{ReceivedPiece, Transfer};
use crate::proto::units::{PieceIndex, PieceRange};
use crate::stats::{
    DownloadFailure, DownloadPhase, DownloadProgress, SuspectPeer, WaitReason, WithdrawalCause,
};
use crate::storage::error::{StorageError, StorageErrorKind};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::resume::ResumeJournal;
use crate::storage::target::Target;

pub(crate) use self::core::DriveStep;
pub(crate) use connections::{ConnectRequest, ConnectionEnd, RequestOutbox};
pub(crate) use cost::DownloadCost;
pub(crate) use files::{FlushState, OpenedFiles, WriteTurn, clear_zero_pieces, open_files};

/// One download.
pub(crate) struct ActiveDownload {
    /// The tracker's name of the file.
    pub(crate) key: FileKey,
    /// Digests and layout of the file.
    pub(crate) manifest: Arc<Manifest>,
    /// The partial file.
    pub(crate) target: Target,
    /// Which pieces are written, and which of them are durable.
    pub(crate) journal: ResumeJournal,
    /// Replace an existing file under the final name.
    pub(crate) overwrite: bool,
    /// Which worker writes the partial file now.
    pub(crate) write_turn: WriteTurn,
    /// Busy while a piece is being written.
    pub(super) write_busy: BusyMarker,
    /// Flush requests, and pieces that may leave the page cache.
    pub(super) flush_state: FlushState,
    /// A thread examines the partial file.
    pub(super) is_examined: AtomicBool,
    /// Time and bytes spent so far.
    pub(crate) cost: DownloadCost,
    /// Wakes the download's own task.
    pub(crate) wake: Notify,
    /// The finished file's fingerprint under its final name.
    pub(crate) fingerprint: OnceLock<Fingerprint>,
    /// The download's own task has ended, or its node is stopping.
    is_detached: AtomicBool,
    /// The file has its stated digest, found in one pass over the file. Not needed when the chain proves the file.
    is_whole_proven: AtomicBool,
    clock: EngineClock,
    core: Mutex<DownloadCore>,
    progress_changed: Condvar,
}

impl ActiveDownload {
    /// A download whose files are open. `seed` randomizes which pieces are fetched first.
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
        let OpenedFiles { target, journal, held, is_checking } = opened;
        let transfer = Transfer::resumed(Arc::clone(&manifest), &held, seed, now);
        ActiveDownload {
            flush_state: FlushState::new(manifest.geometry().length(), now),
            key,
            manifest,
            target,
            journal,
            overwrite,
            write_turn: WriteTurn::default(),
            write_busy: BusyMarker::default(),
            is_examined: AtomicBool::new(false),
            cost: DownloadCost::default(),
            wake: Notify::new(),
            fingerprint: OnceLock::new(),
            is_detached: AtomicBool::new(false),
            is_whole_proven: AtomicBool::new(false),
            clock,
            core: Mutex::new(DownloadCore::new(transfer, ticket, is_checking, now)),
            progress_changed: Condvar::new(),
        }
    }

    /// Changes the state under its lock. Wakes the download's own task when there are connections to make.
    fn update<R>(&self, change: impl FnOnce(&mut DownloadCore, Moment) -> R) -> R {
        let mut core = lock(&self.core);
        let result = change(&mut core, self.clock.now());
        if core.has_connects() {
            self.wake.notify_one();
        }
        result
    }

    /// As [`ActiveDownload::update`], and wakes the download's own task in any case.
    fn update_and_wake(&self, change: impl FnOnce(&mut DownloadCore, Moment)) {
        change(&mut lock(&self.core), self.clock.now());
        self.wake.notify_one();
    }

    /// As [`ActiveDownload::update`], for changes of the phase: wakes callers of [`ActiveDownload::wait`] instead.
    fn update_phase<R>(&self, change: impl FnOnce(&mut DownloadCore, Moment) -> R) -> R {
        let mut core = lock(&self.core);
        let version = core.version;
        let result = change(&mut core, self.clock.now());
        if core.version != version {
            self.progress_changed.notify_all();
        }
        result
    }

    /// Lets the transfer decide, and carries out its actions.
    pub(crate) fn with_transfer<R>(&self, decide: impl FnOnce(&mut Transfer, Moment) -> R) -> R {
        self.update(|core, now| core.with_transfer(|transfer| decide(transfer, now)))
    }

    /// The moment, by the download's clock.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A connection was opened with the ticket `used`. If the ticket has been renewed since, sends the new one.
    pub(crate) fn connection_opened(&self, connection: ConnectionId, file: ProviderFile, used: &Ticket) {
        self.update(|core, now| core.connection_opened(now, connection, file, used));
    }

    /// A connection has ended.
    pub(crate) fn connection_closed(&self, connection: ConnectionId, reason: &DisconnectReason) {
        self.update(|core, now| core.connection_closed(now, connection, reason));
    }

    /// The ticket to open connections with.
    pub(crate) fn ticket(&self) -> Ticket {
        lock(&self.core).ticket.clone()
    }

    /// Uses a renewed ticket: sent on open connections, and used for new ones.
    pub(crate) fn renew_ticket(&self, ticket: Ticket) {
        self.update(|core, now| core.renew_ticket(now, ticket));
    }

    /// Adds peers that the tracker named; known ones stay as they are.
    pub(crate) fn add_peers(&self, peers: impl IntoIterator<Item = impl Into<NamedPeer>>) {
        self.with_transfer(|transfer, now| transfer.add_peers(now, peers));
    }

    /// Serves what is held, and each piece that is verified from here on.
    pub(crate) fn attach_share(&self, share: Arc<Share>) {
        self.update(|core, _| core.attach_share(share));
    }

    /// The share of what is held, if there is one.
    pub(crate) fn share(&self) -> Option<Arc<Share>> {
        lock(&self.core).share.clone()
    }

    /// A verified piece is written at all its places.
    pub(crate) fn piece_written(&self, received: &ReceivedPiece) {
        if self.update(|core, _| core.piece_written(received)) {
            self.wake.notify_one();
        }
    }

    /// A received piece was not verified or not written: it is fetched again.
    pub(crate) fn piece_dropped(&self, received: &ReceivedPiece) {
        self.with_transfer(|transfer, _| transfer.piece_dropped(received));
    }

    /// Adds zero pieces, each with whether its link matches. Returns `false` when work for this download may stop.
    pub(crate) fn zero_pieces_proven(&self, pieces: &[(PieceIndex, bool)]) -> bool {
        if self.update(|core, _| core.zero_pieces_proven(pieces)) {
            self.wake.notify_one();
        }
        !self.is_over()
    }

    /// Adds pieces found by hashing `checked_bytes` of an earlier attempt, or copies of held pieces; then
    /// `checked_bytes` is 0. Each comes with whether its link matches.
    pub(crate) fn pieces_found(&self, pieces: &[(PieceIndex, bool)], checked_bytes: u64) {
        self.update_and_wake(|core, now| core.pieces_found(now, pieces, checked_bytes));
    }

    /// A check of `total_bytes` on the disk begins.
    pub(crate) fn begin_check(&self, total_bytes: u64) {
        self.update_phase(|core, now| core.begin_check(now, total_bytes));
    }

    /// The pass over the whole file has hashed more bytes.
    pub(crate) fn add_checked(&self, bytes: u64) {
        self.update_phase(|core, now| core.add_checked(now, bytes));
    }

    /// Whether a check that runs may stop: it is of no use any more.
    pub(crate) fn is_check_over(&self) -> bool {
        self.is_over() || !lock(&self.core).is_check_wanted()
    }

    /// The pieces of zeros are in their places again.
    pub(crate) fn zeros_restored(&self) {
        self.update(|core, _| core.zeros_restored());
    }

    /// Ends a check of the file. Missing pieces are fetched from now on.
    pub(crate) fn finish_check(&self) {
        self.update_and_wake(DownloadCore::finish_check);
    }

    /// Marks pieces that the disk lost as missing. Returns `false` and changes nothing unless the transfer is on hold and
    /// no piece is being verified or written.
    pub(crate) fn discard_pieces(&self, pieces: &[PieceIndex]) -> bool {
        self.update(|core, _| core.discard_pieces(pieces))
    }

    /// Whether verdicts on pieces count: ask after hashing and before acting on the verdict.
    ///
    /// When a list of hashes of the manifest has become unreadable, no peer is to blame for pieces that do not match. The
    /// download then fails; what it has stays for the next attempt, which fetches the hashes again.
    pub(crate) fn can_verify(&self) -> bool {
        let Some(place) = self.manifest.unreadable_at() else { return true };
        self.fail(DownloadFailure::Io(StorageError::hashes_lost(place).to_string()));
        false
    }

    /// The file cannot be written or kept. If another program has changed it, it is hashed again; if its name is lost, the
    /// download fails; otherwise fetching stops until [`ActiveDownload::storage_recovered`].
    pub(crate) fn storage_failed(&self, error: &StorageError) {
        self.update_and_wake(|core, now| match &error.kind {
            StorageErrorKind::ChangedOutside => core.file_changed(now),
            kind if kind.is_lost_name() => {
                let (message, advice) = (error.description(), kind.advice());
                core.fail(now, DownloadFailure::FileLost { message, advice });
            }
            _ => core.storage_failed(now, storage_wait_reason(error)),
        });
    }

    /// Ends the download; its own task has yet to do it.
    pub(crate) fn fail(&self, failure: DownloadFailure) {
        self.update_and_wake(|core, now| core.fail(now, failure));
    }

    /// The disk can be written again.
    pub(crate) fn storage_recovered(&self) {
        self.update(DownloadCore::storage_recovered);
    }

    /// Why the disk cannot be written, if so.
    pub(crate) fn storage_wait(&self) -> Option<WaitReason> {
        lock(&self.core).storage_wait.clone()
    }

    /// Closes the connections; what is held is still served.
    pub(crate) fn pause(&self) {
        self.update_and_wake(DownloadCore::pause);
    }

    /// Fetches again after a pause.
    pub(crate) fn resume(&self) {
        self.update_and_wake(DownloadCore::resume);
    }

    /// Calls all usable peers at once.
    pub(crate) fn retry(&self) {
        self.update_phase(DownloadCore::retry);
        self.wake.notify_one();
    }

    /// Ends the download; its own task removes the partial file.
    pub(crate) fn cancel(&self) {
        self.update_and_wake(|core, _| core.cancel());
    }

    /// Ends the download unless all pieces are held; its own task stops serving the partial file.
    pub(crate) fn withdraw(&self, cause: WithdrawalCause, message: String) {
        self.update_and_wake(|core, now| core.withdraw(now, cause, message));
    }

    /// Lets the transfer act on time, and says what the download's own task has to do. `local_stall`: a worker of this
    /// node stands still.
    pub(crate) fn poll(&self, local_stall: bool) -> DriveStep {
        self.update_phase(|core, now| core.poll(now, local_stall))
    }

    /// Enters a phase of the last steps (whole-file check, sync) or of the end.
    pub(crate) fn enter_phase(&self, phase: DownloadPhase) {
        if phase.is_end() {
            // Before callers of `wait` learn of the end, since they may start the download again.
            self.target.release();
        }
        self.update_phase(|core, now| core.enter_phase(now, phase));
    }

    /// Whether the download has ended.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.core).phase.is_end()
    }

    /// Whether work for this download may stop: it has ended or is about to, or its own task is gone.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.core).is_ending() || self.is_detached.load(Ordering::Relaxed)
    }

    /// Tells threads that work for this download to stop: its own task has ended.
    pub(crate) fn detach(&self) {
        self.is_detached.store(true, Ordering::Relaxed);
    }

    /// Records that one pass over the file found the stated digest.
    pub(crate) fn set_whole_proven(&self) {
        self.is_whole_proven.store(true, Ordering::Relaxed);
    }

    /// Whether [`ActiveDownload::set_whole_proven`] was called.
    pub(crate) fn is_whole_proven(&self) -> bool {
        self.is_whole_proven.load(Ordering::Relaxed)
    }

    /// Undoes a download that could not begin: its share ends, and files that it created are removed.
    pub(crate) fn abandon(&self, shares: &ShareTable) {
        self.detach();
        if let Some(share) = self.share() {
            shares.remove_if_current(&share);
        }
        if self.target.is_new()
            && let Err(error) = self.remove_files()
        {
            tracing::warn!(%error, "cannot remove the partial file of a download that could not start");
        }
    }

    /// Removes the partial file and its record.
    pub(crate) fn remove_files(&self) -> Result<(), StorageError> {
        self.journal.remove()?;
        self.target.discard()
    }

    /// A snapshot of all figures.
    pub(crate) fn progress(&self) -> DownloadProgress {
        self.progress_of(&mut lock(&self.core))
    }

    /// Blocks until the version differs from `seen`, or `timeout` has passed.
    pub(crate) fn wait(&self, seen: u64, timeout: Duration) -> DownloadProgress {
        let is_unchanged = |core: &mut DownloadCore| core.version == seen;
        let waited = self.progress_changed.wait_timeout_while(lock(&self.core), timeout, is_unchanged);
        self.progress_of(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// A snapshot of all figures. Adds the wait reason for a slow write, because the download's own task cannot report it
    /// while that write blocks its worker.
    fn progress_of(&self, core: &mut DownloadCore) -> DownloadProgress {
        let now = self.clock.now();
        let mut progress = core.progress(now, &self.cost, self.target.path());
        if let Some(seconds) = slow_write_seconds(&progress.phase, self.write_busy.busy_ms(now)) {
            let path = self.target.partial_path();
            let message = format!("{}: the disk has not taken a piece for {seconds} s", path.display());
            progress.phase = DownloadPhase::Waiting(WaitReason::Io(message));
        }
        progress
    }

    /// Runs of pieces verified since the last call.
    pub(crate) fn take_gained(&self) -> Vec<PieceRange> {
        lock(&self.core).take_gained()
    }

    /// Peers dropped for bad pieces since the last call.
    pub(crate) fn take_suspects(&self) -> Vec<SuspectPeer> {
        lock(&self.core).take_suspects()
    }

    /// The partial file, for messages.
    pub(crate) fn partial_path(&self) -> PathBuf {
        self.target.partial_path()
    }
}

/// How long one write has taken, when that is what holds the download up.
fn slow_write_seconds(phase: &DownloadPhase, busy_ms: u64) -> Option<u64> {
    (*phase == DownloadPhase::Transferring && busy_ms >= SLOW_WRITE_MS).then_some(busy_ms / 1_000)
}

fn storage_wait_reason(error: &StorageError) -> WaitReason {
    let directory = || error.path.parent().map(PathBuf::from).unwrap_or_default();
    match &error.kind {
        StorageErrorKind::NoSpace { needed, free } => {
            WaitReason::DiskFull { needed: *needed, free: *free, directory: directory() }
        }
        StorageErrorKind::QuotaFull { needed } => {
            WaitReason::QuotaFull { needed: *needed, directory: directory() }
        }
        _ => WaitReason::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_write_is_reported_while_transferring() {
        let transferring = DownloadPhase::Transferring;
        assert_eq!(slow_write_seconds(&transferring, SLOW_WRITE_MS - 1), None);
        assert_eq!(slow_write_seconds(&transferring, SLOW_WRITE_MS), Some(SLOW_WRITE_MS / 1_000));
        let syncing = DownloadPhase::Syncing;
        assert_eq!(slow_write_seconds(&syncing, 2 * SLOW_WRITE_MS), None, "`Syncing` names the disk already");
    }
}
