//! Threads for blocking work of downloads, by kind of work and by filesystem.
//!
//! Invariants: a check of hours delays no last steps of another download; a filesystem that does not answer delays only its
//! own downloads; no work begins once the threads were stopped, except records of what was written.

use std::time::Duration;

use super::limits::{
    CHECKS_AT_ONCE, EXAMINATIONS_AT_ONCE, FINISHES_AT_ONCE, FLUSHES_AT_ONCE, STOP_WORK_MS,
    ZERO_PIECE_CHECKS_AT_ONCE,
};
use crate::storage::filesystem_threads::{FilesystemId, FilesystemThreads, QueuedWork, SubmitError};

/// A kind of work. Each has its own queues.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkKind {
    /// Hash what an earlier attempt left.
    Check,
    /// Check the links of zero pieces.
    Holes,
    /// Take the last steps.
    Finish,
    /// Look whether the partial file is still there and unchanged.
    Examination,
    /// Make written pieces durable and record them; start write-backs.
    Flush,
}

/// The threads of all kinds.
pub(crate) struct WorkThreads {
    checks: FilesystemThreads,
    holes: FilesystemThreads,
    finishes: FilesystemThreads,
    examinations: FilesystemThreads,
    flushes: FilesystemThreads,
}

impl Default for WorkThreads {
    fn default() -> WorkThreads {
        WorkThreads {
            checks: FilesystemThreads::new("resume", CHECKS_AT_ONCE),
            holes: FilesystemThreads::new("holes", ZERO_PIECE_CHECKS_AT_ONCE),
            finishes: FilesystemThreads::new("finish", FINISHES_AT_ONCE),
            examinations: FilesystemThreads::new("examine", EXAMINATIONS_AT_ONCE),
            flushes: FilesystemThreads::new("flush", FLUSHES_AT_ONCE),
        }
    }
}

impl WorkThreads {
    /// Has work done by a thread of its kind and filesystem.
    ///
    /// # Errors
    /// [`SubmitError`]; the work is dropped.
    pub(crate) fn submit(
        &self,
        kind: WorkKind,
        filesystem: FilesystemId,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), SubmitError> {
        let threads = match kind {
            WorkKind::Check => &self.checks,
            WorkKind::Holes => &self.holes,
            WorkKind::Finish => &self.finishes,
            WorkKind::Examination => &self.examinations,
            WorkKind::Flush => &self.flushes,
        };
        threads.submit(filesystem, work)
    }

    /// Drops work that waits, except flushes, and waits until running work has ended: for at most [`STOP_WORK_MS`], since
    /// a filesystem may never answer. Blocks.
    pub(crate) fn stop(&self) {
        for threads in [&self.checks, &self.holes, &self.finishes, &self.examinations] {
            stop_kind(threads, QueuedWork::Drop);
        }
    }

    /// As [`WorkThreads::stop`], for flushes. Those that wait are done first.
    pub(crate) fn stop_flushes(&self) {
        stop_kind(&self.flushes, QueuedWork::Do);
    }
}

fn stop_kind(threads: &FilesystemThreads, queued: QueuedWork) {
    if !threads.stop(queued, Duration::from_millis(STOP_WORK_MS)) {
        tracing::warn!(?threads, "a filesystem does not answer; the node stops without it");
    }
}
