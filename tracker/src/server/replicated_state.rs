//! The seam where replication stands: commands go in, outcomes come out later.
//!
//! Invariants: this is the only place that proposes a command, and every command that was applied is shown to the leases, in the
//! order of the log. Queries read a view that is at least as new as the last outcome handed out, so whoever was answered
//! sees what was answered.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mio::Waker;

use crate::replica::{ApplyResult, ProposalError, Replica, ReplicaFault, TablesView};
use crate::state::command::{LogAction, LogCommand};
use crate::state::id::{GroupFile, GroupId, SessionId, UserId};
use crate::state::leases::LeaseTable;
use crate::state::queries::{SessionView, StateQueries};

use super::limits::{OUTCOMES_WAITING, READ_AGAIN_MS, VIEW_RETRY_MS};
use super::slots::ConnectionToken;
use super::view_cache::{ListedFile, ViewCache};

/// What came of a command.
pub(super) struct DecidedCommand {
    /// The connection whose request it was.
    pub(super) connection: ConnectionToken,
    /// What the machine decided, or why it was not asked.
    pub(super) outcome: Result<ApplyResult, ProposalError>,
}

/// A command on its way.
struct PendingCommand {
    /// The connection that waits for it, if any does.
    connection: Option<ConnectionToken>,
    /// The command, where the leases have to see it.
    for_leases: Option<LogCommand>,
}

/// The replicated state, and the leader's memory beside it.
pub(super) struct ReplicatedState {
    replica: Replica,
    view: TablesView,
    /// What was read of the view.
    cache: ViewCache,
    /// Which opening of the log the view is of.
    generation: u64,
    /// The view is older than an outcome that was handed out.
    is_behind: bool,
    /// When another view was asked for last because this one failed, in milliseconds.
    retried_ms: Option<u64>,
    /// When the state could not be read last, in milliseconds.
    unread_ms: Option<u64>,
    /// Who is online and who holds what so far.
    pub(super) leases: LeaseTable,
    /// Commands on their way, by the order of their proposals.
    pending: BTreeMap<u64, PendingCommand>,
    proposed: u64,
    outcomes: Receiver<(u64, Result<ApplyResult, ProposalError>)>,
    outcome_sender: SyncSender<(u64, Result<ApplyResult, ProposalError>)>,
    waker: Arc<Waker>,
    /// Refused at once.
    refused: VecDeque<DecidedCommand>,
}

impl ReplicatedState {
    /// The state of a replica, led from `now_ms` on. The waker wakes the loop when an outcome has come.
    ///
    /// # Errors
    /// [`ReplicaFault`] when the tables cannot be read.
    pub(super) fn new(
        replica: Replica,
        waker: Arc<Waker>,
        now_ms: u64,
    ) -> Result<ReplicatedState, ReplicaFault> {
        let (finished, outcomes) = sync_channel(OUTCOMES_WAITING);
        // The number first: of a view that is older than its number nobody would know.
        let generation = replica.generation();
        Ok(ReplicatedState {
            view: replica.view()?,
            generation,
            is_behind: false,
            retried_ms: None,
            unread_ms: None,
            replica,
            cache: ViewCache::default(),
            leases: LeaseTable::new(now_ms),
            pending: BTreeMap::new(),
            proposed: 0,
            outcomes,
            outcome_sender: finished,
            waker,
            refused: VecDeque::new(),
        })
    }

    /// Changes with the leader, and with each opening of the log.
    pub(super) fn epoch(&self) -> u64 {
        self.replica.epoch()
    }

