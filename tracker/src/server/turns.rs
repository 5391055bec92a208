//! The turns of connections: each reads, takes requests and sends, within bounds, so that every connection
//! gets its turn.
//!
//! Invariant: the kernel announces readiness once (edge-triggered), so a connection that stops early stays in
//! `ready` or among the starved.

use crate::api::codec::BadInput;
use crate::api::failure::{FailureCode, RequestFailure};
use crate::api::response::Response;

use super::clock::ClockReading;
use super::connection::{ReadOutcome, StallKind};
use super::connections::{Connections, LoopTimer};
use super::limits::{DRAIN_MS, READ_BYTES, READS_PER_TURN, REQUEST_STALL_MS, REQUESTS_PER_TURN};
use super::places::PlaceLimits;
use super::requests::RequestPipeline;
use super::slots::ConnectionToken;

/// How a connection goes on after its turn.
enum TurnEnd {
    /// It waits for the kernel, or for its request.
    Waiting,
    /// There is more to do at once.
    MoreToDo,
    /// It waits for input memory.
    AwaitingMemory,
    /// It is to be closed.
    Closed,
}

enum NextMessage {
    Complete(Vec<u8>),
    Bad(BadInput),
    Missing,
}

/// The open connections and their requests.
pub(super) struct TurnScheduler {
    pub(super) connections: Connections,
    pub(super) requests: RequestPipeline,
    /// Every read lands here first.
    scratch: Vec<u8>,
}

impl TurnScheduler {
    pub(super) fn new(requests: RequestPipeline, limits: PlaceLimits) -> TurnScheduler {
        TurnScheduler { connections: Connections::new(limits), requests, scratch: vec![0; READ_BYTES] }
    }

    /// Gives a turn to each connection that has something to do, then to what waited for room.
    pub(super) fn run_round(&mut self, now: ClockReading) {
        for token in std::mem::take(&mut self.connections.ready) {
            self.run_turn(token, now);
        }
        self.feed_starved(now);
        self.connections.admission.start_round();
        self.requests.begin_parked(&mut self.connections, now);
        self.requests.build_list_page(&mut self.connections, now);
        self.close_excess(now);
    }

    /// Closes connections until their number fits the limits.
    pub(super) fn close_excess(&mut self, now: ClockReading) {
        while let Some(token) = self.connections.places.next_to_close() {
            self.close(token, now);
        }
    }

    /// Continues the requests whose password, large body or decision is ready.
    pub(super) fn take_results(&mut self, now: ClockReading) {
        self.requests.take_results(&mut self.connections, now);
    }

    fn run_turn(&mut self, token: ConnectionToken, now: ClockReading) {
        let mut end = self.take_messages(token, now);
        if !matches!(end, TurnEnd::Closed) && !self.send(token, now) {
            end = TurnEnd::Closed;
        }
        match end {
            TurnEnd::Waiting => {}
            TurnEnd::MoreToDo => _ = self.connections.ready.insert(token),
            TurnEnd::AwaitingMemory => self.connections.admission.starve(token),
            TurnEnd::Closed => return self.close(token, now),
        }
        self.connections.settle(token, now);
        self.end_oldest_partial(now);
    }

    /// Reads and takes messages until there are none, or the turn is used up.
    fn take_messages(&mut self, token: ConnectionToken, now: ClockReading) -> TurnEnd {
        let (mut reads, mut requests) = (0, 0);
        loop {
            let Connections { slots, admission, .. } = &mut self.connections;
            let Some(connection) = slots.get_mut(token) else { return TurnEnd::Closed };
            if !connection.takes_messages(admission.is_crowded()) {
                return if connection.is_draining() { self.drain(token, now) } else { TurnEnd::Waiting };
            }
            if reads == READS_PER_TURN || requests == REQUESTS_PER_TURN {
                return TurnEnd::MoreToDo;
            }
            let message = match connection.next_message() {
                Ok(Some(text)) => NextMessage::Complete(text.to_vec()),
                Ok(None) => NextMessage::Missing,
                Err(bad) => NextMessage::Bad(bad),
            };
            match message {
                NextMessage::Complete(text) => {
                    requests += 1;
                    self.requests.start(&mut self.connections, token, text, now);
                }
                NextMessage::Bad(bad) => {
                    requests += 1;
                    self.refuse_input(token, bad.failure(), bad.ends_connection(), now);
                }
                NextMessage::Missing => {
                    let is_restricted = connection.caller.is_logged_in() && admission.is_restricted(token);
                    let room = if is_restricted { connection.small_room_bytes() } else { READ_BYTES };
                    if room == 0 && connection.readable {
                        return TurnEnd::AwaitingMemory;
                    }
                    reads += 1;
                    match connection.read(&mut self.scratch[..room.clamp(1, READ_BYTES)], now.ms) {
                        Ok(ReadOutcome::Bytes) => {}
                        Ok(ReadOutcome::WouldBlock) => return TurnEnd::Waiting,
                        Ok(ReadOutcome::End) => self.end_input(token, now),
                        Err(error) => {
                            tracing::debug!(%error, "reading from a connection failed");
                            return TurnEnd::Closed;
                        }
                    }
                }
            }
        }
    }

