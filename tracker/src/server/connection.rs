//! One client's connection: its bytes in and out, and what is being done for it.
//!
//! Invariants: while `work` is there, no further message is taken; `ending` is never taken back; readiness is kept here,
//! since the kernel announces it once.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::api::codec::{self, BadInput, MessageForm, MessageReader};
use crate::api::limits::{REQUEST_BEFORE_LOGIN_MAX_BYTES, REQUEST_MAX_BYTES};

use super::admission::HeldBytes;
use super::dispatch::Caller;
use super::limits::{
    ANSWER_STALL_MS, DRAIN_WINDOW_BYTES, DRAIN_WINDOW_MS, DRAIN_WINDOWS, REQUEST_STALL_MS,
    SMALL_REQUEST_BYTES, STRANGERS_PAUSE_BYTES, UNSENT_PAUSE_BYTES,
};
use super::work::ActiveRequest;

/// Buffers above this size are given back when they are empty, in bytes.
const KEPT_BUFFER_BYTES: usize = 4 * 1024;

/// The largest buffer that goes from connection to connection, in bytes: a turn's answers to `get_peers` fit.
const SPARE_BUFFER_BYTES: usize = 128 * 1024;

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosePhase {
    /// It goes on.
    Open,
    /// What is unsent goes out first.
    Flushing,
    /// Our side is shut; input is drained.
    Draining,
}

/// What a connection waits for that may never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StallKind {
    /// The rest of a request.
    Request,
    /// The client's taking an answer.
    Answer,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// Bytes came.
    Bytes,
    /// Nothing for now.
    WouldBlock,
    /// The client sends no more.
    End,
}

/// A client's connection.
pub(super) struct ClientConnection {
    /// The socket, to be registered.
    pub(super) socket: TcpStream,
    /// Who is at the other end.
    pub(super) caller: Caller,
    /// The request that is being carried out.
    pub(super) request: Option<ActiveRequest>,
    /// The kernel announced something to read, and it was not all read since.
    pub(super) readable: bool,
    /// What the loop has counted for this connection.
    pub(super) counted_bytes: HeldBytes,
    /// Since when the loop has known half a request of this connection, in milliseconds; kept for strangers.
    pub(super) partial_since_ms: Option<u64>,
    incoming: MessageReader,
    unsent: Vec<u8>,
    sent: usize,
    input_ended: bool,
    close_phase: ClosePhase,
    progress_ms: u64,
    /// When the client's present window for taking answers began, and what it has taken in it.
    window_start_ms: u64,
    window_bytes: u64,
}

impl ClientConnection {
    /// A connection just accepted.
    pub(super) fn new(socket: TcpStream, caller: Caller, now_ms: u64) -> ClientConnection {
        ClientConnection {
            socket,
            caller,
            request: None,
            readable: true,
            counted_bytes: HeldBytes::default(),
            partial_since_ms: None,
            incoming: MessageReader::new(),
            unsent: Vec::new(),
            sent: 0,
            input_ended: false,
            close_phase: ClosePhase::Open,
            progress_ms: now_ms,
            window_start_ms: now_ms,
            window_bytes: 0,
        }
    }

    /// Memory held for this connection, after what nobody needs any more was given back.
    pub(super) fn measure_held(&mut self) -> HeldBytes {
        // Not only with an answer: a request may be under way for long, and blanks have no answer at all.
        if self.incoming.held_bytes() > KEPT_BUFFER_BYTES {
            self.incoming.shrink();
        }
        let (in_work, reserved) =
            self.request.as_ref().map_or((0, 0), |work| (work.held_bytes, work.reserved_bytes));
        // An empty buffer is small and kept; thousands of them are no pressure.
        let input = if self.incoming.buffered_bytes() == 0 { 0 } else { self.incoming.held_bytes() };
        let unsent = if self.unsent.is_empty() { 0 } else { self.unsent.capacity() };
        HeldBytes {
            is_anonymous: self.is_anonymous(),
            input_bytes: input + in_work,
            answer_bytes: unsent + reserved,
        }
    }

    /// Whether the next message may be taken; while `crowded`, only when every answer is sent.
    pub(super) fn takes_messages(&self, crowded: bool) -> bool {
        let most = match (crowded, self.is_anonymous()) {
            (true, _) => 1,
            (false, true) => STRANGERS_PAUSE_BYTES,
            (false, false) => UNSENT_PAUSE_BYTES,
        };
        self.request.is_none() && self.close_phase == ClosePhase::Open && self.unsent_bytes() < most
    }

    fn is_anonymous(&self) -> bool {
        !self.caller.is_logged_in()
    }