    /// Questions to the state as it was applied last.
    pub(super) fn queries(&self) -> StateQueries<'_> {
        StateQueries::new(&self.view)
    }

    /// A session, if it holds at `at_s`: neither ended nor expired.
    pub(super) fn session(&mut self, session: SessionId, at_s: u64) -> Option<SessionView> {
        self.cache.session(StateQueries::new(&self.view), session, at_s)
    }

    /// Whether a session holds at `at_s`.
    pub(super) fn session_holds(&mut self, session: SessionId, at_s: u64) -> bool {
        self.cache.session_holds(StateQueries::new(&self.view), session, at_s)
    }

    /// Whether a user is a member of a group.
    pub(super) fn is_member(&mut self, group: &GroupId, user: &UserId) -> bool {
        self.cache.is_member(StateQueries::new(&self.view), group, user)
    }

    /// A file, and who holds it completely and has not logged out.
    pub(super) fn file(&mut self, file: &GroupFile) -> Option<Rc<ListedFile>> {
        self.cache.file(StateQueries::new(&self.view), file, || self.view.check().is_ok())
    }

    /// Whether everything that was asked since the last call could be read; else the answers found with it are worth nothing.
    pub(super) fn check_reads(&mut self, now_ms: u64) -> bool {
        let read = match self.view.check() {
            Ok(()) => true,
            Err(fault) => {
                self.log_unread(&fault, now_ms);
                false
            }
        };
        if !read || self.is_behind {
            self.retry_view(now_ms);
        }
        read
    }

    /// The same so far, in the midst of a request: whether what was not found is not there.
    pub(super) fn can_read(&self) -> bool {
        self.view.check().is_ok()
    }

    /// Proposes a command for a connection's request; the outcome comes by [`ReplicatedState::next_decided`].
    pub(super) fn propose(&mut self, whose: ConnectionToken, command: LogCommand) {
        if let Err(why) = self.send_command(Some(whose), command) {
            self.refused.push_back(DecidedCommand { connection: whose, outcome: Err(why) });
        }
    }

    /// Proposes a command that nobody waits for.
    pub(super) fn propose_housekeeping(&mut self, command: LogCommand) {
        if let Err(why) = self.send_command(None, command) {
            tracing::warn!(%why, "housekeeping was not proposed");
        }
    }

    /// The next outcome that somebody waits for.
    pub(super) fn next_decided(&mut self, now_ms: u64) -> Option<DecidedCommand> {
        if let Some(refused) = self.refused.pop_front() {
            return Some(refused);
        }
        if self.generation != self.replica.generation() {
            self.retry_view(now_ms);
        }
        while let Ok((number, outcome)) = self.outcomes.try_recv() {
            // The outcome came after the change was applied, so a view taken now shows it.
            self.refresh_view(now_ms);
            let Some(underway) = self.pending.remove(&number) else { continue };
            if let (Some(command), Ok(Ok(outcome))) = (&underway.for_leases, &outcome) {
                self.leases.follow_command(command, outcome);
            }
            match underway.connection {
                Some(whose) => return Some(DecidedCommand { connection: whose, outcome }),
                None => match outcome {
                    Ok(Ok(_)) => {}
                    Ok(Err(refusal)) => tracing::warn!(%refusal, "the state refused housekeeping"),
                    Err(why) => tracing::warn!(%why, "housekeeping was not carried out"),
                },
            }
        }
        None
    }

    fn send_command(
        &mut self,
        whose: Option<ConnectionToken>,
        command: LogCommand,
    ) -> Result<(), ProposalError> {
        let number = self.proposed;
        let seen = (!matches!(command.action, LogAction::UploadPart { .. })).then(|| command.clone());
        let (finished, waker) = (self.outcome_sender.clone(), Arc::clone(&self.waker));
        self.replica.propose(command, move |outcome| {
            // There is room for all that can be under way; the loop is gone only when the tracker ends.
            if finished.try_send((number, outcome)).is_ok()
                && let Err(error) = waker.wake()
            {
                tracing::error!(%error, "the loop cannot be woken");
            }
        })?;
        self.proposed += 1;
        self.pending.insert(number, PendingCommand { connection: whose, for_leases: seen });
        Ok(())
    }

    /// From now on reads fail, until there is another view.
    #[cfg(test)]
    pub(super) fn fail_reads(&mut self) {
        self.cache.forget();
        self.view.fail();
    }

    /// As if the last look at a view that failed were long ago.
    #[cfg(test)]
    pub(super) fn forget_retry(&mut self) {
        self.retried_ms = None;
    }

    /// Asks for another view, since this one is of no use; but not all the time.
    fn retry_view(&mut self, now_ms: u64) {
        if self.retried_ms.is_none_or(|retried_ms| now_ms >= retried_ms + VIEW_RETRY_MS) {
            self.retried_ms = Some(now_ms);
            self.refresh_view(now_ms);
        }
    }

    fn refresh_view(&mut self, now_ms: u64) {
        self.cache.forget();
        let generation = self.replica.generation();
        match self.replica.view() {
            Ok(view) => {
                self.generation = generation;
                self.view = view;
                self.is_behind = false;
            }
            Err(fault) => {
                self.is_behind = true;
                self.log_unread(&fault, now_ms);
            }
        }
    }

    /// Says in the log that the state cannot be read, unless it has just been said.
    fn log_unread(&mut self, fault: &ReplicaFault, now_ms: u64) {
        if self.unread_ms.is_none_or(|unread_ms| now_ms >= unread_ms + READ_AGAIN_MS) {
            tracing::error!(%fault, "the state cannot be read; requests are refused until it can be");
        }
        self.unread_ms = Some(now_ms);
    }
}
