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

use crate::replica::{Answer, Fault, Replica, Unproposed, View};
use crate::state::command::{Action, Command};
use crate::state::id::{FileKey, GroupId, SessionId, UserId};
use crate::state::lease::Leases;
use crate::state::queries::{Queries, Session};

use super::known::{Known, Listed};
use super::limits::{OUTCOMES_WAITING, READ_AGAIN_MS, VIEW_RETRY_MS};
use super::slots::ConnectionToken;

/// What came of a command.
pub(super) struct Decided {
    /// The connection whose request it was.
    pub(super) whose: ConnectionToken,
    /// What the machine decided, or why it was not asked.
    pub(super) outcome: Result<Answer, Unproposed>,
}

/// A command on its way.
struct Underway {
    /// The connection that waits for it, if any does.
    whose: Option<ConnectionToken>,
    /// The command, where the leases have to see it.
    seen: Option<Command>,
}

/// The replicated state, and the leader's memory beside it.
pub(super) struct Proposals {
    replica: Replica,
    view: View,
    /// What was read of the view.
    known: Known,
    /// Which opening of the log the view is of.
    generation: u64,
    /// The view is older than an outcome that was handed out.
    is_behind: bool,
    /// When another view was asked for last because this one failed, in milliseconds.
    retried_ms: Option<u64>,
    /// When the state could not be read last, in milliseconds.
    unread_ms: Option<u64>,
    /// Who is online and who holds what so far.
    pub(super) leases: Leases,
    /// Commands on their way, by the order of their proposals.
    underway: BTreeMap<u64, Underway>,
    proposed: u64,
    outcomes: Receiver<(u64, Result<Answer, Unproposed>)>,
    finished: SyncSender<(u64, Result<Answer, Unproposed>)>,
    waker: Arc<Waker>,
    /// Refused at once.
    refused: VecDeque<Decided>,
}

impl Proposals {
    /// The state of a replica, led from `now_ms` on. The waker wakes the loop when an outcome has come.
    ///
    /// # Errors
    /// [`Fault`] when the tables cannot be read.
    pub(super) fn new(replica: Replica, waker: Arc<Waker>, now_ms: u64) -> Result<Proposals, Fault> {
        let (finished, outcomes) = sync_channel(OUTCOMES_WAITING);
        // The number first: of a view that is older than its number nobody would know.
        let generation = replica.generation();
        Ok(Proposals {
            view: replica.view()?,
            generation,
            is_behind: false,
            retried_ms: None,
            unread_ms: None,
            replica,
            known: Known::default(),
            leases: Leases::new(now_ms),
            underway: BTreeMap::new(),
            proposed: 0,
            outcomes,
            finished,
            waker,
            refused: VecDeque::new(),
        })
    }

    /// Changes with the leader, and with each opening of the log.
    pub(super) fn epoch(&self) -> u64 {
        self.replica.epoch()
    }

