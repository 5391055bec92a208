//! Frames over a plain blocking socket, for scripted peers.
//!
//! Invariant: no read waits longer than [`PATIENCE`], so that a hang fails the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, Once, PoisonError};

use engine::proto::codec::{self, LENGTH_BYTES};
use engine::proto::frame::Message;
use engine::proto::limits::OPENED_MAX_BYTES;
use engine::proto::units::{PIECE_BYTES, PieceIndex};

use crate::rig::PATIENCE;

/// One connection of a scripted peer.
pub(crate) struct Wire {
    stream: TcpStream,
}

/// What a peer received before the connection ended.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Messages, in order.
    pub(crate) messages: Vec<Message>,
    /// Number of whole pieces among them.
    pub(crate) pieces: usize,
}

impl Wire {
    /// Takes over a connected socket.
    pub(crate) fn new(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream }
    }

    /// Connects to a peer.
    pub(crate) fn connect(address: SocketAddr) -> Wire {
        Wire::new(TcpStream::connect(address).unwrap())
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.raw(&codec::encode_message(message))
    }

    /// Sends the frame of a piece and bytes behind it.
    pub(crate) fn piece(&mut self, index: PieceIndex, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).unwrap();
        self.send(&Message::Piece { index, length })?;
        self.raw(bytes)
    }

    /// Waits for the next message.
    pub(crate) fn read(&mut self) -> io::Result<Message> {
        let mut head = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut head)?;
        let mut body = vec![0; codec::frame_len(head, OPENED_MAX_BYTES).map_err(io::Error::other)?];
        self.stream.read_exact(&mut body)?;
        codec::decode_message(&body).map_err(io::Error::other)
    }

    /// Reads the bytes behind the frame of a piece.
    pub(crate) fn piece_bytes(&mut self, length: u32) -> io::Result<Vec<u8>> {
        assert!(length <= PIECE_BYTES, "an engine sent a piece of {length} bytes");
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Closes the sending direction; answers may still come.
    pub(crate) fn half_close(&mut self) {
        // The peer may have ended the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Whether the peer has ended the connection and all its bytes were read.
    pub(crate) fn has_ended(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether there are unread bytes.
    pub(crate) fn has_bytes(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        matches!(seen, Ok(1))
    }

    /// Closes the sending direction, then reads until the peer ends the connection.
    pub(crate) fn drain_after_leaving(&mut self) {
        self.half_close();
        self.drain();
    }

    /// Reads until the peer ends the connection.
    ///
    /// # Panics
    /// When the peer never ends it.
    pub(crate) fn drain(&mut self) -> Received {
        let mut received = Received::default();
        loop {
            match self.read() {
                Ok(message) => {
                    if let Message::Piece { length, .. } = message {
                        received.pieces += usize::from(self.piece_bytes(length).is_ok());
                    }
                    received.messages.push(message);
                }
                Err(error) => {
                    let hang = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(!hang, "the engine did not end the connection");
                    return received;
                }
            }
        }
    }
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Records panics on worker threads for [`assert_no_worker_panicked`], since a panic of a task does not fail the test.
pub(crate) fn watch_workers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("worker")) {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
            }
            before(panic);
        }));
    });
}

/// Fails when a worker has panicked: a peer's misbehaviour must never cause that.
pub(crate) fn assert_no_worker_panicked() {
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(panics.is_empty(), "{panics:?}");
}
