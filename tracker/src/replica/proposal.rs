//! Proposals: commands that wait for the log, and how several become one entry.
//!
//! Invariants: waiting commands are bounded in number and in bytes. An entry never exceeds its limit. Every accepted
//! proposal is answered exactly once.

use std::io;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::state::command::LogCommand;

use super::limits::{BATCH_MAX_BYTES, ENTRY_MAX_COMMANDS};
use super::raft_types::{ApplyResult, CommandBatch};

/// Why a proposed command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages show the fields")]
pub enum ProposalError {
    /// It is longer than an entry may be.
    #[error("a change of {bytes} bytes, but one may have {BATCH_MAX_BYTES}")]
    TooLarge { bytes: usize },
    /// Too many commands wait.
    #[error("too many changes wait for the disk; try again in a moment")]
    Busy,
    /// The disk is full. Nothing was changed.
    #[error(
        "the tracker's disk is full ({free} bytes free, {wanted} wanted at {path}): it goes on when there is space"
    )]
    Full { path: String, free: u64, wanted: u64 },
    /// The log's file was removed or replaced. Nothing was changed.
    #[error(
        "the tracker's files at {path} were removed or replaced while it ran: stop it, put the directory back, and start \
         it again"
    )]
    Gone { path: String },
    /// Another tracker leads, or none does. Nothing was changed.
    #[error("no tracker leads at the moment; try again")]
    NoLeader,
    /// The log cannot be written now. Nothing was changed.
    #[error("the tracker cannot write at the moment: {0}")]
    Unavailable(String),
    /// Writing failed: the command was made as a whole or not at all.
    #[error("the tracker failed while writing, so the change may or may not have been made; ask again: {0}")]
    Unknown(String),
}

/// Called with the outcome of a proposal.
pub(super) type Reply = Box<dyn FnOnce(Result<ApplyResult, ProposalError>) + Send>;

/// A command on its way to the log.
pub(super) struct Proposal {
    pub(super) command: LogCommand,
    pub(super) bytes: usize,
    pub(super) reply: Reply,
    /// Its share of the bytes that may wait; dropping it returns the share.
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
    // The comma after it.
    count.0 + 1
}

/// Takes as many waiting proposals as fit into one entry. `next` is the one that did not fit the entry before, and then the
/// one that does not fit this one. `None` when the senders are gone.
pub(super) async fn gather_proposals(
    inbox: &mut mpsc::Receiver<Proposal>,
    next: &mut Option<Proposal>,
) -> Option<Vec<Proposal>> {
    let first = match next.take() {
        Some(first) => first,
        None => inbox.recv().await?,
    };
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    while batch.len() < ENTRY_MAX_COMMANDS {
        let Ok(another) = inbox.try_recv() else { break };
        if bytes + another.bytes > BATCH_MAX_BYTES {
            *next = Some(another);
            break;
        }
        bytes += another.bytes;
        batch.push(another);
    }
    Some(batch)
}

/// Separates the commands, as an entry's content, from the replies.
pub(super) fn split_batch(batch: Vec<Proposal>) -> (CommandBatch, Vec<Reply>) {
    let (commands, replies) = batch.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
    (CommandBatch { commands }, replies)
}

/// Gives all replies the same error.
pub(super) fn refuse_all(replies: Vec<Reply>, why: &ProposalError) {
    for reply in replies {
        reply(Err(why.clone()));
    }
}
