//! What a download remembers of being made durable.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::proto::time::Moment;
use crate::storage::behind::Behind;

/// How far making one download durable is.
#[derive(Debug)]
pub(crate) struct Flushing {
    /// It is in the queue, or being flushed.
    pub(super) queued: AtomicBool,
    /// When it was last asked for, in milliseconds of the clock's moments.
    pub(super) asked_ms: AtomicU64,
    /// What need not be in the page cache any more.
    pub(super) behind: Mutex<Behind>,
}

impl Flushing {
    /// Nothing was written yet, of a file of `length` bytes.
    pub(crate) fn new(length: u64, now: Moment) -> Flushing {
        let asked_ms = AtomicU64::new(now.ms_since(Moment::default()));
        Flushing { queued: AtomicBool::new(false), asked_ms, behind: Mutex::new(Behind::new(length)) }
    }
}
