//! Receives the frames and pieces of one connection.
//!
//! A piece goes straight into a pooled buffer. Each of its reads has room for the next frame's head, so that heads cost no
//! reads of their own; only those few bytes are copied in user space.
//!
//! Invariant: `head[start..end]` are the bytes that were received and not used yet, in order.

use std::io;
use std::rc::Rc;

use super::limits::{BUFFER_SLACK_BYTES, HEAD_KEPT_MAX_BYTES, HEAD_READ_BYTES};
use super::stream::PeerStream;
use crate::mem::pool::PooledBuf;
use crate::proto::CodecError;
use crate::proto::codec::{self, LENGTH_BYTES};
use crate::proto::frame::Message;

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The peer ended the stream, or this node shut it down.
    #[error("the connection ended")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The received bytes are no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The receiving side of a connection.
pub(crate) struct FrameReceiver {
    stream: Rc<PeerStream>,
    head: Vec<u8>,
    start: usize,
    end: usize,
    /// Most bytes to read for a frame of unknown length.
    read_bytes: usize,
}

impl FrameReceiver {
    /// For a side that receives pieces: little is read for heads, since bytes of a piece behind them would be copied.
    pub(crate) fn for_pieces(stream: Rc<PeerStream>) -> FrameReceiver {
        FrameReceiver::new(stream, HEAD_READ_BYTES)
    }

    /// For a side that receives small frames only: one read of `read_bytes` takes all that have arrived.
    pub(crate) fn for_frames(stream: Rc<PeerStream>, read_bytes: usize) -> FrameReceiver {
        FrameReceiver::new(stream, read_bytes)
    }

    fn new(stream: Rc<PeerStream>, read_bytes: usize) -> FrameReceiver {
        assert!(read_bytes >= BUFFER_SLACK_BYTES || read_bytes == HEAD_READ_BYTES);
        let head = vec![0; read_bytes.max(BUFFER_SLACK_BYTES)];
        FrameReceiver { stream, head, start: 0, end: 0, read_bytes }
    }

    /// Receives the next message, of at most `max_bytes`.
    pub(crate) async fn read_message(&mut self, max_bytes: usize) -> Result<Message, ReceiveError> {
        self.fill(LENGTH_BYTES).await?;
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&self.head[self.start..self.start + LENGTH_BYTES]);
        let body = codec::frame_len(length, max_bytes)?;
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
            // A long `Opened` has been read. No later message is as long.
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

    /// Receives the `length` bytes of a piece into the start of `buffer`, in reads of at most `max_read_bytes`. `on_read` is
    /// called after each read, and the next read waits for it.
    pub(crate) async fn read_piece<W: Future<Output = ()>>(
        &mut self,
        length: usize,
        mut buffer: PooledBuf,
        max_read_bytes: usize,
        on_read: impl Fn(usize) -> W,
    ) -> Result<PooledBuf, ReceiveError> {
        assert!(length + BUFFER_SLACK_BYTES <= buffer.capacity(), "a piece of {length} bytes");
        let mut filled = length.min(self.end - self.start);
        buffer.as_mut_range(0..filled).copy_from_slice(&self.head[self.start..self.start + filled]);
        self.start += filled;
        if filled > 0 {
            on_read(filled).await;
        }
        while filled < length {
            // Room for the next head behind the piece. `head` is empty then, so those bytes can move there.
            let end = (length + HEAD_READ_BYTES).min(filled.saturating_add(max_read_bytes));
            let (result, back) = self.stream.receive(buffer, filled..end).await;
            buffer = back;
            let count = require_bytes(result)?;
            on_read(count.min(length - filled)).await;
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
