//! A connection's turn: read, take messages, send, and see how it goes on. Bounded, so that everybody has one.

use crate::api::codec::BadInput;
use crate::api::failure::{FailureCode, RequestFailure};
use crate::api::response::Response;

use super::admission::HeldBytes;
use super::clock::ClockReading;
use super::connection::{ReadOutcome, StallKind};
use super::event_loop::{LoopTimer, Server};
use super::limits::{
    DRAIN_MS, DRAIN_WINDOW_MS, READ_BYTES, READS_PER_TURN, REQUEST_STALL_MS, REQUESTS_PER_TURN,
};
use super::slots::ConnectionToken;

/// How a connection goes on after its turn.
enum TurnEnd {
    /// It waits for the kernel, or for its work.
    Waiting,
    /// There is more to do at once.
    MoreToDo,
    /// It waits for memory.
    AwaitingMemory,
    /// It is over.
    Closed,
}

/// What taking the next message came to.
enum NextMessage {
    Message(Vec<u8>),
    Bad(BadInput),
    None,
}

impl Server {
    /// Gives a connection its turn.
    pub(super) fn turn(&mut self, token: ConnectionToken, now: ClockReading) {
        let mut after = self.take_messages(token, now);
        if !matches!(after, TurnEnd::Closed) && !self.send(token, now) {
            after = TurnEnd::Closed;
        }
        match after {
            TurnEnd::Waiting => {}
            TurnEnd::MoreToDo => _ = self.ready.insert(token),
            TurnEnd::AwaitingMemory => _ = self.starved.insert(token),
            TurnEnd::Closed => {
                self.close(token, now);
                return;
            }
        }
        self.settle(token, now);
    }

    /// Reads and takes messages until there is nothing, or enough.
    fn take_messages(&mut self, token: ConnectionToken, now: ClockReading) -> TurnEnd {
        let (mut reads, mut requests) = (0, 0);
        loop {
            let crowded = self.is_crowded();
            let fasting = self.budgets.input_is_full() && self.fed != Some(token);
            let Some(connection) = self.connections.get_mut(token) else { return TurnEnd::Closed };
            if !connection.takes_messages(crowded) {
                return if connection.is_draining() { self.drain(token, now) } else { TurnEnd::Waiting };
            }
            if reads == READS_PER_TURN || requests == REQUESTS_PER_TURN {
                return TurnEnd::MoreToDo;
            }
            let taken = match connection.next_message() {
                Ok(Some(text)) => NextMessage::Message(text.to_vec()),
                Ok(None) => NextMessage::None,
                Err(bad) => NextMessage::Bad(bad),
            };
            match taken {
                NextMessage::Message(text) => {
                    requests += 1;
                    self.start(token, text, now);
                }
                NextMessage::Bad(bad) => {
                    requests += 1;
                    self.refuse_input(token, bad.failure(), bad.ends_connection(), now);
                }
                NextMessage::None => {
                    let fasting = fasting && connection.caller.is_logged_in();
                    let room = if fasting { connection.small_room_bytes() } else { READ_BYTES };
                    if room == 0 && connection.readable {
                        return TurnEnd::AwaitingMemory;
                    }
                    reads += 1;
                    match connection.read(&mut self.scratch[..room.clamp(1, READ_BYTES)], now.ms) {
                        Ok(ReadOutcome::Bytes) => {}
                        Ok(ReadOutcome::WouldBlock) => return TurnEnd::Waiting,
                        Ok(ReadOutcome::End) => self.input_ended(token, now),
                        Err(error) => {
                            tracing::debug!(%error, "a connection broke");
                            return TurnEnd::Closed;
                        }
                    }
                }
            }
        }
    }

