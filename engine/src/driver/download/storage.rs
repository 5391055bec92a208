//! A download and its disk: what is found there at the start, and what happens when it cannot be written.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::super::limits::SLOW_WRITE_MS;
use super::super::shares::ShareTable;
use super::{ActiveDownload, DownloadCore, UserIntent};
use crate::proto::rate::RateMeter;
use crate::proto::time::Moment;
use crate::proto::transfer::ReceivedPiece;
use crate::proto::units::PieceIndex;
use crate::stats::{DownloadFailure, DownloadPhase, WaitReason};
use crate::storage::error::{StorageError, StorageErrorKind};

impl ActiveDownload {
    /// Pieces of zeros, each with whether its link holds; `false` when the download has ended meanwhile.
    pub(crate) fn zero_pieces_proven(&self, holes: &[(PieceIndex, bool)]) -> bool {
        let mut inner = self.lock();
        for (index, link_holds) in holes {
            inner.transfer.hole_verified(*index, *link_holds);
        }
        if let Some(share) = &inner.share {
            share.add_pieces(&holes.iter().map(|(index, _)| *index).collect::<Vec<_>>());
        }
        if inner.transfer.held().is_full() {
            self.wake.notify_one();
        }
        drop(inner);
        !self.is_over()
    }

    /// `checked_bytes` of an earlier attempt's were hashed, and these pieces found, each with whether its link holds.
    pub(crate) fn pieces_found(&self, pieces: &[(PieceIndex, bool)], checked_bytes: u64) {
        let mut inner = self.lock();
        let before = inner.transfer.counts().verified_bytes;
        for (index, link_holds) in pieces {
            inner.transfer.restore_piece(*index, *link_holds);
        }
        inner.checked_bytes += checked_bytes;
        if checked_bytes > 0 {
            inner.resumed_bytes += inner.transfer.counts().verified_bytes - before;
        }
        if let Some(share) = &inner.share {
            share.add_pieces(&pieces.iter().map(|(index, _)| *index).collect::<Vec<_>>());
        }
        self.wake.notify_one();
    }

    /// What was to be checked has been: the rest is fetched.
    pub(crate) fn finish_check(&self) {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.is_checking = false;
        inner.meter = RateMeter::new(now);
        inner.transfer.finish_restore();
        if inner.can_fetch() {
            inner.transfer.resume(now);
        }
        inner.apply_actions();
        self.wake.notify_one();
    }

