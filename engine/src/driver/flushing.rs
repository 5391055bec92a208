//! What a download remembers of being made durable.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::proto::time::Moment;
use crate::storage::cache_eviction::CacheEviction;

/// How far making one download durable is.
#[derive(Debug)]
pub(crate) struct FlushState {
    /// It is in the queue, or being flushed.
    pub(super) is_queued: AtomicBool,
    /// When it was last asked for, in milliseconds of the clock's moments.
    pub(super) requested_ms: AtomicU64,
    /// What need not be in the page cache any more.
    pub(super) behind: Mutex<CacheEviction>,
}

impl FlushState {
    /// Nothing was written yet, of a file of `length` bytes.
    pub(crate) fn new(length: u64, now: Moment) -> FlushState {
        let requested_ms = AtomicU64::new(now.ms_since(Moment::default()));
        FlushState {
            is_queued: AtomicBool::new(false),
            requested_ms,
            behind: Mutex::new(CacheEviction::new(length)),
        }
    }
}