    /// The client sends no more. What it has sent is carried out and answered; half a request is refused.
    fn input_ended(&mut self, token: ConnectionToken, now: ClockReading) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.ended_inside_message() {
            let failure = RequestFailure::new(FailureCode::Syntax, "the connection ended inside a request");
            self.refuse_input(token, failure, true, now);
        } else {
            connection.begin_close();
        }
    }

    /// Answers input that is no request.
    fn refuse_input(
        &mut self,
        token: ConnectionToken,
        failure: RequestFailure,
        ends: bool,
        now: ClockReading,
    ) {
        let response = Response { request_id: None, epoch: self.service.epoch(), result: Err(failure) };
        if let Some(connection) = self.connections.get_mut(token) {
            connection.append_answer(&response.to_json(), &mut self.spare, now.ms);
            if ends {
                connection.begin_close();
            }
        }
    }

    /// Reads and drops input after our side was shut.
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

    /// Sends what is unsent and shuts our side where that is due; whether the connection lives on.
    fn send(&mut self, token: ConnectionToken, now: ClockReading) -> bool {
        let crowded = self.is_crowded();
        let Some(connection) = self.connections.get_mut(token) else { return false };
        let paused = !connection.takes_messages(crowded);
        if let Err(error) = connection.flush(&mut self.spare, now.ms) {
            tracing::debug!(%error, "a connection broke");
            return false;
        }
        if paused && connection.takes_messages(crowded) {
            self.ready.insert(token);
        }
        if connection.can_shut_down() {
            // Before the client can see the end: then everybody sees that it is gone.
            self.service.connection_closed(&mut connection.caller, now);
            connection.shut_down();
            self.timers.set(LoopTimer::DrainEnd(token), now.ms + DRAIN_MS);
            self.ready.insert(token);
        }
        true
    }

    /// Notes what the connection holds and what it waits for.
    pub(super) fn settle(&mut self, token: ConnectionToken, now: ClockReading) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let held = connection.measure_held();
        self.budgets.recount(connection.counted_bytes, held);
        connection.counted_bytes = held;
        let half = held.is_anonymous && connection.has_partial_request();
        match (half, connection.partial_since_ms) {
            (true, None) => {
                connection.partial_since_ms = Some(now.ms);
                self.halves.insert((now.ms, token));
            }
            (false, Some(since_ms)) => {
                connection.partial_since_ms = None;
                self.halves.remove(&(since_ms, token));
            }
            _ => {}
        }
        if self.fed == Some(token) && !connection.has_partial_request() {
            self.fed = None;
        }
        if let Some((stall, at_ms)) = connection.stall_deadline(false)
            && !self.timers.is_set(LoopTimer::StallCheck(token))
        {
            let at_ms = if stall == StallKind::Answer { at_ms.min(now.ms + DRAIN_WINDOW_MS) } else { at_ms };
            self.timers.set(LoopTimer::StallCheck(token), at_ms.max(now.ms));
        }
        if half {
            self.end_oldest_halves(now);
        }
    }

    /// Ends half requests of strangers until what strangers hold fits.
    fn end_oldest_halves(&mut self, now: ClockReading) {
        while self.budgets.anonymous_is_full()
            && let Some((_, token)) = self.halves.pop_first()
        {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            connection.partial_since_ms = None;
            let message = "too many half requests at this moment, and this one was the oldest";
            let failure =
                RequestFailure::new(FailureCode::Busy, message).with_fix("the same again, sent at once");
            self.refuse_input(token, failure, true, now);
            if self.send(token, now) {
                self.settle(token, now);
            } else {
                self.close(token, now);
            }
        }
    }

    /// Whether answers wait for room, or too many bytes of answers wait for their clients.
    fn is_crowded(&self) -> bool {
        self.budgets.answers_are_full() || self.wants_room || !self.parked.is_empty()
    }

    /// Lets starved members read on: all when there is room, else one at a time.
    pub(super) fn feed(&mut self, now: ClockReading) {
        while !self.budgets.input_is_full() || self.fed.is_none() {
            let Some(token) = self.starved.pop_first() else { return };
            let Some(connection) = self.connections.get_mut(token) else { continue };
            connection.note_resumed(now.ms);
            self.ready.insert(token);
            if self.budgets.input_is_full() {
                self.fed = Some(token);
            }
        }
    }

    /// Sees whether a connection still waits for what it waited for.
    pub(super) fn check_stall(&mut self, token: ConnectionToken, now: ClockReading) {
        let crowded = self.is_crowded();
        let Some(connection) = self.connections.get_mut(token) else { return };
        match connection.stall_deadline(crowded) {
            None => {}
            Some((StallKind::Answer, at_ms)) if at_ms > now.ms => {
                connection.advance_window(now.ms);
                self.timers.set(LoopTimer::StallCheck(token), at_ms.min(now.ms + DRAIN_WINDOW_MS));
            }
            Some((StallKind::Request, at_ms)) if at_ms > now.ms => {
                self.timers.set(LoopTimer::StallCheck(token), at_ms)
            }
            Some((StallKind::Answer, _)) => self.close(token, now),
            // Bytes wait to be read: the pause is the tracker's.
            Some((StallKind::Request, _)) if connection.readable => {
                self.timers.set(LoopTimer::StallCheck(token), now.ms + REQUEST_STALL_MS);
            }
            Some((StallKind::Request, _)) => {
                let message = "the request stopped half-way and was given up";
                self.refuse_input(token, RequestFailure::new(FailureCode::Timeout, message), true, now);
                self.ready.insert(token);
            }
        }
    }

    /// Drops a connection.
    pub(super) fn close(&mut self, token: ConnectionToken, now: ClockReading) {
        let Some(mut connection) = self.connections.remove(token) else { return };
        self.budgets.recount(connection.counted_bytes, HeldBytes::default());
        if let Some(since_ms) = connection.partial_since_ms {
            self.halves.remove(&(since_ms, token));
        }
        self.starved.remove(&token);
        self.parked.retain(|parked| *parked != token);
        self.lists.retain(|listed| *listed != token);
        self.queued.retain(|queued| *queued != token);
        if self.fed == Some(token) {
            self.fed = None;
        }
        for timer in
            [LoopTimer::DelayedAnswer(token), LoopTimer::StallCheck(token), LoopTimer::DrainEnd(token)]
        {
            self.timers.cancel(timer);
        }
        self.ready.remove(&token);
        self.service.connection_closed(&mut connection.caller, now);
        if let Err(error) = self.poll.registry().deregister(&mut connection.socket) {
            tracing::debug!(%error, "a closed connection was not registered");
        }
    }
}
