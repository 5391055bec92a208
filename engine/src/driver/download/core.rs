//! The state of one download that its lock protects: the transfer, its connections, and what keeps it from fetching.
//!
//! Time comes in as an argument; no method waits or reads a file. Invariants: the transfer's actions are carried out
//! before the method that caused them returns; a piece is added to the share only after it was verified and written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::shares::Share;
use super::connections::{ConnectRequest, DownloadConnections};
use super::cost::DownloadCost;
use super::progress::ProgressMeter;
use crate::proto::DisconnectReason;
use crate::proto::action::PeerAddress;
use crate::proto::frame::Message;
use crate::proto::picker::ConnectionId;
use crate::proto::session::ProviderFile;
use crate::proto::ticket::Ticket;
use crate::proto::time::Moment;
use crate::proto::transfer::{ReceivedPiece, Transfer, TransferStatus};
use crate::proto::units::{PieceIndex, PieceRange};
use crate::stats::{
    DownloadFailure, DownloadPhase, DownloadProgress, SuspectPeer, WaitReason, WithdrawalCause,
};

/// The state of one download. Its methods are described where `ActiveDownload` calls them.
#[derive(Debug)]
pub(super) struct DownloadCore {
    transfer: Transfer,
    connections: DownloadConnections,
    meter: ProgressMeter,
    pub(super) ticket: Ticket,
    intent: UserIntent,
    /// Why the disk cannot be written, if so.
    pub(super) storage_wait: Option<WaitReason>,
    /// The download cannot succeed; its own task has yet to end it.
    fatal: Option<DownloadFailure>,
    check: FileCheck,
    pub(super) phase: DownloadPhase,
    pub(super) share: Option<Arc<Share>>,
    /// Increases whenever [`DownloadCore::progress`] has something new to show.
    pub(super) version: u64,
}

/// Whether what is in the partial file has to be hashed. Meanwhile no peer is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileCheck {
    /// All pieces held were verified, and the file is as they were written.
    None,
    /// Another program has changed the file. It is hashed as soon as no piece is being written.
    Due,
    /// A thread hashes what an earlier attempt left, or another program.
    Running,
    /// The file was changed while a thread hashes it: that ends first.
    Restarting,
}

/// What the user asked of a download last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UserIntent {
    Run,
    Pause,
    Cancel,
}

/// What the download's own task has to do next.
#[derive(Debug)]
pub(crate) enum DriveStep {
    /// Make these connections, then poll again.
    Connect(Vec<ConnectRequest>),
    /// Hash these pieces of the partial file, which another program has changed.
    Check(Vec<PieceIndex>),
    /// All pieces are held: finish the file.
    Finish {
        /// The chain proves nothing, so the whole file has to be hashed in one pass.
        is_unverified: bool,
    },
    /// The user cancelled it.
    Cancelled,
    /// The download cannot succeed.
    Failed(DownloadFailure),
}

impl DownloadCore {
    /// A download of `transfer`; with `is_checking` it fetches nothing before [`DownloadCore::finish_check`].
    pub(super) fn new(
        mut transfer: Transfer,
        ticket: Ticket,
        is_checking: bool,
        now: Moment,
    ) -> DownloadCore {
        if is_checking {
            transfer.suspend(now);
        }
        DownloadCore {
            connections: DownloadConnections::default(),
            meter: ProgressMeter::new(now, transfer.counts().verified_bytes),
            transfer,
            ticket,
            intent: UserIntent::Run,
            storage_wait: None,
            fatal: None,
            check: if is_checking { FileCheck::Running } else { FileCheck::None },
            phase: if is_checking { DownloadPhase::Checking } else { DownloadPhase::Transferring },
            share: None,
            version: 1,
        }
    }

    /// Lets the transfer decide, and carries out its actions.
    pub(super) fn with_transfer<R>(&mut self, decide: impl FnOnce(&mut Transfer) -> R) -> R {
        let result = decide(&mut self.transfer);
        self.connections.apply(self.transfer.take_actions());
        result
    }

    /// Whether there are connections to make.
    pub(super) fn has_connects(&self) -> bool {
        self.connections.has_connects()
    }

    /// Whether the download has ended or is about to.
    pub(super) fn is_ending(&self) -> bool {
        self.intent == UserIntent::Cancel || self.fatal.is_some() || self.phase.is_end()
    }