    /// Questions to the state as it was applied last.
    pub(super) fn queries(&self) -> Queries<'_> {
        Queries::new(&self.view)
    }

    /// A session, if it holds at `at_s`: neither ended nor expired.
    pub(super) fn session(&mut self, session: SessionId, at_s: u64) -> Option<Session> {
        self.known.session(Queries::new(&self.view), session, at_s)
    }

    /// Whether a session holds at `at_s`.
    pub(super) fn holds(&mut self, session: SessionId, at_s: u64) -> bool {
        self.known.holds(Queries::new(&self.view), session, at_s)
    }

    /// Whether a user is a member of a group.
    pub(super) fn is_member(&mut self, group: &GroupId, user: &UserId) -> bool {
        self.known.is_member(Queries::new(&self.view), group, user)
    }

    /// A file, and who holds it completely and has not logged out.
    pub(super) fn file(&mut self, file: &FileKey) -> Option<Rc<Listed>> {
        self.known.file(Queries::new(&self.view), file, || self.view.check().is_ok())
    }

    /// Whether everything that was asked since the last call could be read; else the answers found with it are worth nothing.
    pub(super) fn were_read(&mut self, now_ms: u64) -> bool {
        let read = match self.view.check() {
            Ok(()) => true,
            Err(fault) => {
                self.tell(&fault, now_ms);
                false
            }
        };
        if !read || self.is_behind {
            self.retry(now_ms);
        }
        read
    }

    /// The same so far, in the midst of a request: whether what was not found is not there.
    pub(super) fn can_read(&self) -> bool {
        self.view.check().is_ok()
    }

    /// Proposes a command for a connection's request; the outcome comes by [`Proposals::next_decided`].
    pub(super) fn propose(&mut self, whose: ConnectionToken, command: Command) {
        if let Err(why) = self.send(Some(whose), command) {
            self.refused.push_back(Decided { whose, outcome: Err(why) });
        }
    }

    /// Proposes a command that nobody waits for.
    pub(super) fn propose_unasked(&mut self, command: Command) {
        if let Err(why) = self.send(None, command) {
            tracing::warn!(%why, "housekeeping was not proposed");
        }
    }

    /// The next outcome that somebody waits for.
    pub(super) fn next_decided(&mut self, now_ms: u64) -> Option<Decided> {
        if let Some(refused) = self.refused.pop_front() {
            return Some(refused);
        }
        if self.generation != self.replica.generation() {
            self.retry(now_ms);
        }
        while let Ok((number, outcome)) = self.outcomes.try_recv() {
            // The outcome came after the change was applied, so a view taken now shows it.
            self.refresh(now_ms);
            let Some(underway) = self.underway.remove(&number) else { continue };
            if let (Some(command), Ok(Ok(outcome))) = (&underway.seen, &outcome) {
                self.leases.follow(command, outcome);
            }
            match underway.whose {
                Some(whose) => return Some(Decided { whose, outcome }),
                None => match outcome {
                    Ok(Ok(_)) => {}
                    Ok(Err(refusal)) => tracing::warn!(%refusal, "the state refused housekeeping"),
                    Err(why) => tracing::warn!(%why, "housekeeping was not carried out"),
                },
            }
        }
        None
    }

    fn send(&mut self, whose: Option<ConnectionToken>, command: Command) -> Result<(), Unproposed> {
        let number = self.proposed;
        let seen = (!matches!(command.action, Action::UploadPart { .. })).then(|| command.clone());
        let (finished, waker) = (self.finished.clone(), Arc::clone(&self.waker));
        self.replica.propose(command, move |outcome| {
            // There is room for all that can be under way; the loop is gone only when the tracker ends.
            if finished.try_send((number, outcome)).is_ok()
                && let Err(error) = waker.wake()
            {
                tracing::error!(%error, "the loop cannot be woken");
            }
        })?;
        self.proposed += 1;
        self.underway.insert(number, Underway { whose, seen });
        Ok(())
    }

    /// From now on reads fail, until there is another view.
    #[cfg(test)]
    pub(super) fn fail_reads(&mut self) {
        self.known.forget();
        self.view.fail();
    }

    /// As if the last look at a view that failed were long ago.
    #[cfg(test)]
    pub(super) fn forget_retry(&mut self) {
        self.retried_ms = None;
    }

    /// Asks for another view, since this one is of no use; but not all the time.
    fn retry(&mut self, now_ms: u64) {
        if self.retried_ms.is_none_or(|retried_ms| now_ms >= retried_ms + VIEW_RETRY_MS) {
            self.retried_ms = Some(now_ms);
            self.refresh(now_ms);
        }
    }

    fn refresh(&mut self, now_ms: u64) {
        self.known.forget();
        let generation = self.replica.generation();
        match self.replica.view() {
            Ok(view) => {
                self.generation = generation;
                self.view = view;
                self.is_behind = false;
            }
            Err(fault) => {
                self.is_behind = true;
                self.tell(&fault, now_ms);
            }
        }
    }

    /// Says in the log that the state cannot be read, unless it has just been said.
    fn tell(&mut self, fault: &Fault, now_ms: u64) {
        if self.unread_ms.is_none_or(|unread_ms| now_ms >= unread_ms + READ_AGAIN_MS) {
            tracing::error!(%fault, "the state cannot be read; requests are refused until it can be");
        }
        self.unread_ms = Some(now_ms);
    }
}
