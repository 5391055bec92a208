//! The open connections: owns their sockets, the set of those with work to do at once, the loop's timers, and
//! the admission.
//!
//! Invariant: a closed connection is in no set, has no timer and is counted in no budget.

use std::collections::BTreeSet;

use super::active_request::{ActiveRequest, RequestStage};
use super::admission::RequestAdmission;
use super::clock::ClockReading;
use super::connection::{ClientConnection, StallKind};
use super::limits::{DRAIN_WINDOW_MS, STRANGER_SILENCE_MIN_MS};
use super::places::{PlaceLimits, PlaceTable};
use super::slots::{ConnectionToken, SlotMap};
use super::timers::TimerQueue;

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LoopTimer {
    /// Check whether a connection still waits for its client.
    StallCheck(ConnectionToken),
    /// Stop draining input and close.
    DrainEnd(ConnectionToken),
    /// Try again to accept connections.
    AcceptRetry,
    /// Drop expired state.
    Sweep,
}

pub(super) struct Connections {
    pub(super) slots: SlotMap<ClientConnection>,
    /// Connections that get a turn in the next round of the loop.
    pub(super) ready: BTreeSet<ConnectionToken>,
    pub(super) timers: TimerQueue<LoopTimer>,
    pub(super) admission: RequestAdmission,
    pub(super) places: PlaceTable,
    /// One buffer for answers, lent to one connection after another.
    pub(super) spare: Vec<u8>,
}

impl Connections {
    pub(super) fn new(limits: PlaceLimits) -> Connections {
        Connections {
            slots: SlotMap::new(),
            ready: BTreeSet::new(),
            timers: TimerQueue::new(),
            admission: RequestAdmission::new(),
            places: PlaceTable::new(limits),
            spare: Vec::new(),
        }
    }

    pub(super) fn get_mut(&mut self, token: ConnectionToken) -> Option<&mut ClientConnection> {
        self.slots.get_mut(token)
    }

    /// The request that is being carried out on a connection.
    pub(super) fn request_mut(&mut self, token: ConnectionToken) -> Option<&mut ActiveRequest> {
        self.slots.get_mut(token)?.request.as_mut()
    }

    pub(super) fn wait_for(&mut self, token: ConnectionToken, stage: RequestStage) {
        if let Some(request) = self.request_mut(token) {
            request.wait_for(stage);
        }
    }

    pub(super) fn take_stage(&mut self, token: ConnectionToken) -> Option<RequestStage> {
        self.request_mut(token).map(ActiveRequest::take_stage)
    }

    pub(super) fn finish_request(&mut self, token: ConnectionToken, json: &[u8], now: ClockReading) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.request = None;
            connection.append_answer(json, &mut self.spare, now.ms);
        }
    }

    /// Counts what a connection holds now, and sets the timer for what it waits for. To be called after each
    /// change.
    pub(super) fn settle(&mut self, token: ConnectionToken, now: ClockReading) {
        let Some(connection) = self.slots.get_mut(token) else { return };
        let held = connection.measure_held();
        self.admission.recount(connection.counted_bytes, held);
        connection.counted_bytes = held;
        self.admission.note_partial(token, connection.has_partial_request(), held.is_anonymous, now.ms);
        self.places.set_user(token, connection.caller.user());
        if let Some((stall, at_ms)) = self.stall_deadline(token, false) {
            self.check_stall_at(token, stall, at_ms, now);
        }
    }

    /// What a connection waits for, and the time by which it must have come, in milliseconds. See
    /// [`ClientConnection::stall_deadline`].
    pub(super) fn stall_deadline(
        &self,
        token: ConnectionToken,
        is_crowded: bool,
    ) -> Option<(StallKind, u64)> {
        let connection = self.slots.get(token)?;
        let stall = connection.stall_deadline(is_crowded);
        if connection.request.is_some() {
            return stall;
        }
        let silence = self.places.silence_end_ms(token).map(|at_ms| (StallKind::Silence, at_ms));
        stall.into_iter().chain(silence).min_by_key(|(_, at_ms)| *at_ms)
    }

    /// Sets the timer for the next check of a connection, unless an earlier one is set. Deadlines of answers and of
    /// silence may move up meanwhile, so those are checked in between.
    pub(super) fn check_stall_at(
        &mut self,
        token: ConnectionToken,
        stall: StallKind,
        at_ms: u64,
        now: ClockReading,
    ) {
        let at_ms = match stall {
            StallKind::Request => at_ms,
            StallKind::Answer => at_ms.min(now.ms + DRAIN_WINDOW_MS),
            StallKind::Silence => at_ms.min(now.ms + STRANGER_SILENCE_MIN_MS),
        };
        let timer = LoopTimer::StallCheck(token);
        if self.timers.deadline_ms(timer).is_none_or(|set_ms| at_ms < set_ms) {
            self.timers.set(timer, at_ms.max(now.ms));
        }
    }

    /// Takes a connection out. Dropping it closes its socket.
    pub(super) fn remove(&mut self, token: ConnectionToken) -> Option<ClientConnection> {
        let connection = self.slots.remove(token)?;
        self.admission.forget(token, connection.counted_bytes);
        self.places.forget(token);
        let timers = [LoopTimer::StallCheck(token), LoopTimer::DrainEnd(token)];
        timers.into_iter().for_each(|timer| self.timers.cancel(timer));
        self.ready.remove(&token);
        Some(connection)
    }
}