    /// Whether nothing on this node stands in the way of fetching.
    fn can_fetch(&self) -> bool {
        self.intent == UserIntent::Run
            && self.storage_wait.is_none()
            && self.fatal.is_none()
            && self.check == FileCheck::None
    }

    fn suspend(&mut self, now: Moment) {
        self.with_transfer(|transfer| transfer.suspend(now));
    }

    fn fetch_if_possible(&mut self, now: Moment) {
        if self.can_fetch() {
            self.with_transfer(|transfer| transfer.resume(now));
        }
    }

    pub(super) fn pause(&mut self, now: Moment) {
        if self.intent == UserIntent::Run {
            self.intent = UserIntent::Pause;
            self.suspend(now);
        }
    }

    pub(super) fn resume(&mut self, now: Moment) {
        if self.intent == UserIntent::Pause {
            self.intent = UserIntent::Run;
            self.fetch_if_possible(now);
        }
    }

    /// Calls all usable peers at once. The reason why the download waited is not shown any more: the calls will tell.
    pub(super) fn retry(&mut self, now: Moment) {
        if !self.can_fetch() {
            return;
        }
        self.with_transfer(|transfer| transfer.retry_peers(now));
        self.phase = self.phase_for(self.transfer.status());
        self.version += 1;
    }

    pub(super) fn cancel(&mut self) {
        self.intent = UserIntent::Cancel;
    }

    /// The download cannot succeed. The first failure counts.
    pub(super) fn fail(&mut self, now: Moment, failure: DownloadFailure) {
        self.fatal.get_or_insert(failure);
        self.suspend(now);
    }

    /// The tracker no longer lets this node fetch the content. What is held whole is finished all the same.
    pub(super) fn withdraw(&mut self, now: Moment, cause: WithdrawalCause, message: String) {
        if !self.transfer.held().is_full() && !self.phase.is_end() {
            self.fail(now, DownloadFailure::Withdrawn { cause, message });
        }
    }

    pub(super) fn storage_failed(&mut self, now: Moment, wait: WaitReason) {
        self.storage_wait = Some(wait);
        self.suspend(now);
    }

    pub(super) fn storage_recovered(&mut self, now: Moment) {
        self.storage_wait = None;
        self.fetch_if_possible(now);
    }

    /// Another program has changed the partial file.
    pub(super) fn file_changed(&mut self, now: Moment) {
        self.check = match self.check {
            FileCheck::None | FileCheck::Due => FileCheck::Due,
            FileCheck::Running | FileCheck::Restarting => FileCheck::Restarting,
        };
        self.suspend(now);
    }

    /// Whether the check that runs is still of use.
    pub(super) fn is_check_wanted(&self) -> bool {
        self.check == FileCheck::Running
    }

    /// Begins a check that is due: no piece counts any more, except those of zeros. Returns which to hash; `None` while
    /// a piece is being written.
    fn begin_due_check(&mut self) -> Option<Vec<PieceIndex>> {
        let holes = self.transfer.holes();
        let held: Vec<_> = self.transfer.held().iter().filter(|index| !holes.has(*index)).collect();
        if !self.with_transfer(|transfer| transfer.discard_pieces(&held)) {
            return None;
        }
        if let Some(share) = &self.share {
            share.remove_pieces(&held);
            share.remove_pieces(&holes.iter().collect::<Vec<_>>());
        }
        // What the check finds was there before.
        self.meter.resumed_bytes = 0;
        self.check = FileCheck::Running;
        Some(held)
    }

    /// The zero pieces that were proven are in their places again.
    pub(super) fn zeros_restored(&mut self) {
        let holes = self.transfer.holes();
        self.add_to_share(&self.transfer.held().iter().filter(|index| holes.has(*index)).collect::<Vec<_>>());
    }

    pub(super) fn finish_check(&mut self, now: Moment) {
        self.check = match self.check {
            FileCheck::Restarting => FileCheck::Due,
            FileCheck::None | FileCheck::Due | FileCheck::Running => FileCheck::None,
        };
        if self.check == FileCheck::Due {
            return;
        }
        self.meter.end_check(now);
        self.with_transfer(Transfer::finish_restore);
        self.fetch_if_possible(now);
    }

