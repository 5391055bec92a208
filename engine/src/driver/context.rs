//! What all workers of a node share, besides its downloads.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::backend::IoKind;
use super::buffers::ReceiveBuffers;
use super::clock::EngineClock;
use super::flush::Flusher;
use super::limits::{
    LIMITED_READ_BYTES, LIMITED_READ_MIN_BYTES, LIMITED_ROUND_MS, LIMITED_SEND_MS, LIMITED_SLOT_MS,
};
use super::shares::ShareTable;
use super::slots::ConnectionSlots;
use super::stall::StallDetector;
use super::threads::LaneThreads;
use super::zero_copy::ZeroCopyPolicy;
use crate::config::ZeroCopyChoice;
use crate::hash::Hasher;
use crate::proto::limits::{CONSUMER_CONNECTIONS_MAX, PROVIDER_CONNECTIONS_MAX, UNAUTHENTICATED_MAX};
use crate::proto::rate::RateLimit;
use crate::proto::ticket::{Nonce, SecretKey, TrackerKey, UnixSeconds};
use crate::storage::prefault::PrefaultPool;

/// What all workers share.
pub(crate) struct NodeContext {
    /// The clock.
    pub(crate) clock: EngineClock,
    /// The back end that workers run on, but for those that get no ring.
    pub(crate) io: IoKind,
    /// Sends without a copy.
    pub(crate) zero_copy: Arc<ZeroCopyPolicy>,
    /// This node's key.
    pub(crate) secret: SecretKey,
    /// Hashes pieces.
    pub(crate) hasher: Hasher,
    /// Where pieces are received.
    pub(crate) buffers: ReceiveBuffers,
    /// Brings cold pieces into memory.
    pub(crate) prefault: PrefaultPool,
    /// Makes downloads durable.
    pub(crate) flusher: Flusher,
    /// Those that work for one download for a while.
    pub(crate) threads: LaneThreads,
    /// What the workers are at.
    pub(crate) stalls: StallDetector,
    /// What this node serves.
    pub(crate) shares: ShareTable,
    /// Connections that fetch.
    pub(crate) fetch_slots: ConnectionSlots,
    /// Connections that serve.
    pub(crate) serve_slots: ConnectionSlots,
    /// Those of them that have not shown a ticket yet.
    pub(crate) handshake_slots: ConnectionSlots,
    /// Of what peers fetch from here.
    pub(crate) upload_limit: RateLimiter,
    /// Of what this node fetches.
    pub(crate) download_limit: RateLimiter,
    trust: RwLock<Option<TicketTrust>>,
}

/// Whose tickets count, and by which clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TicketTrust {
    /// The trackers' key.
    pub(crate) key: TrackerKey,
    /// The trackers' time minus this machine's.
    pub(crate) clock_offset_s: i64,
}

/// What a node is made of.
pub(crate) struct NodeParts {
    /// See [`NodeContext::io`].
    pub(crate) io: IoKind,
    /// See [`NodeContext::zero_copy_sends`].
    pub(crate) zero_copy: ZeroCopyChoice,
    /// See [`NodeContext::secret`].
    pub(crate) secret: SecretKey,
    /// See [`NodeContext::hasher`].
    pub(crate) hasher: Hasher,
    /// Bytes a second.
    pub(crate) limit_up: Option<NonZeroU64>,
    /// Bytes a second.
    pub(crate) limit_down: Option<NonZeroU64>,
}

impl NodeContext {
    /// A node that trusts nobody and serves nothing yet.
    pub(crate) fn new(parts: NodeParts) -> io::Result<NodeContext> {
        let clock = EngineClock::start();
        Ok(NodeContext {
            clock,
            io: parts.io,
            zero_copy: Arc::new(ZeroCopyPolicy::new(parts.zero_copy, parts.io, clock)),
            secret: parts.secret,
            hasher: parts.hasher,
            buffers: ReceiveBuffers::new(),
            prefault: PrefaultPool::start()?,
            flusher: Flusher::start(parts.hasher)?,
            threads: LaneThreads::default(),
            stalls: StallDetector::default(),
            shares: ShareTable::default(),
            fetch_slots: ConnectionSlots::new(CONSUMER_CONNECTIONS_MAX),
            serve_slots: ConnectionSlots::new(PROVIDER_CONNECTIONS_MAX),
            handshake_slots: ConnectionSlots::new(UNAUTHENTICATED_MAX),
            upload_limit: RateLimiter::new(parts.limit_up, clock),
            download_limit: RateLimiter::new(parts.limit_down, clock),
            trust: RwLock::new(None),
        })
    }

