//! The replicated state as the server sees it: commands are proposed, and their outcomes come later.
//!
//! Invariants: only this module proposes commands; the leases follow every applied command, in the order of
//! the log. Queries read a view that is at least as new as the last outcome handed out, so a client sees the
//! effect of every request that was answered.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mio::Waker;

use crate::replica::{ApplyResult, ProposalError, Replica, ReplicaFault, TablesView};
use crate::state::command::{LogAction, LogCommand};
use crate::state::id::{GroupFile, GroupId, SessionId, UserId};
use crate::state::leases::LeaseTable;
use crate::state::limits::{SESSION_LIFE_S, UPLOAD_LIFE_S};
use crate::state::queries::{SessionView, StateQueries};

use super::clock::ClockReading;
use super::limits::{OUTCOMES_WAITING, READ_AGAIN_MS, SESSIONS_KEPT_MS, VIEW_RETRY_MS};
use super::slots::ConnectionToken;
use super::view_cache::{ListedFile, ViewCache};

pub(super) struct DecidedCommand {
    pub(super) connection: ConnectionToken,
    /// The state machine's decision, or why the command was not applied.
    pub(super) outcome: Result<ApplyResult, ProposalError>,
}

struct PendingCommand {
    /// The connection that waits for the outcome, if any.
    connection: Option<ConnectionToken>,
    /// The command, if the leases must follow it.
    for_leases: Option<LogCommand>,
}