    pub(super) fn connection_opened(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        file: ProviderFile,
        used: &Ticket,
    ) {
        if self.ticket != *used {
            self.connections.send(connection, Message::Renew { ticket: self.ticket.clone() });
        }
        self.with_transfer(|transfer| transfer.connection_opened(now, connection, file));
    }

    pub(super) fn connection_closed(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        reason: &DisconnectReason,
    ) {
        self.connections.remove(connection);
        self.with_transfer(|transfer| transfer.connection_closed(now, connection, reason));
    }

    pub(super) fn renew_ticket(&mut self, now: Moment, ticket: Ticket) {
        self.with_transfer(|transfer| transfer.renew_ticket(now, &ticket));
        self.ticket = ticket;
    }

    pub(super) fn attach_share(&mut self, share: Arc<Share>) {
        let held: Vec<_> = self.transfer.held().iter().collect();
        share.add_pieces(&held);
        self.share = Some(share);
    }

    /// A verified piece was written at all its places. Returns whether all pieces are held now.
    pub(super) fn piece_written(&mut self, received: &ReceivedPiece) -> bool {
        self.with_transfer(|transfer| transfer.piece_written(received));
        self.add_to_share(&received.copies);
        self.transfer.held().is_full()
    }

    /// Adds zero pieces, each with whether its link matches. Returns whether all pieces are held now.
    pub(super) fn zero_pieces_proven(&mut self, pieces: &[(PieceIndex, bool)]) -> bool {
        self.with_transfer(|transfer| {
            pieces.iter().for_each(|(index, link_matches)| transfer.add_held_piece(*index, *link_matches));
        });
        if !matches!(self.check, FileCheck::Due | FileCheck::Restarting) {
            self.add_to_share(&pieces.iter().map(|(index, _)| *index).collect::<Vec<_>>());
        }
        self.transfer.held().is_full()
    }

    pub(super) fn begin_check(&mut self, now: Moment, total_bytes: u64) {
        self.meter.begin_check(now, total_bytes);
        self.version += 1;
    }

    pub(super) fn add_checked(&mut self, now: Moment, bytes: u64) {
        self.meter.add_checked(now, bytes);
        self.version += 1;
    }

    /// Adds pieces of an earlier attempt, or copies of held pieces; then `checked_bytes` is 0. Only the former count as
    /// resumed.
    pub(super) fn pieces_found(&mut self, now: Moment, pieces: &[(PieceIndex, bool)], checked_bytes: u64) {
        self.meter.add_checked(now, checked_bytes);
        let before = self.transfer.counts().verified_bytes;
        self.with_transfer(|transfer| {
            pieces.iter().for_each(|(index, link_matches)| transfer.restore_piece(*index, *link_matches));
        });
        self.meter.checked_bytes += checked_bytes;
        if checked_bytes > 0 {
            self.meter.resumed_bytes += self.transfer.counts().verified_bytes - before;
        }
        self.add_to_share(&pieces.iter().map(|(index, _)| *index).collect::<Vec<_>>());
    }

    pub(super) fn discard_pieces(&mut self, pieces: &[PieceIndex]) -> bool {
        let is_discarded = self.with_transfer(|transfer| transfer.discard_pieces(pieces));
        if is_discarded && let Some(share) = &self.share {
            share.remove_pieces(pieces);
        }
        is_discarded
    }

    fn add_to_share(&self, pieces: &[PieceIndex]) {
        if let Some(share) = &self.share {
            share.add_pieces(pieces);
        }
    }

    pub(super) fn poll(&mut self, now: Moment, local_stall: bool) -> DriveStep {
        self.with_transfer(|transfer| transfer.poll(now, local_stall));
        self.meter.poll(now, self.transfer.counts().verified_bytes, &self.phase);
        if self.intent == UserIntent::Cancel {
            return DriveStep::Cancelled;
        }
        if let Some(failure) = &self.fatal {
            return DriveStep::Failed(failure.clone());
        }
        let to_check = if self.check == FileCheck::Due { self.begin_due_check() } else { None };
        let status = self.transfer.status();
        let phase = self.phase_for(status);
        self.set_phase(phase);
        match (to_check, status) {
            (Some(pieces), _) => DriveStep::Check(pieces),
            (None, TransferStatus::Complete | TransferStatus::Unverified)
                if self.storage_wait.is_none() && self.check == FileCheck::None =>
            {
                DriveStep::Finish { is_unverified: status == TransferStatus::Unverified }
            }
            _ => DriveStep::Connect(self.connections.take_connects()),
        }
    }

