//! Splits a connection's bytes into the texts of single messages, and frames texts for sending.
//!
//! The first byte decides the form for the whole connection. [`MessageReader`] takes bytes cut anywhere and gives one
//! message after the other. It holds at most the limit, the caller's last piece of input and what was pipelined behind. A
//! message that is refused for its size or depth is skipped, and the connection goes on.

use super::failure::{FailureCode, RequestFailure};
use super::limits::{DEPTH_MAX, SKIP_MAX_BYTES};
use super::scan::{ObjectScanner, ScanResult};

/// Bytes of a frame's length; part of the wire format.
const LENGTH_BYTES: usize = 8;

/// How messages are delimited on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageForm {
    /// JSON objects one after the other; each answer is one line.
    Stream,
    /// An 8-byte big-endian length before each JSON object, as in the original protocol.
    Framed,
}

/// Why a message is refused before it is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInput {
    /// A TLS handshake on a tracker without a certificate.
    #[error("this tracker has no certificate: TLS is not configured")]
    Tls,
    /// A link from another tracker; this tracker accepts none.
    #[error("links between trackers are not configured on this tracker")]
    Link,
    /// The first byte starts no known form.
    #[error(
        "byte 0x{0:02x} starts no form of this protocol: send JSON objects, or 8-byte lengths before them"
    )]
    Form(u8),
    /// A request does not start with an object.
    #[error("a request is a JSON object and starts with {{, not with byte 0x{0:02x}")]
    NotAnObject(u8),
    /// A frame is empty or holds something else than one object.
    #[error("a frame holds exactly one JSON object")]
    Frame,
    /// Nested too deeply.
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Longer than the limit; skipped.
    #[error("longer than the {limit} bytes that a request may have here")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Too long even to be skipped.
    #[error("longer than {SKIP_MAX_BYTES} bytes, the most that is skipped here")]
    Endless,
}

impl BadInput {
    /// Whether the stream cannot be followed any further: the server answers and closes.
    #[must_use]
    pub fn ends_connection(self) -> bool {
        match self {
            BadInput::Frame | BadInput::TooDeep | BadInput::TooLarge { .. } => false,
            BadInput::Tls
            | BadInput::Link
            | BadInput::Form(_)
            | BadInput::NotAnObject(_)
            | BadInput::Endless => true,
        }
    }

    /// The failure to send to the client.
    #[must_use]
    pub fn failure(self) -> RequestFailure {
        let code = match self {
            BadInput::Tls | BadInput::Link | BadInput::Form(_) => FailureCode::Protocol,
            BadInput::NotAnObject(_) | BadInput::Frame => FailureCode::Syntax,
            BadInput::TooDeep => FailureCode::BadRequest,
            BadInput::TooLarge { .. } | BadInput::Endless => FailureCode::TooLarge,
        };
        RequestFailure::new(code, self.to_string())
    }
}

/// Splits a connection's bytes into messages.
#[derive(Debug, Default)]
pub struct MessageReader {
    form: Option<MessageForm>,
    buffer: Vec<u8>,
    /// Bytes before this position were consumed.
    start: usize,
    /// Bytes before this position were scanned; stream form only.
    scanned: usize,
    scanner: ObjectScanner,
    /// The rest of a refused message, still to be skipped.
    skip: Option<SkippedMessage>,
}

#[derive(Clone, Copy, Debug)]
enum SkippedMessage {
    /// Up to the end of the object that the scanner is in, of which this many bytes were skipped.
    Object(u64),
    /// This many bytes more.
    Frame(u64),
}

impl MessageReader {
    /// A reader before the first byte.
    #[must_use]
    pub fn new() -> MessageReader {
        MessageReader::default()
    }

    /// The form, known after the first byte.
    #[must_use]
    pub fn form(&self) -> Option<MessageForm> {
        self.form
    }

    /// Adds received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        assert!(self.start <= self.scanned, "scanning starts at a message");
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes received and not consumed yet.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Frees the buffer if it holds nothing.
    pub fn shrink(&mut self) {
        if self.start == self.buffer.len() {
            *self = MessageReader {
                form: self.form,
                skip: self.skip,
                scanner: self.scanner,
                ..MessageReader::default()
            };
        }
    }

    /// Drops all buffered input. The form stays, since answers need it.
    pub fn clear(&mut self) {
        *self = MessageReader { form: self.form, ..MessageReader::default() };
    }

