//! Frames over a plain blocking socket: what a scripted peer says and hears.
//!
//! Invariant: no read waits longer than the rig's patience, so that a hang fails a test instead of stopping it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program needs another part of it")]

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

/// What a peer got out of an engine before the connection ended.
#[derive(Debug, Default)]
pub(crate) struct Loot {
    /// All messages, in order.
    pub(crate) messages: Vec<Message>,
    /// Whole pieces among them.
    pub(crate) pieces: usize,
}

impl Wire {
    /// Takes over a connected socket.
    pub(crate) fn new(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream }
    }

    /// Calls somebody.
    pub(crate) fn connect(address: SocketAddr) -> Wire {
        Wire::new(TcpStream::connect(address).unwrap())
    }

    /// Sends bytes, whatever they are.
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

    /// Says that nothing more will be sent; answers may still come.
    pub(crate) fn half_close(&mut self) {
        // The other side may have ended it already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Whether the other side has ended the connection by now; what came before that is not taken.
    pub(crate) fn has_ended(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether something has come that was not taken yet.
    pub(crate) fn has_bytes(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        matches!(seen, Ok(1))
    }

    /// Sends nothing more, and takes what comes until the other side has noticed.
    pub(crate) fn drain_after_leaving(&mut self) {
        self.half_close();
        self.drain();
    }

    /// Takes everything that still comes, until the other side ends the connection.
    ///
    /// # Panics
    /// When it never does.
    pub(crate) fn drain(&mut self) -> Loot {
        let mut loot = Loot::default();
        loop {
            match self.read() {
                Ok(message) => {
                    if let Message::Piece { length, .. } = message {
                        loot.pieces += usize::from(self.piece_bytes(length).is_ok());
                    }
                    loot.messages.push(message);
                }
                Err(error) => {
                    let hang = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(!hang, "the engine never ended the connection");
                    return loot;
                }
            }
        }
    }
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on, panics on the engines' own threads are noted for [`assert_no_worker_panicked`]: a panic of a task ends
/// neither its thread nor the test.
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

/// A peer's misbehaviour never makes an engine panic.
pub(crate) fn assert_no_worker_panicked() {
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(panics.is_empty(), "{panics:?}");
}
