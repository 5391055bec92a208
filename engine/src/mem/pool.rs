//! Receive buffers: a bounded number, each created when first needed and then reused.
//!
//! Waiting for a free buffer is up to the driver, which pairs the pool with a semaphore of as many permits.
//!
//! Invariants:
//! * At most `count` buffers exist, in the pool, in use or in flight.
//! * A buffer is zeroed when it is created and always fully initialised. It still has the bytes of its last
//!   use.
//! * A buffer in flight is owned by the operation, and returns to the pool only when the kernel is done with
//!   it.

use std::alloc::Layout;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;
use tokio_uring::buf::{IoBuf, IoBufMut};

use crate::lock::lock;

/// A bounded set of buffers of equal size. Clones share it.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<PoolShared>,
}

#[derive(Debug)]
struct PoolShared {
    free: Mutex<FreeBuffers>,
    count: usize,
    buffer_bytes: usize,
}

#[derive(Debug)]
struct FreeBuffers {
    idle: Vec<MmapMut>,
    uncreated: usize,
}

impl BufferPool {
    /// A pool of at most `count` buffers of `buffer_bytes` each. Creates none yet.
    ///
    /// # Panics
    /// When `buffer_bytes` is 0.
    #[must_use]
    pub fn new(count: usize, buffer_bytes: usize) -> BufferPool {
        assert!(buffer_bytes > 0, "buffers of 0 bytes");
        let free = Mutex::new(FreeBuffers { idle: Vec::with_capacity(count), uncreated: count });
        BufferPool { shared: Arc::new(PoolShared { free, count, buffer_bytes }) }
    }

    /// A buffer, or `None` while all are in use.
    #[must_use]
    pub fn try_take(&self) -> Option<PooledBuf> {
        let idle = {
            let mut free = lock(&self.shared.free);
            let idle = free.idle.pop();
            if idle.is_none() {
                free.uncreated = free.uncreated.checked_sub(1)?;
            }
            idle
        };
        let memory = idle.unwrap_or_else(|| map_buffer(self.shared.buffer_bytes));
        Some(PooledBuf { memory: Some(memory), shared: Arc::clone(&self.shared) })
    }

    /// Most buffers that may exist.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Number of buffers that are free or not yet created.
    #[must_use]
    pub fn available(&self) -> usize {
        let free = lock(&self.shared.free);
        free.idle.len() + free.uncreated
    }
}

/// Page-aligned zeros, which take no memory until they are written. Aborts without memory, as any allocation
/// does.
fn map_buffer(bytes: usize) -> MmapMut {
    MmapMut::map_anon(bytes).unwrap_or_else(|_| {
        std::alloc::handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()))
    })
}

/// A buffer of a pool. Dropping it returns it.
///
/// tokio-uring reads into a range of it by `BoundedBuf::slice(begin..end)`.
#[derive(Debug)]
pub struct PooledBuf {
    memory: Option<MmapMut>,
    shared: Arc<PoolShared>,
}

impl PooledBuf {
    /// Size in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.buffer_bytes
    }

    /// The bytes of a range.
    ///
    /// # Panics
    /// When the range is not within the buffer.
    #[must_use]
    pub fn as_range(&self, range: Range<usize>) -> &[u8] {
        &self.memory()[range]
    }

    /// The bytes of a range, for writing.
    ///
    /// # Panics
    /// When the range is not within the buffer.
    #[must_use]
    pub fn as_mut_range(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.memory_mut()[range]
    }

    fn memory(&self) -> &MmapMut {
        self.memory.as_ref().expect("only drop takes it")
    }

    fn memory_mut(&mut self) -> &mut MmapMut {
        self.memory.as_mut().expect("only drop takes it")
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        let memory = self.memory.take().expect("only drop takes it");
        lock(&self.shared.free).idle.push(memory);
    }
}

// SAFETY: the contract is that the pointer stays valid and the same while the runtime owns the value, though
// the value moves. The memory is a mapping of its own that this value owns and that does not move with it; it
// is unmapped when the pool is gone, and the value keeps the pool. All of it is initialised: the system gives
// zeros.
unsafe impl IoBuf for PooledBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.memory().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.capacity()
    }

    fn bytes_total(&self) -> usize {
        self.capacity()
    }
}

// SAFETY: as for `IoBuf`; the memory is private to this value and mapped for writing, and `&mut` or ownership
// by the operation excludes every other access while it is written.
unsafe impl IoBufMut for PooledBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.memory_mut().as_mut_ptr()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        assert!(pos <= self.capacity(), "the kernel wrote {pos} bytes into {}", self.capacity());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as StdStream};

    use tokio_uring::buf::BoundedBuf;
    use tokio_uring::net::TcpStream;

    use super::*;

    #[test]
    fn the_pool_is_bounded_and_reuses_buffers() {
        let pool = BufferPool::new(2, 100);
        let first = pool.try_take().unwrap();
        let mut second = pool.try_take().unwrap();
        assert!(pool.try_take().is_none());
        assert_eq!(second.as_range(0..100), [0; 100]);
        second.as_mut_range(10..12).copy_from_slice(&[7, 8]);
        std::thread::spawn(move || drop(second)).join().unwrap();
        assert_eq!(pool.available(), 1);
        let again = pool.clone().try_take().unwrap();
        assert_eq!(again.as_range(9..13), [0, 7, 8, 0]);
        drop((first, again));
        assert_eq!((pool.available(), pool.count()), (2, 2));
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let mut buffer = BufferPool::new(1, 4).try_take().unwrap();
        buffer.as_mut_range(0..4).fill(9);
        assert_eq!(buffer.as_range(0..4), [9; 4]);
    }

    #[test]
    fn the_ring_reads_into_the_middle_and_gives_the_buffer_back() {
        let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) else {
            eprintln!("skipped: io_uring is forbidden here");
            return;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        near.write_all(b"shoal").unwrap();
        let pool = BufferPool::new(1, 20);
        runtime.block_on(async {
            let stream = TcpStream::from_std(far);
            let buffer = pool.try_take().unwrap();
            let (read, slice) = stream.read(buffer.slice(10..13)).await;
            assert_eq!(read.unwrap(), 3);
            let (read, slice) = stream.read(slice.into_inner().slice(13..20)).await;
            assert_eq!(read.unwrap(), 2);
            let buffer = slice.into_inner();
            assert_eq!(buffer.as_range(9..16), b"\0shoal\0");
            drop(buffer);
            assert_eq!(pool.available(), 1);
        });
    }

    #[test]
    fn a_buffer_in_flight_returns_when_the_kernel_is_done() {
        let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) else {
            eprintln!("skipped: io_uring is forbidden here");
            return;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        let pool = BufferPool::new(1, 20);
        runtime.block_on(async {
            let stream = TcpStream::from_std(far);
            let buffer = pool.try_take().unwrap();
            {
                let mut read = Box::pin(stream.read(buffer));
                // Poll once, so that the read is submitted, then drop it.
                let pending = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(read.as_mut().poll(context).is_pending())
                });
                assert!(pending.await);
            }
            assert!(pool.try_take().is_none(), "the kernel may still write there");
            drop(near);
            while pool.available() == 0 {
                // Each read of the ended stream makes the ring process its completions.
                assert_eq!(stream.read(vec![0; 1]).await.0.unwrap(), 0);
            }
        });
    }
}