    /// Whether the bytes so far end inside a message.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.skip.is_some() || self.buffer[self.start..].iter().any(|byte| !byte.is_ascii_whitespace())
    }

    /// The text of the next message of at most `limit` bytes; `None` until it has arrived whole.
    ///
    /// # Errors
    /// [`BadInput`] for this message. Unless it [ends the connection](BadInput::ends_connection), the next call continues
    /// with the next message.
    pub fn next_message(&mut self, limit: usize) -> Result<Option<&[u8]>, BadInput> {
        let Some(form) = self.detect_form()? else { return Ok(None) };
        if !self.skip_rest()? {
            return Ok(None);
        }
        let found = match form {
            MessageForm::Stream => self.next_object(limit)?,
            MessageForm::Framed => self.next_frame(limit)?,
        };
        assert!(found.is_none_or(|(from, to)| to - from <= limit), "a message longer than {limit} bytes");
        Ok(found.map(|(from, to)| &self.buffer[from..to]))
    }

    fn detect_form(&mut self) -> Result<Option<MessageForm>, BadInput> {
        if self.form.is_none() {
            self.form = match self.buffer.first() {
                None => None,
                Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => Some(MessageForm::Stream),
                Some(0x00) => Some(MessageForm::Framed),
                Some(0x16) => return Err(BadInput::Tls),
                Some(b'T') => return Err(BadInput::Link),
                Some(other) => return Err(BadInput::Form(*other)),
            };
        }
        Ok(self.form)
    }

    /// Skips the rest of a refused message; true when it is passed.
    fn skip_rest(&mut self) -> Result<bool, BadInput> {
        let rest = &self.buffer[self.start..];
        let (passed, left) = match self.skip {
            None => return Ok(true),
            Some(SkippedMessage::Frame(left)) => {
                let passed = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - passed as u64;
                (passed, (left > 0).then_some(SkippedMessage::Frame(left)))
            }
            Some(SkippedMessage::Object(behind)) => match self.scanner.scan(rest) {
                ScanResult::Ended(at) => (at, None),
                ScanResult::Open => (rest.len(), Some(SkippedMessage::Object(behind + rest.len() as u64))),
            },
        };
        self.consume(passed);
        self.skip = left;
        match left {
            None => Ok(true),
            Some(SkippedMessage::Object(behind)) if behind > SKIP_MAX_BYTES => Err(BadInput::Endless),
            Some(_) => Ok(false),
        }
    }

    /// Marks `bytes` more as consumed; the next message starts behind them.
    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.buffer.len(), "more bytes consumed than received");
        self.scanned = self.start;
    }

    fn next_object(&mut self, limit: usize) -> Result<Option<(usize, usize)>, BadInput> {
        if self.scanned == self.start {
            let rest = &self.buffer[self.start..];
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let first = rest.get(blank).copied();
            self.consume(blank);
            self.scanner = ObjectScanner::default();
            match first {
                None => return Ok(None),
                Some(b'{') => {}
                Some(other) => return Err(BadInput::NotAnObject(other)),
            }
        }
        let ended = self.scanner.scan(&self.buffer[self.scanned..]);
        let end = match ended {
            ScanResult::Ended(at) => self.scanned + at,
            ScanResult::Open => self.buffer.len(),
        };
        self.scanned = end;
        let from = self.start;
        if end - from > limit {
            self.consume(end - from);
            self.skip = (ended == ScanResult::Open).then_some(SkippedMessage::Object((end - from) as u64));
            return Err(BadInput::TooLarge { limit });
        }
        if ended == ScanResult::Open {
            return Ok(None);
        }
        self.consume(end - from);
        if self.scanner.is_too_deep() { Err(BadInput::TooDeep) } else { Ok(Some((from, end))) }
    }

    fn next_frame(&mut self, limit: usize) -> Result<Option<(usize, usize)>, BadInput> {
        let rest = &self.buffer[self.start..];
        let Some((head, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u64::from_be_bytes(*head);
        if length > limit as u64 {
            if length > SKIP_MAX_BYTES {
                return Err(BadInput::Endless);
            }
            self.consume(LENGTH_BYTES);
            self.skip = Some(SkippedMessage::Frame(length));
            return Err(BadInput::TooLarge { limit });
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = behind.get(..length) else { return Ok(None) };
        let mut scanner = ObjectScanner::default();
        let blank = body.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let ended = scanner.scan(&body[blank..]);
        let single = body.get(blank) == Some(&b'{') && ended != ScanResult::Open;
        let from = self.start + LENGTH_BYTES;
        self.consume(LENGTH_BYTES + length);
        match (single, scanner.is_too_deep()) {
            (false, _) => Err(BadInput::Frame),
            (true, true) => Err(BadInput::TooDeep),
            (true, false) => Ok(Some((from, from + length))),
        }
    }
}

/// Appends one message to `out` in the given form. `json` has no line breaks.
pub fn append_message(form: MessageForm, json: &[u8], out: &mut Vec<u8>) {
    match form {
        MessageForm::Stream => {
            assert!(memchr::memchr(b'\n', json).is_none(), "a line break would end the line early");
            out.extend_from_slice(json);
            out.push(b'\n');
        }
        MessageForm::Framed => {
            out.extend_from_slice(&(json.len() as u64).to_be_bytes());
            out.extend_from_slice(json);
        }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