    /// Enters a phase of the last steps (whole-file check, sync, rename) or of the end.
    pub(super) fn enter_phase(&mut self, now: Moment, phase: DownloadPhase) {
        self.meter.enter_phase(now, &phase);
        if phase.is_end() {
            // Closes the connections: nothing more is requested.
            self.suspend(now);
        }
        self.set_phase(phase);
    }

    fn set_phase(&mut self, phase: DownloadPhase) {
        let has_new_bytes = self.meter.take_has_new_bytes(self.transfer.counts().verified_bytes);
        if self.phase != phase || has_new_bytes {
            self.phase = phase;
            self.version += 1;
        }
    }

    fn phase_for(&self, status: TransferStatus) -> DownloadPhase {
        let troubles = || self.transfer.peer_troubles();
        match (self.intent, &self.storage_wait, status) {
            // All pieces are held: from here on `enter_phase` sets the phase.
            (_, None, TransferStatus::Complete | TransferStatus::Unverified)
                if self.check == FileCheck::None =>
            {
                self.phase.clone()
            }
            (UserIntent::Pause, ..) => DownloadPhase::Paused,
            (_, Some(wait), _) => DownloadPhase::Waiting(wait.clone()),
            (_, None, _) if self.check != FileCheck::None => DownloadPhase::Checking,
            (_, None, TransferStatus::Active | TransferStatus::Complete | TransferStatus::Unverified) => {
                DownloadPhase::Transferring
            }
            (_, None, TransferStatus::TicketRefused) => DownloadPhase::Waiting(WaitReason::Ticket),
            (_, None, TransferStatus::NoPeers { missing, after_bad_pieces: true, .. }) => {
                DownloadPhase::Waiting(WaitReason::BadPieces { missing: missing.0, troubles: troubles() })
            }
            (_, None, TransferStatus::NoPeers { missing, .. }) if self.transfer.has_changed_source() => {
                DownloadPhase::Waiting(WaitReason::SourceChanged { missing: missing.0, troubles: troubles() })
            }
            (_, None, TransferStatus::NoPeers { missing, first, .. }) => {
                DownloadPhase::Waiting(WaitReason::NoPeers {
                    missing: missing.0,
                    first_missing: first.0,
                    troubles: troubles(),
                })
            }
        }
    }

    /// A snapshot of all figures. `path` is the final name.
    pub(super) fn progress(&mut self, now: Moment, cost: &DownloadCost, path: PathBuf) -> DownloadProgress {
        let counts = self.transfer.counts();
        let meter = &mut self.meter;
        DownloadProgress {
            version: self.version,
            phase: self.phase.clone(),
            total_bytes: self.transfer.geometry().length(),
            verified_bytes: counts.verified_bytes,
            received_bytes: counts.received_bytes,
            duplicate_bytes: counts.duplicate_bytes,
            resumed_bytes: meter.resumed_bytes,
            checked_bytes: meter.checked_bytes,
            check: meter.check,
            verified_bytes_per_s: meter.bytes_per_s(now),
            peers: self.transfer.open_peers(),
            peer_troubles: self.transfer.peer_troubles(),
            sequential_passes: meter.sequential_passes,
            wire_bytes: cost.wire_bytes.load(Ordering::Relaxed),
            hashing_time: Duration::from_micros(cost.hashing_us.load(Ordering::Relaxed)),
            writing_time: Duration::from_micros(cost.writing_us.load(Ordering::Relaxed)),
            age: meter.age(now),
            first_verified_after: cost.first_verified().map(|first| meter.since_start(first)),
            limited_by: cost.time_shares(meter.phase_times).bottleneck(),
            proven_after: meter.proven_after,
            durable_after: meter.durable_after,
            path,
        }
    }

    pub(super) fn take_gained(&mut self) -> Vec<PieceRange> {
        self.transfer.take_gained()
    }

    pub(super) fn take_suspects(&mut self) -> Vec<SuspectPeer> {
        let suspect = |peer: PeerAddress| SuspectPeer {
            address: peer.address,
            reason: "sent pieces whose SHA-1 is not the file's".to_owned(),
        };
        self.transfer.take_banned().into_iter().map(suspect).collect()
    }
}