    /// The client sends no more. Complete requests are still carried out and answered; a partial one is
    /// refused.
    fn end_input(&mut self, token: ConnectionToken, now: ClockReading) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.ended_inside_message() {
            let failure = RequestFailure::new(FailureCode::Syntax, "the connection ended inside a request");
            self.refuse_input(token, failure, true, now);
        } else {
            connection.begin_close();
        }
    }

    /// Answers input that is not a request.
    fn refuse_input(
        &mut self,
        token: ConnectionToken,
        failure: RequestFailure,
        ends: bool,
        now: ClockReading,
    ) {
        let epoch = self.requests.service.epoch();
        let response = Response { request_id: None, epoch, result: Err(failure) };
        let Connections { slots, spare, .. } = &mut self.connections;
        if let Some(connection) = slots.get_mut(token) {
            connection.append_answer(&response.to_json(), spare, now.ms);
            if ends {
                connection.begin_close();
            }
        }
    }

    /// Reads and drops input after the tracker's side was shut down.
    fn drain(&mut self, token: ConnectionToken, now: ClockReading) -> TurnEnd {
        let Some(connection) = self.connections.get_mut(token) else { return TurnEnd::Closed };
        for _ in 0..READS_PER_TURN {
            match connection.read(&mut self.scratch, now.ms) {
                Ok(ReadOutcome::Bytes) => {}
                Ok(ReadOutcome::WouldBlock) => return TurnEnd::Waiting,
                Ok(ReadOutcome::End) | Err(_) => return TurnEnd::Closed,
            }
        }
        TurnEnd::MoreToDo
    }

    /// Sends what is unsent, and shuts the tracker's side down where that is due. Gives false when the
    /// connection is to be closed.
    fn send(&mut self, token: ConnectionToken, now: ClockReading) -> bool {
        let Connections { slots, admission, spare, ready, timers, .. } = &mut self.connections;
        let is_crowded = admission.is_crowded();
        let Some(connection) = slots.get_mut(token) else { return false };
        let was_paused = !connection.takes_messages(is_crowded);
        if let Err(error) = connection.flush(spare, now.ms) {
            tracing::debug!(%error, "sending on a connection failed");
            return false;
        }
        if was_paused && connection.takes_messages(is_crowded) {
            ready.insert(token);
        }
        if connection.can_shut_down() {
            // Before the client can see the end, so that every later answer shows its shares as offline.
            self.requests.service.connection_closed(&mut connection.caller, now);
            connection.shut_down();
            timers.set(LoopTimer::DrainEnd(token), now.ms + DRAIN_MS);
            ready.insert(token);
        }
        true
    }

    /// Refuses the oldest partial requests of anonymous clients until what those clients hold fits their
    /// budget.
    fn end_oldest_partial(&mut self, now: ClockReading) {
        while let Some(token) = self.connections.admission.next_to_end() {
            let message = "too many incomplete requests at the moment, and this one was the oldest";
            let failure =
                RequestFailure::new(FailureCode::Busy, message).with_fix("send the whole request at once");
            self.refuse_input(token, failure, true, now);
            if self.send(token, now) {
                self.connections.settle(token, now);
            } else {
                self.close(token, now);
            }
        }
    }

    /// Lets starved clients read on.
    fn feed_starved(&mut self, now: ClockReading) {
        while let Some(token) = self.connections.admission.next_fed() {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.note_resumed(now.ms);
                self.connections.ready.insert(token);
            }
        }
    }

    /// Ends a connection whose client has neither completed its request nor taken its answer in time.
    pub(super) fn check_stall(&mut self, token: ConnectionToken, now: ClockReading) {
        let connections = &mut self.connections;
        let Some((stall, at_ms)) = connections.stall_deadline(token, connections.admission.is_crowded())
        else {
            return;
        };
        let Some(connection) = connections.get_mut(token) else { return };
        match stall {
            _ if at_ms > now.ms => {
                connection.advance_window(now.ms);
                connections.check_stall_at(token, stall, at_ms, now);
            }
            StallKind::Answer | StallKind::Silence => self.close(token, now),
            // Unread bytes wait in the socket: the tracker caused the pause.
            StallKind::Request if connection.readable => {
                connections.timers.set(LoopTimer::StallCheck(token), now.ms + REQUEST_STALL_MS);
            }
            StallKind::Request => {
                let message = "the request was not completed in time";
                self.refuse_input(token, RequestFailure::new(FailureCode::Timeout, message), true, now);
                self.connections.ready.insert(token);
            }
        }
    }

    /// Closes a connection. Its socket leaves the poll with its descriptor.
    pub(super) fn close(&mut self, token: ConnectionToken, now: ClockReading) {
        let Some(mut connection) = self.connections.remove(token) else { return };
        self.requests.forget(token);
        self.requests.service.connection_closed(&mut connection.caller, now);
    }
}
