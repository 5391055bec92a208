//! The limit of a node's bytes per second in one direction, over all its connections.
//!
//! Under a limit few connections send at the same time, so that each sends whole pieces soon instead of all sending parts.

use std::num::NonZeroU64;
use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::clock::EngineClock;
use super::limits::{
    LIMITED_READ_BYTES, LIMITED_READ_MIN_BYTES, LIMITED_ROUND_MS, LIMITED_SEND_MS, LIMITED_SLOT_MS,
};
use crate::lock::lock;
use crate::proto::limits::CONSUMER_CONNECTIONS_MAX;
use crate::proto::rate::RateLimit;

/// A limit in bytes per second, or none.
pub(crate) struct RateLimiter {
    state: Option<RateLimiterState>,
    clock: EngineClock,
}

struct RateLimiterState {
    bytes_per_s: NonZeroU64,
    bookings: Mutex<RateLimit>,
    send_slots: Semaphore,
}

/// A connection's right to send, until it is dropped. Without a limit every connection has it.
pub(crate) type SendSlot<'a> = Option<SemaphorePermit<'a>>;

impl RateLimiter {
    /// A limit of `bytes_per_s`; `None`: no limit.
    pub(crate) fn new(bytes_per_s: Option<NonZeroU64>, clock: EngineClock) -> RateLimiter {
        let state = bytes_per_s.map(|rate| {
            let slot_bytes = rate.get().saturating_mul(LIMITED_SLOT_MS) / 1_000;
            let slots = (slot_bytes / send_portion_bytes(rate)).clamp(1, Semaphore::MAX_PERMITS as u64);
            RateLimiterState {
                bytes_per_s: rate,
                bookings: Mutex::new(RateLimit::new(rate, clock.now())),
                send_slots: Semaphore::new(usize::try_from(slots).unwrap_or(Semaphore::MAX_PERMITS)),
            }
        });
        RateLimiter { state, clock }
    }

    /// Whether there is a limit.
    pub(crate) fn is_set(&self) -> bool {
        self.state.is_some()
    }

    /// Most bytes to send by one booking.
    pub(crate) fn max_send_bytes(&self) -> u64 {
        self.state.as_ref().map_or(u64::MAX, |state| send_portion_bytes(state.bytes_per_s))
    }

    /// Most bytes to receive by one booking: so few that each of [`CONSUMER_CONNECTIONS_MAX`] connections gets its next
    /// within [`LIMITED_ROUND_MS`].
    pub(crate) fn max_read_bytes(&self) -> usize {
        let Some(state) = &self.state else { return usize::MAX };
        let round_bytes = state.bytes_per_s.get().saturating_mul(LIMITED_ROUND_MS) / 1_000;
        let each = usize::try_from(round_bytes / CONSUMER_CONNECTIONS_MAX as u64).unwrap_or(usize::MAX);
        each.clamp(LIMITED_READ_MIN_BYTES, LIMITED_READ_BYTES)
    }

    /// Waits for a send slot, first come first served. There are so few that each holder may send its next portion within
    /// [`LIMITED_SLOT_MS`].
    pub(crate) async fn wait_for_send_slot(&self) -> SendSlot<'_> {
        match &self.state {
            Some(state) => Some(state.send_slots.acquire().await.expect("the semaphore is never closed")),
            None => None,
        }
    }

    /// Books `bytes`; returns in how many milliseconds they may move.
    pub(crate) fn reserve(&self, bytes: u64) -> u64 {
        self.state.as_ref().map_or(0, |state| lock(&state.bookings).reserve(self.clock.now(), bytes))
    }

    /// Gives back a booking that was not used.
    pub(crate) fn refund(&self, bytes: u64) {
        if let Some(state) = &self.state {
            lock(&state.bookings).refund(self.clock.now(), bytes);
        }
    }
}

/// What the limit lets through in [`LIMITED_SEND_MS`], but at least [`LIMITED_READ_BYTES`] or one second's bytes.
fn send_portion_bytes(rate: NonZeroU64) -> u64 {
    let least = rate.get().min(LIMITED_READ_BYTES as u64);
    (rate.get() / 1_000).saturating_mul(LIMITED_SEND_MS).max(least)
}
