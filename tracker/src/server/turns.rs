//! A connection's turn: read, take messages, send, and see how it goes on. Bounded, so that everybody has one.

use crate::api::codec::BadInput;
use crate::api::failure::{Failure, FailureCode};
use crate::api::response::Response;

use super::clock::Now;
use super::connection::{Reading, Stall};
use super::event_loop::{Server, Timer};
use super::limits::{DRAIN_MS, MEMORY_MAX_BYTES, READS_PER_TURN, REQUESTS_PER_TURN};
use super::slots::ConnectionToken;

/// How a connection goes on after its turn.
enum After {
    /// It waits for the kernel, or for its work.
    Waits,
    /// There is more to do at once.
    Again,
    /// It waits for memory.
    Starved,
    /// It is over.
    Over,
}

/// What taking the next message came to.
enum Taken {
    Message(Vec<u8>),
    Bad(BadInput),
    None,
}

impl Server {
    /// Gives a connection its turn.
    pub(super) fn turn(&mut self, token: ConnectionToken, now: Now) {
        let mut after = self.take_messages(token, now);
        if !matches!(after, After::Over) && !self.send(token, now) {
            after = After::Over;
        }
        match after {
            After::Waits => {}
            After::Again => _ = self.ready.insert(token),
            After::Starved => self.starved.push(token),
            After::Over => {
                self.close(token, now);
                return;
            }
        }
        self.settle(token, now);
    }

    /// Reads and takes messages until there is nothing, or enough.
    fn take_messages(&mut self, token: ConnectionToken, now: Now) -> After {
        let (mut reads, mut requests) = (0, 0);
        loop {
            let Some(connection) = self.connections.get_mut(token) else { return After::Over };
            if !connection.takes_messages() {
                return if connection.is_draining() { self.drain(token, now) } else { After::Waits };
            }
            if reads == READS_PER_TURN || requests == REQUESTS_PER_TURN {
                return After::Again;
            }
            let taken = match connection.next_message() {
                Ok(Some(text)) => Taken::Message(text.to_vec()),
                Ok(None) => Taken::None,
                Err(bad) => Taken::Bad(bad),
            };
            match taken {
                Taken::Message(text) => {
                    requests += 1;
                    self.start(token, text, now);
                }
                Taken::Bad(bad) => {
                    requests += 1;
                    self.refuse_input(token, bad.failure(), bad.ends_connection(), now);
                }
                Taken::None => {
                    if self.held_bytes > MEMORY_MAX_BYTES && connection.readable {
                        return After::Starved;
                    }
                    reads += 1;
                    match connection.read(&mut self.scratch, now.ms) {
                        Ok(Reading::Bytes) => {}
                        Ok(Reading::Nothing) => return After::Waits,
                        Ok(Reading::End) => self.input_ended(token, now),
                        Err(error) => {
                            tracing::debug!(%error, "a connection broke");
                            return After::Over;
                        }
                    }
                }
            }
        }
    }

    /// The client sends no more. What it has sent is carried out and answered; half a request is refused.
    fn input_ended(&mut self, token: ConnectionToken, now: Now) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.ended_inside_message() {
            let failure = Failure::new(FailureCode::Syntax, "the connection ended inside a request");
            self.refuse_input(token, failure, true, now);
        } else {
            connection.end();
        }
    }

    /// Answers input that is no request.
    fn refuse_input(&mut self, token: ConnectionToken, failure: Failure, ends: bool, now: Now) {
        let response = Response { request_id: None, epoch: self.service.epoch(), result: Err(failure) };
        if let Some(connection) = self.connections.get_mut(token) {
            connection.answer(&response.to_json(), now.ms);
            if ends {
                connection.end();
            }
        }
    }

    /// Reads and drops input after our side was shut.
    fn drain(&mut self, token: ConnectionToken, now: Now) -> After {
        let Some(connection) = self.connections.get_mut(token) else { return After::Over };
        for _ in 0..READS_PER_TURN {
            match connection.read(&mut self.scratch, now.ms) {
                Ok(Reading::Bytes) => {}
                Ok(Reading::Nothing) => return After::Waits,
                Ok(Reading::End) | Err(_) => return After::Over,
            }
        }
        After::Again
    }

    /// Sends what is unsent and shuts our side where that is due; whether the connection lives on.
    fn send(&mut self, token: ConnectionToken, now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(token) else { return false };
        let paused = !connection.takes_messages();
        if let Err(error) = connection.flush(now.ms) {
            tracing::debug!(%error, "a connection broke");
            return false;
        }
        if paused && connection.takes_messages() {
            self.ready.insert(token);
        }
        if connection.can_shut() {
            // Before the client can see the end: then everybody sees that it is gone.
            self.service.closed(&mut connection.caller, now);
            connection.shut();
            self.timers.set(Timer::Drained(token), now.ms + DRAIN_MS);
            self.ready.insert(token);
        }
        true
    }

    /// Notes what the connection holds and what it waits for.
    fn settle(&mut self, token: ConnectionToken, now: Now) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let held_bytes = connection.held_bytes();
        self.held_bytes = self.held_bytes - connection.counted_bytes + held_bytes;
        connection.counted_bytes = held_bytes;
        if let Some((_, at_ms)) = connection.stall()
            && !self.timers.is_set(Timer::Stall(token))
        {
            self.timers.set(Timer::Stall(token), at_ms.max(now.ms));
        }
    }

    /// Sees whether a connection still waits for what it waited for.
    pub(super) fn check_stall(&mut self, token: ConnectionToken, now: Now) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match connection.stall() {
            None => {}
            Some((_, at_ms)) if at_ms > now.ms => self.timers.set(Timer::Stall(token), at_ms),
            Some((Stall::Answer, _)) => self.close(token, now),
            Some((Stall::Request, _)) => {
                let message = "the request stopped half-way and was given up";
                self.refuse_input(token, Failure::new(FailureCode::Timeout, message), true, now);
                self.ready.insert(token);
            }
        }
    }

    /// Drops a connection.
    pub(super) fn close(&mut self, token: ConnectionToken, now: Now) {
        let Some(mut connection) = self.connections.remove(token) else { return };
        self.held_bytes -= connection.counted_bytes;
        for timer in [Timer::Late(token), Timer::Stall(token), Timer::Drained(token)] {
            self.timers.cancel(timer);
        }
        self.ready.remove(&token);
        self.service.closed(&mut connection.caller, now);
        if let Err(error) = self.poll.registry().deregister(&mut connection.socket) {
            tracing::debug!(%error, "a closed connection was not registered");
        }
    }
}