    /// From now on these tickets count.
    pub(crate) fn set_trust(&self, trust: TicketTrust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Some(trust);
    }

    /// Whose tickets count; `None` before the first login.
    pub(crate) fn trust(&self) -> Option<TicketTrust> {
        *self.trust.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trackers' time.
    pub(crate) fn tracker_time(&self) -> UnixSeconds {
        self.clock.unix_time(self.trust().map_or(0, |trust| trust.clock_offset_s))
    }

    /// 32 fresh random bytes.
    pub(crate) fn random_nonce(&self) -> io::Result<Nonce> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Nonce(bytes))
    }
}

/// A limit of bytes a second over all connections in one direction, or none.
pub(crate) struct RateLimiter {
    state: Option<RateLimiterState>,
    clock: EngineClock,
}

struct RateLimiterState {
    rate: NonZeroU64,
    bookings: Mutex<RateLimit>,
    /// For those who send at the same time.
    send_slots: Semaphore,
}

/// A connection's place among those who send at the same time, until it is dropped; without a limit all have one.
pub(crate) type SendSlot<'a> = Option<SemaphorePermit<'a>>;

impl RateLimiter {
    fn new(rate: Option<NonZeroU64>, clock: EngineClock) -> RateLimiter {
        let state = rate.map(|rate| {
            let a_turn = rate.get().saturating_mul(LIMITED_SLOT_MS) / 1_000;
            let places = (a_turn / send_portion_bytes(rate)).clamp(1, Semaphore::MAX_PERMITS as u64);
            RateLimiterState {
                rate,
                bookings: Mutex::new(RateLimit::new(rate, clock.now())),
                send_slots: Semaphore::new(usize::try_from(places).unwrap_or(Semaphore::MAX_PERMITS)),
            }
        });
        RateLimiter { state, clock }
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        self.state.is_some()
    }

    /// Most bytes that are to be sent by one booking.
    pub(crate) fn max_send_bytes(&self) -> u64 {
        self.state.as_ref().map_or(u64::MAX, |limited| send_portion_bytes(limited.rate))
    }

    /// Most bytes that are to be received by one booking: so few that every connection there may be has its next within
    /// [`LIMITED_ROUND_MS`].
    pub(crate) fn max_read_bytes(&self) -> usize {
        let Some(limited) = &self.state else { return usize::MAX };
        let a_round = limited.rate.get().saturating_mul(LIMITED_ROUND_MS) / 1_000;
        let each = usize::try_from(a_round / CONSUMER_CONNECTIONS_MAX as u64).unwrap_or(usize::MAX);
        each.clamp(LIMITED_READ_MIN_BYTES, LIMITED_READ_BYTES)
    }

    /// Waits for a place among those who send at the same time: so few that each has its next portion within
    /// [`LIMITED_SLOT_MS`]. First come, first served.
    pub(crate) async fn wait_for_send_slot(&self) -> SendSlot<'_> {
        match &self.state {
            Some(limited) => Some(limited.send_slots.acquire().await.expect("it is never closed")),
            None => None,
        }
    }

    /// Books `bytes`; in how many milliseconds they may move.
    pub(crate) fn reserve(&self, bytes: u64) -> u64 {
        self.state.as_ref().map_or(0, |limited| limited.lock_bookings().reserve(self.clock.now(), bytes))
    }

    /// Gives back a booking that was not used.
    pub(crate) fn refund(&self, bytes: u64) {
        if let Some(limited) = &self.state {
            limited.lock_bookings().refund(self.clock.now(), bytes);
        }
    }
}

impl RateLimiterState {
    fn lock_bookings(&self) -> MutexGuard<'_, RateLimit> {
        self.bookings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`RateLimiter::portion`].
fn send_portion_bytes(rate: NonZeroU64) -> u64 {
    let least = rate.get().min(LIMITED_READ_BYTES as u64);
    (rate.get() / 1_000).saturating_mul(LIMITED_SEND_MS).max(least)
}