    /// Whether nothing more will happen to it.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().phase.is_end()
    }

    /// One pass found the whole to be what was stated.
    pub(crate) fn set_whole_proven(&self) {
        self.whole_proven.store(true, Ordering::Relaxed);
    }

    /// Whether one pass found that before.
    pub(crate) fn is_whole_proven(&self) -> bool {
        self.whole_proven.load(Ordering::Relaxed)
    }

    /// Whether it has ended, or nobody looks after it any more.
    pub(crate) fn is_over(&self) -> bool {
        let inner = self.lock();
        let ends = inner.intent == UserIntent::Cancel || inner.fatal.is_some() || inner.phase.is_end();
        ends || self.is_detached.load(Ordering::Relaxed)
    }

    /// Its node has gone down: what works for it on threads of its own may stop.
    pub(crate) fn detach(&self) {
        self.is_detached.store(true, Ordering::Relaxed);
    }

    /// It could not be begun: nothing of it is served, and what it made on the disk is removed, unless an earlier attempt
    /// made it.
    pub(crate) fn abandon(&self, shares: &ShareTable) {
        self.detach();
        if let Some(share) = self.share() {
            shares.remove_if_current(&share);
        }
        if self.target.is_new()
            && let Err(error) = self.ledger.remove().and_then(|()| self.target.discard())
        {
            tracing::warn!(%error, "the partial file of a download that could not begin stays");
        }
    }

    /// A piece that arrived was not judged or not written: it is fetched again.
    pub(crate) fn piece_dropped(&self, job: &ReceivedPiece) {
        self.lock().transfer.piece_dropped(job);
    }

    /// Whether pieces can be judged: to be asked after judging and before anything comes of it. When hashes of the manifest are
    /// lost, nobody is to blame for what does not match what is left of them, and as they never come back, the download ends.
    /// What it has stays for the next attempt, which asks the trackers for the hashes again.
    pub(crate) fn can_verify(&self) -> bool {
        let Some(place) = self.manifest.unreadable_at() else { return true };
        let mut inner = self.lock();
        inner.transfer.hold(self.clock.now());
        let failure = || DownloadFailure::Io(StorageError::hashes_lost(place).to_string());
        inner.fatal.get_or_insert_with(failure);
        inner.apply_actions();
        self.wake.notify_one();
        false
    }

    /// Pieces that the disk has lost are missing from here on; whether they could be, which has to wait for what is being
    /// verified.
    pub(crate) fn pieces_lost(&self, pieces: &[PieceIndex]) -> bool {
        let mut inner = self.lock();
        if !inner.transfer.discard_pieces(pieces) {
            return false;
        }
        if let Some(share) = &inner.share {
            share.remove_pieces(pieces);
        }
        true
    }

    /// The disk failed or is full: everything stops until it is fit again.
    pub(crate) fn storage_failed(&self, error: &StorageError) {
        let mut inner = self.lock();
        inner.transfer.hold(self.clock.now());
        inner.storage_wait = Some(storage_wait_reason(error));
        inner.apply_actions();
        self.wake.notify_one();
    }

    /// The phase; that the disk takes no pieces is seen here, since the worker that it holds up may be the one that looks after
    /// the download.
    pub(super) fn current_phase(&self, inner: &DownloadCore, now: Moment) -> DownloadPhase {
        match slow_write_seconds(&inner.phase, self.write_busy.busy_ms(now)) {
            None => inner.phase.clone(),
            Some(seconds) => {
                let path = self.target.partial_path();
                let file = path.display();
                DownloadPhase::Waiting(WaitReason::Io(format!(
                    "{file}: the disk has not taken a piece for {seconds} s"
                )))
            }
        }
    }

    /// The disk can be written again.
    pub(crate) fn storage_recovered(&self) {
        let mut inner = self.lock();
        inner.storage_wait = None;
        if inner.can_fetch() {
            inner.transfer.resume(self.clock.now());
        }
        inner.apply_actions();
    }

    /// Why the disk cannot be written, if so.
    pub(crate) fn storage_wait(&self) -> Option<WaitReason> {
        self.lock().storage_wait.clone()
    }
}

/// For how many seconds the disk has been what a download waits for, which has been at one write for so long.
fn slow_write_seconds(phase: &DownloadPhase, at_it_ms: u64) -> Option<u64> {
    (*phase == DownloadPhase::Transferring && at_it_ms >= SLOW_WRITE_MS).then_some(at_it_ms / 1_000)
}

fn storage_wait_reason(error: &StorageError) -> WaitReason {
    match &error.kind {
        StorageErrorKind::NoSpace { needed, free } => WaitReason::DiskFull {
            needed: *needed,
            free: *free,
            directory: error.path.parent().map(PathBuf::from).unwrap_or_default(),
        },
        _ => WaitReason::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_take_a_piece_is_named() {
        assert_eq!(slow_write_seconds(&DownloadPhase::Transferring, SLOW_WRITE_MS - 1), None);
        assert_eq!(
            slow_write_seconds(&DownloadPhase::Transferring, SLOW_WRITE_MS),
            Some(SLOW_WRITE_MS / 1_000)
        );
        assert_eq!(
            slow_write_seconds(&DownloadPhase::Syncing, 2 * SLOW_WRITE_MS),
            None,
            "that names the disk already"
        );
    }
}
