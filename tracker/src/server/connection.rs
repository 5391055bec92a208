//! One client's connection: its socket, its buffers for input and output, and the request that is being
//! carried out.
//!
//! Invariants: while there is a `request`, no further message is taken; `close_phase` only goes forward;
//! `readable` is kept until a read would block, since the kernel announces readiness once.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::api::codec::{self, BadInput, MessageForm, MessageReader};
use crate::api::limits::{REQUEST_BEFORE_LOGIN_MAX_BYTES, REQUEST_MAX_BYTES};

use super::active_request::ActiveRequest;
use super::admission::HeldBytes;
use super::dispatch::Caller;
use super::limits::{
    ANONYMOUS_PAUSE_BYTES, ANSWER_STALL_MS, DRAIN_WINDOW_BYTES, DRAIN_WINDOW_MS, DRAIN_WINDOWS,
    KEPT_BUFFER_BYTES, REQUEST_STALL_MS, SMALL_REQUEST_BYTES, SPARE_BUFFER_BYTES, UNSENT_PAUSE_BYTES,
};

/// How far a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosePhase {
    Open,
    /// Unsent answers are sent first.
    Flushing,
    /// The tracker's side is shut down; input is read and dropped.
    Draining,
}

/// What a connection waits for, with a time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StallKind {
    Request,
    /// The client to take its answers.
    Answer,
    /// A client without a session to complete a request.
    Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    Bytes,
    WouldBlock,
    End,
}

pub(super) struct ClientConnection {
    pub(super) socket: TcpStream,
    pub(super) caller: Caller,
    pub(super) request: Option<ActiveRequest>,
    /// The kernel announced input, and no read has blocked since.
    pub(super) readable: bool,
    /// What the admission has counted for this connection.
    pub(super) counted_bytes: HeldBytes,
    incoming: MessageReader,
    unsent: Vec<u8>,
    sent: usize,
    input_ended: bool,
    close_phase: ClosePhase,
    progress_ms: u64,
    /// Start of the client's current window for taking answers, in milliseconds; and the bytes taken in it.
    window_start_ms: u64,
    window_bytes: u64,
}

impl ClientConnection {
    pub(super) fn new(socket: TcpStream, caller: Caller, now_ms: u64) -> ClientConnection {
        ClientConnection {
            socket,
            caller,
            request: None,
            readable: true,
            counted_bytes: HeldBytes::default(),
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

    /// Frees unused input memory, and measures what the connection holds.
    pub(super) fn measure_held(&mut self) -> HeldBytes {
        // Not only after an answer: a request may take long, and white space between requests has no answer.
        if self.incoming.held_bytes() > KEPT_BUFFER_BYTES {
            self.incoming.shrink();
        }
        let (in_work, reserved) =
            self.request.as_ref().map_or((0, 0), |work| (work.held_bytes, work.reserved_bytes));
        // An empty buffer is small and kept; it is not counted.
        let input = if self.incoming.buffered_bytes() == 0 { 0 } else { self.incoming.held_bytes() };
        let unsent = if self.unsent.is_empty() { 0 } else { self.unsent.capacity() };
        HeldBytes {
            is_anonymous: self.is_anonymous(),
            input_bytes: input + in_work,
            answer_bytes: unsent + reserved,
        }
    }

    /// Whether the next message may be taken. While the tracker `is_crowded`, only when every answer was
    /// sent.
    pub(super) fn takes_messages(&self, is_crowded: bool) -> bool {
        let most = match (is_crowded, self.is_anonymous()) {
            (true, _) => 1,
            (false, true) => ANONYMOUS_PAUSE_BYTES,
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

    /// How many more bytes may be read of a request that stays small.
    pub(super) fn small_room_bytes(&self) -> usize {
        SMALL_REQUEST_BYTES.saturating_sub(self.incoming.buffered_bytes())
    }

    /// Whether part of a request was received, and no other request is being carried out.
    pub(super) fn has_partial_request(&self) -> bool {
        self.request.is_none() && self.close_phase == ClosePhase::Open && self.incoming.is_inside_message()
    }

    /// Reading continues after a pause that the tracker caused.
    pub(super) fn note_resumed(&mut self, now_ms: u64) {
        self.progress_ms = now_ms;
    }

    pub(super) fn next_message(&mut self) -> Result<Option<&[u8]>, BadInput> {
        let limit =
            if self.caller.is_logged_in() { REQUEST_MAX_BYTES } else { REQUEST_BEFORE_LOGIN_MAX_BYTES };
        self.incoming.next_message(limit)
    }

    /// Whether the next message can be found after one that is not JSON: by lengths it can, by braces not.
    pub(super) fn survives_syntax_errors(&self) -> bool {
        self.incoming.form() == Some(MessageForm::Framed)
    }

    /// Reads once, by way of `scratch`.
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

    pub(super) fn ended_inside_message(&self) -> bool {
        self.input_ended && self.incoming.is_inside_message()
    }

    /// Appends an answer to the unsent bytes. An empty buffer that is too small is swapped for `spare`.
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

    /// Sends what the kernel takes. When everything is sent, a large buffer becomes `spare`, so that the next
    /// answer need not allocate it again.
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

    /// Takes no more messages; unsent answers are still sent.
    pub(super) fn begin_close(&mut self) {
        if self.close_phase == ClosePhase::Open {
            self.close_phase = ClosePhase::Flushing;
            self.incoming.clear();
        }
    }

    pub(super) fn can_shut_down(&self) -> bool {
        self.close_phase == ClosePhase::Flushing && self.request.is_none() && self.unsent.is_empty()
    }

    /// Shuts the tracker's side down, and drains input from now on.
    pub(super) fn shut_down(&mut self) {
        self.close_phase = ClosePhase::Draining;
        self.incoming.clear();
        if let Err(error) = self.socket.shutdown(Shutdown::Write) {
            tracing::debug!(%error, "the client closed its connection first");
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.close_phase == ClosePhase::Draining
    }

    /// What the connection waits for, and the time by which it must have come, in milliseconds. While the
    /// tracker `is_crowded`, a client must take its answers at a minimum rate.
    pub(super) fn stall_deadline(&self, is_crowded: bool) -> Option<(StallKind, u64)> {
        if !self.unsent.is_empty() {
            let silent_ms = self.progress_ms + ANSWER_STALL_MS;
            // The rate grows with the answer, or a few clients could keep the room of all for hours.
            let total_bytes = self.window_bytes + self.unsent_bytes() as u64;
            let min_bytes = DRAIN_WINDOW_BYTES.max(total_bytes / DRAIN_WINDOWS);
            let is_slow = is_crowded && self.window_bytes < min_bytes;
            let window_end_ms = self.window_start_ms + DRAIN_WINDOW_MS;
            let end_ms = if is_slow { silent_ms.min(window_end_ms) } else { silent_ms };
            return Some((StallKind::Answer, end_ms));
        }
        self.has_partial_request().then_some((StallKind::Request, self.progress_ms + REQUEST_STALL_MS))
    }

    /// Starts the next window for taking answers when the current one is over.
    pub(super) fn advance_window(&mut self, now_ms: u64) {
        if now_ms >= self.window_start_ms + DRAIN_WINDOW_MS {
            (self.window_start_ms, self.window_bytes) = (now_ms, 0);
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
