//! The receive buffers of a node, with waiting: a connection that finds none stops reading, and TCP slows its peer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{BUFFER_SLACK_BYTES, RECEIVE_BUFFERS};
use crate::mem::pool::{BufferPool, PooledBuf};
use crate::proto::units::PIECE_BYTES;

/// Length of a receive buffer in bytes: a piece, and the head of the frame behind it.
pub(crate) const BUFFER_BYTES: usize = PIECE_BYTES as usize + BUFFER_SLACK_BYTES;

/// All receive buffers.
#[derive(Debug)]
pub(crate) struct ReceiveBuffers {
    pool: BufferPool,
    permits: Arc<Semaphore>,
}

/// The right to hold one buffer: dropped after the buffer itself.
#[derive(Debug)]
pub(crate) struct BufferPermit(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl ReceiveBuffers {
    /// [`RECEIVE_BUFFERS`] of them; none is made before it is needed.
    pub(crate) fn new() -> ReceiveBuffers {
        ReceiveBuffers {
            pool: BufferPool::new(RECEIVE_BUFFERS, BUFFER_BYTES),
            permits: Arc::new(Semaphore::new(RECEIVE_BUFFERS)),
        }
    }

    /// A buffer, if there is one and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<(PooledBuf, BufferPermit)> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.take_with(permit))
    }

    /// Waits for a buffer.
    pub(crate) async fn take(&self) -> (PooledBuf, BufferPermit) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        self.take_with(permit)
    }

    fn take_with(&self, permit: OwnedSemaphorePermit) -> (PooledBuf, BufferPermit) {
        let buffer = self.pool.try_take().expect("a permit is dropped only after its buffer");
        (buffer, BufferPermit(permit))
    }
}