    fn unsent_bytes(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// How many bytes more a request may grow by that is small enough to be always read.
    pub(super) fn small_room_bytes(&self) -> usize {
        SMALL_REQUEST_BYTES.saturating_sub(self.incoming.buffered_bytes())
    }

    /// Whether half a request is here, and nothing else is being done.
    pub(super) fn has_partial_request(&self) -> bool {
        self.request.is_none() && self.close_phase == ClosePhase::Open && self.incoming.is_inside_message()
    }

    /// Reading goes on after a pause that was not the client's.
    pub(super) fn note_resumed(&mut self, now_ms: u64) {
        self.progress_ms = now_ms;
    }

    /// The next whole message.
    pub(super) fn next_message(&mut self) -> Result<Option<&[u8]>, BadInput> {
        let limit =
            if self.caller.is_logged_in() { REQUEST_MAX_BYTES } else { REQUEST_BEFORE_LOGIN_MAX_BYTES };
        self.incoming.next_message(limit)
    }

    /// Whether messages can be told apart after one that is no JSON: lengths say so, braces do not.
    pub(super) fn survives_syntax_errors(&self) -> bool {
        self.incoming.form() == Some(MessageForm::Framed)
    }

    /// Reads once, through `scratch`.
    pub(super) fn read(&mut self, scratch: &mut [u8], now_ms: u64) -> io::Result<ReadOutcome> {
        if self.input_ended {
            return Ok(ReadOutcome::End);
        }
        if !self.readable {
            return Ok(ReadOutcome::WouldBlock);
        }
        match self.socket.read(scratch) {
            Ok(0) => {
                self.input_ended = true;
                Ok(ReadOutcome::End)
            }
            Ok(bytes) => {
                self.progress_ms = now_ms;
                if self.close_phase == ClosePhase::Open {
                    self.incoming.extend(&scratch[..bytes]);
                }
                Ok(ReadOutcome::Bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(ReadOutcome::WouldBlock)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(ReadOutcome::Bytes),
            Err(error) => Err(error),
        }
    }

    /// Whether input ended in the middle of a message.
    pub(super) fn ended_inside_message(&self) -> bool {
        self.input_ended && self.incoming.is_inside_message()
    }

    /// Puts an answer behind what is unsent; `spare` is taken in place of an empty buffer that is too small.
    pub(super) fn append_answer(&mut self, json: &[u8], spare: &mut Vec<u8>, now_ms: u64) {
        if self.unsent.is_empty() {
            (self.window_start_ms, self.window_bytes) = (now_ms, 0);
            if self.unsent.capacity() < json.len() && self.unsent.capacity() < spare.capacity() {
                mem::swap(&mut self.unsent, spare);
            }
        }
        let form = self.incoming.form().unwrap_or(MessageForm::Stream);
        codec::append_message(form, json, &mut self.unsent);
        self.progress_ms = now_ms;
    }

    /// Sends what the kernel takes. When that is all, a large buffer becomes the `spare` one: then a connection that asks
    /// again does not make it anew.
    pub(super) fn flush(&mut self, spare: &mut Vec<u8>, now_ms: u64) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            match self.socket.write(&self.unsent[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.sent += bytes;
                    self.window_bytes += bytes as u64;
                    self.progress_ms = now_ms;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        if self.unsent.capacity() > KEPT_BUFFER_BYTES {
            if (spare.capacity()..=SPARE_BUFFER_BYTES).contains(&self.unsent.capacity()) {
                mem::swap(&mut self.unsent, spare);
            }
            if self.unsent.capacity() > KEPT_BUFFER_BYTES {
                self.unsent = Vec::new();
            }
        }
        Ok(())
    }

    /// No message is taken any more; what is unsent still goes out.
    pub(super) fn begin_close(&mut self) {
        if self.close_phase == ClosePhase::Open {
            self.close_phase = ClosePhase::Flushing;
            self.incoming.clear();
        }
    }

    /// Whether the end has begun and everything is sent: then our side can be shut.
    pub(super) fn can_shut_down(&self) -> bool {
        self.close_phase == ClosePhase::Flushing && self.request.is_none() && self.unsent.is_empty()
    }

    /// Shuts our side and drains input from now on.
    pub(super) fn shut_down(&mut self) {
        self.close_phase = ClosePhase::Draining;
        self.incoming.clear();
        if let Err(error) = self.socket.shutdown(Shutdown::Write) {
            tracing::debug!(%error, "the client was gone before its connection was shut");
        }
    }

    /// Whether only input is drained.
    pub(super) fn is_draining(&self) -> bool {
        self.close_phase == ClosePhase::Draining
    }

    /// What the connection waits for that may never come, and when that is to be looked at. While answers wait for room
    /// (`crowded`), a client has to take its own at a rate.
    pub(super) fn stall_deadline(&self, crowded: bool) -> Option<(StallKind, u64)> {
        if !self.unsent.is_empty() {
            let silent_ms = self.progress_ms + ANSWER_STALL_MS;
            // Of much, much is taken: else a few clients keep the room of all for hours.
            let there = self.window_bytes + self.unsent_bytes() as u64;
            let too_slow = crowded && self.window_bytes < DRAIN_WINDOW_BYTES.max(there / DRAIN_WINDOWS);
            let end_ms =
                if too_slow { silent_ms.min(self.window_start_ms + DRAIN_WINDOW_MS) } else { silent_ms };
            return Some((StallKind::Answer, end_ms));
        }
        self.has_partial_request().then_some((StallKind::Request, self.progress_ms + REQUEST_STALL_MS))
    }

    /// Begins the next window for taking answers when the present one is over.
    pub(super) fn advance_window(&mut self, now_ms: u64) {
        if now_ms >= self.window_start_ms + DRAIN_WINDOW_MS {
            (self.window_start_ms, self.window_bytes) = (now_ms, 0);
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
