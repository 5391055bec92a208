//! The seam where replication stands: commands go in, outcomes come out later, in order.
//!
//! Invariant: this is the only place that applies a command, and every command applied is shown to the leases. For now the
//! one machine is here and in memory, so an outcome is ready as soon as it is asked for; callers must not rely on that.

use std::collections::VecDeque;

use crate::state::command::Command;
use crate::state::lease::Leases;
use crate::state::machine::Machine;
use crate::state::memory::MemoryTables;
use crate::state::outcome::{Outcome, Refusal};
use crate::state::queries::Queries;

use super::slots::ConnectionToken;

/// What came of a command.
pub(super) struct Decided {
    /// The connection whose request it was.
    pub(super) whose: ConnectionToken,
    /// What the machine decided.
    pub(super) outcome: Result<Outcome, Refusal>,
}

/// The replicated state, and the leader's memory beside it.
pub(super) struct Proposals {
    machine: Machine<MemoryTables>,
    /// Who is online and who holds what so far.
    pub(super) leases: Leases,
    decided: VecDeque<Decided>,
}

impl Proposals {
    /// An empty state, led from `now_ms` on.
    pub(super) fn new(now_ms: u64) -> Proposals {
        Proposals {
            machine: Machine::new(MemoryTables::default()),
            leases: Leases::new(now_ms),
            decided: VecDeque::new(),
        }
    }

    /// Questions to the state as it is applied here.
    pub(super) fn queries(&self) -> Queries<'_> {
        self.machine.queries()
    }

    /// The state and the leases side by side, for answers that take both.
    pub(super) fn both(&mut self) -> (Queries<'_>, &mut Leases) {
        (self.machine.queries(), &mut self.leases)
    }

    /// Proposes a command for a connection's request; the outcome comes by [`Proposals::next_decided`].
    pub(super) fn propose(&mut self, whose: ConnectionToken, command: &Command) {
        let outcome = self.decide(command);
        self.decided.push_back(Decided { whose, outcome });
    }

    /// Proposes a command that nobody waits for.
    pub(super) fn propose_unasked(&mut self, command: &Command) {
        if let Err(refusal) = self.decide(command) {
            tracing::warn!(%refusal, "the state refused housekeeping");
        }
    }

    /// The next outcome, in the order of the proposals.
    pub(super) fn next_decided(&mut self) -> Option<Decided> {
        self.decided.pop_front()
    }

    fn decide(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        let outcome = self.machine.apply(command);
        if let Ok(outcome) = &outcome {
            self.leases.follow(command, outcome);
        }
        outcome
    }
}
