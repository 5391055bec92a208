//! Frames and pieces as they arrive on one connection.
//!
//! A piece is received straight into a pooled buffer. Each read also has room for the head of the next frame, so that a
//! stream of pieces costs no reads of its own for their heads; those few bytes are all that is copied in user space.
//!
//! Invariant: `head[start..end]` are the bytes received and not yet used, in order.

use std::io;
use std::rc::Rc;

use super::limits::{BUFFER_SLACK_BYTES, HEAD_READ_BYTES};
use super::stream::PeerStream;
use crate::mem::pool::PooledBuf;
use crate::proto::CodecError;
use crate::proto::codec::{self, LENGTH_BYTES};
use crate::proto::frame::Message;
use crate::proto::limits::FRAME_MAX_BYTES;

/// Longest head buffer that is kept: of any frame but `Opened`.
const HEAD_KEPT_MAX_BYTES: usize = LENGTH_BYTES + FRAME_MAX_BYTES;

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The peer has ended the stream, or somebody shut it down.
    #[error("the connection ended")]
    Ended,
    /// The network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The receiving side of a connection.
pub(crate) struct FrameReceiver {
    stream: Rc<PeerStream>,
    head: Vec<u8>,
    start: usize,
    end: usize,
    /// How much to read when a frame is wanted and nothing says how long it is.
    read_bytes: usize,
}

impl FrameReceiver {
    /// For a side that gets pieces: heads are read sparingly.
    pub(crate) fn for_pieces(stream: Rc<PeerStream>) -> FrameReceiver {
        FrameReceiver::new(stream, HEAD_READ_BYTES)
    }

    /// For a side that gets small frames only: as many as there are with one read of `guess` bytes.
    pub(crate) fn for_frames(stream: Rc<PeerStream>, guess: usize) -> FrameReceiver {
        FrameReceiver::new(stream, guess)
    }

    fn new(stream: Rc<PeerStream>, read_bytes: usize) -> FrameReceiver {
        assert!(read_bytes >= BUFFER_SLACK_BYTES || read_bytes == HEAD_READ_BYTES);
        FrameReceiver {
            stream,
            head: vec![0; read_bytes.max(BUFFER_SLACK_BYTES)],
            start: 0,
            end: 0,
            read_bytes,
        }
    }

    /// The next message, of at most `allowed` bytes.
    pub(crate) async fn read_message(&mut self, allowed: usize) -> Result<Message, ReceiveError> {
        self.fill(LENGTH_BYTES).await?;
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&self.head[self.start..self.start + LENGTH_BYTES]);
        let body = codec::frame_len(length, allowed)?;
        self.fill(LENGTH_BYTES + body).await?;
        let body_start = self.start + LENGTH_BYTES;
        let message = codec::decode_message(&self.head[body_start..body_start + body])?;
        self.start = body_start + body;
        Ok(message)
    }

    /// Receives until at least `wanted` bytes are unused.
    async fn fill(&mut self, wanted: usize) -> Result<(), ReceiveError> {
        if self.end - self.start >= wanted {
            return Ok(());
        }
        self.head.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = wanted.max(self.read_bytes);
        if self.head.len() < room {
            self.head.resize(room, 0);
        } else if self.head.len() > HEAD_KEPT_MAX_BYTES && room <= HEAD_KEPT_MAX_BYTES {
            // A long `Opened` has been read; nothing as long follows.
            self.head.truncate(HEAD_KEPT_MAX_BYTES);
            self.head.shrink_to_fit();
        }
        while self.end < wanted {
            let (result, head) = self.stream.receive(std::mem::take(&mut self.head), self.end..room).await;
            self.head = head;
            self.end += require_bytes(result)?;
        }
        Ok(())
    }

    /// Receives the `length` bytes of a piece into the start of `buffer`, in reads of at most `most` bytes; `arrived` is
    /// told of each, and may take its time.
    pub(crate) async fn read_piece<W: Future<Output = ()>>(
        &mut self,
        length: usize,
        mut buffer: PooledBuf,
        most: usize,
        arrived: impl Fn(usize) -> W,
    ) -> Result<PooledBuf, ReceiveError> {
        assert!(length + BUFFER_SLACK_BYTES <= buffer.capacity(), "a piece of {length} bytes");
        let mut filled = length.min(self.end - self.start);
        buffer.as_mut_range(0..filled).copy_from_slice(&self.head[self.start..self.start + filled]);
        self.start += filled;
        if filled > 0 {
            arrived(filled).await;
        }
        while filled < length {
            // Behind the piece, room for the next head: there the unused bytes of `head` are none, since all went here.
            let end = (length + HEAD_READ_BYTES).min(filled.saturating_add(most));
            let (result, back) = self.stream.receive(buffer, filled..end).await;
            buffer = back;
            let count = require_bytes(result)?;
            arrived(count.min(length - filled)).await;
            filled += count;
        }
        if filled > length {
            self.start = 0;
            self.end = filled - length;
            self.head[..self.end].copy_from_slice(buffer.as_range(length..filled));
        }
        Ok(buffer)
    }
}

fn require_bytes(result: io::Result<usize>) -> Result<usize, ReceiveError> {
    match result? {
        0 => Err(ReceiveError::Ended),
        count => Ok(count),
    }
}