/// The replicated state, and the leases, which only the leader keeps.
pub(super) struct ReplicatedState {
    replica: Replica,
    view: TablesView,
    cache: ViewCache,
    /// Number of the opening of the log that the view belongs to.
    generation: u64,
    /// The view is older than an outcome that was handed out.
    is_behind: bool,
    /// When a new view was last requested because this one failed, in milliseconds.
    retried_ms: Option<u64>,
    /// When a read failed last, in milliseconds.
    unread_ms: Option<u64>,
    /// Sessions that are online, and the pieces that leechers have.
    pub(super) leases: LeaseTable,
    /// Commands in flight, by the number of their proposal.
    pending: BTreeMap<u64, PendingCommand>,
    proposed: u64,
    /// No row expires before this time, in seconds since the Unix epoch.
    next_expiry_s: u64,
    outcomes: Receiver<(u64, Result<ApplyResult, ProposalError>)>,
    outcome_sender: SyncSender<(u64, Result<ApplyResult, ProposalError>)>,
    waker: Arc<Waker>,
    /// Commands that the replica refused at once.
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
        let (outcome_sender, outcomes) = sync_channel(OUTCOMES_WAITING);
        // The number before the view: a view older than its number would never be replaced.
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
            next_expiry_s: 0,
            outcomes,
            outcome_sender,
            waker,
            refused: VecDeque::new(),
        })
    }

    /// The epoch, which changes with the leader and with each opening of the log.
    pub(super) fn epoch(&self) -> u64 {
        self.replica.epoch()
    }

    /// Id of the cluster.
    pub(super) fn cluster(&self) -> &str {
        self.replica.cluster()
    }

    /// Number of the last change; `None` while the log is being reopened.
    pub(super) fn revision(&self) -> Option<u64> {
        self.replica.revision()
    }

    pub(super) fn queries(&self) -> StateQueries<'_> {
        StateQueries::new(&self.view)
    }

    /// A session, if it has neither ended nor expired at `at_s`.
    pub(super) fn session(&mut self, session: SessionId, at_s: u64) -> Option<SessionView> {
        self.cache.session(StateQueries::new(&self.view), session, at_s)
    }

    /// Whether a session has neither ended nor expired at `at_s`.
    pub(super) fn session_holds(&mut self, session: SessionId, at_s: u64) -> bool {
        self.cache.session_holds(StateQueries::new(&self.view), session, at_s)
    }

    pub(super) fn is_member(&mut self, group: &GroupId, user: &UserId) -> bool {
        self.cache.is_member(StateQueries::new(&self.view), group, user)
    }

    /// A file, with its seeders that have not logged out.
    pub(super) fn file(&mut self, file: &GroupFile) -> Option<Rc<ListedFile>> {
        self.cache.file(StateQueries::new(&self.view), file, || self.view.check().is_ok())
    }

    /// Whether all reads since the last call succeeded. If not, what was decided by them is void.
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

    /// Whether all reads of the current view have succeeded so far, so that a row that was not found does not
    /// exist.
    pub(super) fn can_read(&self) -> bool {
        self.view.check().is_ok()
    }

    /// Whether rows are to be expired. Reads rows only when one may have expired.
    ///
    /// Shortly after the start, sessions that have expired make it false: a tracker that is started while the system's
    /// clock is wrong must not delete them.
    pub(super) fn has_expired_rows(&mut self, now: ClockReading) -> bool {
        let at_s = now.unix_s;
        if at_s < self.next_expiry_s {
            return false;
        }
        let (session_s, upload_s) =
            (self.queries().next_session_expiry_s(), self.queries().next_upload_expiry_s());
        if !self.can_read() || (session_s <= at_s && now.ms < SESSIONS_KEPT_MS) {
            return false;
        }
        // Rows that are written from now on expire later than this.
        let later_s = at_s.saturating_add(UPLOAD_LIFE_S.min(SESSION_LIFE_S));
        let next_s = session_s.min(upload_s);
        if next_s > at_s {
            self.next_expiry_s = next_s.min(later_s);
        }
        next_s <= at_s
    }

    /// Why changes are refused at the moment.
    pub(super) fn write_trouble(&self) -> Option<String> {
        self.replica.write_trouble()
    }

    /// Proposes a command for a connection's request. The outcome comes by [`ReplicatedState::next_decided`].
    pub(super) fn propose(&mut self, connection: ConnectionToken, command: LogCommand) {
        if let Err(error) = self.send_command(Some(connection), command) {
            self.refused.push_back(DecidedCommand { connection, outcome: Err(error) });
        }
    }

    /// Proposes a command of the tracker itself.
    pub(super) fn propose_housekeeping(&mut self, command: LogCommand) {
        if let Err(error) = self.send_command(None, command) {
            tracing::warn!(%error, "cannot propose to expire old rows");
        }
    }

    /// The next outcome that a connection waits for.
    pub(super) fn next_decided(&mut self, now_ms: u64) -> Option<DecidedCommand> {
        if let Some(refused) = self.refused.pop_front() {
            return Some(refused);
        }
        if self.generation != self.replica.generation() {
            self.retry_view(now_ms);
        }
        while let Ok((number, outcome)) = self.outcomes.try_recv() {
            // The outcome comes after the change was applied, so a view taken now shows it.
            self.refresh_view(now_ms);
            let Some(pending) = self.pending.remove(&number) else { continue };
            if let (Some(command), Ok(Ok(outcome))) = (&pending.for_leases, &outcome) {
                self.leases.follow_command(command, outcome);
            }
            match pending.connection {
                Some(connection) => return Some(DecidedCommand { connection, outcome }),
                None => match outcome {
                    Ok(Ok(_)) => {}
                    Ok(Err(refusal)) => tracing::warn!(%refusal, "the state refused to expire old rows"),
                    Err(error) => tracing::warn!(%error, "old rows were not expired"),
                },
            }
        }
        None
    }

    fn send_command(
        &mut self,
        connection: Option<ConnectionToken>,
        command: LogCommand,
    ) -> Result<(), ProposalError> {
        let number = self.proposed;
        let for_leases = (!matches!(command.action, LogAction::UploadPart { .. })).then(|| command.clone());
        let (sender, waker) = (self.outcome_sender.clone(), Arc::clone(&self.waker));
        self.replica.propose(command, move |outcome| {
            // The channel has room for all commands in flight. The receiver is gone only when the tracker
            // ends.
            if sender.try_send((number, outcome)).is_ok()
                && let Err(error) = waker.wake()
            {
                tracing::error!(%error, "cannot wake the loop");
            }
        })?;
        self.proposed += 1;
        self.pending.insert(number, PendingCommand { connection, for_leases });
        Ok(())
    }

    /// Makes reads fail until the view is replaced.
    #[cfg(test)]
    pub(super) fn fail_reads(&mut self) {
        self.cache.forget();
        self.view.fail();
    }

    /// Makes the next failed read request a new view at once.
    #[cfg(test)]
    pub(super) fn forget_retry(&mut self) {
        self.retried_ms = None;
    }

    /// Replaces a view that failed or is outdated, but not more often than every [`VIEW_RETRY_MS`].
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

    /// Logs that the state cannot be read, unless it was logged recently.
    fn log_unread(&mut self, fault: &ReplicaFault, now_ms: u64) {
        if self.unread_ms.is_none_or(|unread_ms| now_ms >= unread_ms + READ_AGAIN_MS) {
            tracing::error!(%fault, "the state cannot be read; requests are refused until it can be");
        }
        self.unread_ms = Some(now_ms);
    }
}
