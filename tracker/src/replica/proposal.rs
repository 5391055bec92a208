//! Proposals: commands that wait for the log, and how several of them become one entry.
//!
//! Invariants: what waits is bounded in number and in bytes; an entry never exceeds its limit; every proposal that was taken in
//! is answered exactly once.

use std::io;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::state::command::LogCommand;

use super::limits::{BATCH_MAX_BYTES, ENTRY_MAX_COMMANDS};
use super::raft_types::{ApplyResult, CommandBatch};

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// It is longer than an entry may be.
    #[error("a change of {bytes} bytes, but one may have {}", BATCH_MAX_BYTES)]
    TooLarge {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// Too much waits already.
    #[error("too many changes wait for the disk; try again in a moment")]
    Busy,
    /// The disk is full. Nothing was changed.
    #[error(
        "the tracker's disk is full ({free} bytes free, {wanted} wanted at {path}): it goes on when there is space"
    )]
    Full {
        /// The directory.
        path: String,
        /// Free bytes.
        free: u64,
        /// Bytes below which nothing is written.
        wanted: u64,
    },
    /// This tracker may not write now, since another leads or none does. Nothing was changed.
    #[error("no tracker leads at the moment; try again")]
    NoLeader,
    /// The log cannot be written now. Nothing was changed.
    #[error("the tracker cannot write at the moment: {0}")]
    Unavailable(String),
    /// Writing failed half-way: the command may stand or not, but never in part.
    #[error("the tracker failed while it wrote, so the change may stand or not; ask again: {0}")]
    Unknown(String),
}

/// Who waits for an outcome.
pub(super) type Reply = Box<dyn FnOnce(Result<ApplyResult, ProposalError>) + Send>;

/// A command on its way to the log.
pub(super) struct Proposal {
    pub(super) command: LogCommand,
    pub(super) bytes: usize,
    pub(super) reply: Reply,
    /// Its share of the bytes that may wait; given back when it is dropped.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Length of a command in an entry, in bytes.
pub(super) fn command_bytes(command: &LogCommand) -> usize {
    struct CountingWriter(usize);
    impl io::Write for CountingWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = CountingWriter(0);
    serde_json::to_writer(&mut count, command).expect("commands have string keys and nothing that can fail");
    // The comma behind it.
    count.0 + 1
}

/// Takes what waits, as much as fits into one entry. `next` is what did not fit the entry before, and afterwards what does
/// not fit this one. `None` when nothing will come any more.
pub(super) async fn gather_proposals(
    inbox: &mut mpsc::Receiver<Proposal>,
    next: &mut Option<Proposal>,
) -> Option<Vec<Proposal>> {
    let first = match next.take() {
        Some(first) => first,
        None => inbox.recv().await?,
    };
    let mut bytes = first.bytes;
    let mut together = vec![first];
    while together.len() < ENTRY_MAX_COMMANDS {
        let Ok(another) = inbox.try_recv() else { break };
        if bytes + another.bytes > BATCH_MAX_BYTES {
            *next = Some(another);
            break;
        }
        bytes += another.bytes;
        together.push(another);
    }
    Some(together)
}

/// The commands as an entry's content, and who waits for each.
pub(super) fn split_batch(together: Vec<Proposal>) -> (CommandBatch, Vec<Reply>) {
    let (commands, replies) = together.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
    (CommandBatch { commands }, replies)
}

/// Tells all of them the same.
pub(super) fn refuse_all(replies: Vec<Reply>, why: &ProposalError) {
    for reply in replies {
        reply(Err(why.clone()));
    }
}
