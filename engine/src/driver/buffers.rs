//! The receive buffers of a node. A connection that finds none stops reading, and TCP slows its peer down.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{BUFFER_BYTES, RECEIVE_BUFFERS};
use crate::mem::pool::{BufferPool, PooledBuf};

/// All receive buffers.
#[derive(Debug)]
pub(crate) struct ReceiveBuffers {
    pool: BufferPool,
    permits: Arc<Semaphore>,
}

/// The right to hold one buffer. It has to be dropped after the buffer.
#[derive(Debug)]
pub(crate) struct BufferPermit(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl ReceiveBuffers {
    /// [`RECEIVE_BUFFERS`] buffers, each created when it is first needed.
    pub(crate) fn new() -> ReceiveBuffers {
        ReceiveBuffers {
            pool: BufferPool::new(RECEIVE_BUFFERS, BUFFER_BYTES),
            permits: Arc::new(Semaphore::new(RECEIVE_BUFFERS)),
        }
    }

    /// A buffer, if one is free and no connection waits for it.
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
