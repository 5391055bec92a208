//! What all workers of a node share, besides its downloads.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::backend::IoKind;
use super::buffers::Buffers;
use super::clock::Clock;
use super::flush::Flusher;
use super::limits::{
    LIMITED_READ_BYTES, LIMITED_READ_MIN_BYTES, LIMITED_ROUND_MS, LIMITED_SEND_MS, LIMITED_TURN_MS,
};
use super::places::Places;
use super::pulse::Pulses;
use super::shares::Shares;
use super::threads::Threads;
use super::zero_copy::ZeroCopy;
use crate::config::ZeroCopyChoice;
use crate::hash::Hasher;
use crate::proto::limits::{CONSUMER_CONNECTIONS_MAX, PROVIDER_CONNECTIONS_MAX, UNAUTHENTICATED_MAX};
use crate::proto::rate::RateLimit;
use crate::proto::ticket::{Nonce, SecretKey, TrackerKey, UnixSeconds};
use crate::storage::prefault::Prefault;

/// What all workers share.
pub(crate) struct Context {
    /// The clock.
    pub(crate) clock: Clock,
    /// The back end that workers run on, but for those that get no ring.
    pub(crate) io: IoKind,
    /// Sends without a copy.
    pub(crate) zero_copy: Arc<ZeroCopy>,
    /// This node's key.
    pub(crate) secret: SecretKey,
    /// Hashes pieces.
    pub(crate) hasher: Hasher,
    /// Where pieces are received.
    pub(crate) buffers: Buffers,
    /// Brings cold pieces into memory.
    pub(crate) prefault: Prefault,
    /// Makes downloads durable.
    pub(crate) flusher: Flusher,
    /// Those that work for one download for a while.
    pub(crate) threads: Threads,
    /// What the workers are at.
    pub(crate) pulses: Pulses,
    /// What this node serves.
    pub(crate) shares: Shares,
    /// Connections that fetch.
    pub(crate) fetching: Places,
    /// Connections that serve.
    pub(crate) serving: Places,
    /// Those of them that have not shown a ticket yet.
    pub(crate) strangers: Places,
    /// Of what peers fetch from here.
    pub(crate) up: Limit,
    /// Of what this node fetches.
    pub(crate) down: Limit,
    trust: RwLock<Option<Trust>>,
}

/// Whose tickets count, and by which clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust {
    /// The trackers' key.
    pub(crate) key: TrackerKey,
    /// The trackers' time minus this machine's.
    pub(crate) clock_offset_s: i64,
}

/// What a node is made of.
pub(crate) struct Parts {
    /// See [`Context::io`].
    pub(crate) io: IoKind,
    /// See [`Context::zero_copy`].
    pub(crate) zero_copy: ZeroCopyChoice,
    /// See [`Context::secret`].
    pub(crate) secret: SecretKey,
    /// See [`Context::hasher`].
    pub(crate) hasher: Hasher,
    /// Bytes a second.
    pub(crate) limit_up: Option<NonZeroU64>,
    /// Bytes a second.
    pub(crate) limit_down: Option<NonZeroU64>,
}

impl Context {
    /// A node that trusts nobody and serves nothing yet.
    pub(crate) fn new(parts: Parts) -> io::Result<Context> {
        let clock = Clock::start();
        Ok(Context {
            clock,
            io: parts.io,
            zero_copy: Arc::new(ZeroCopy::new(parts.zero_copy, parts.io, clock)),
            secret: parts.secret,
            hasher: parts.hasher,
            buffers: Buffers::new(),
            prefault: Prefault::start()?,
            flusher: Flusher::start(parts.hasher)?,
            threads: Threads::default(),
            pulses: Pulses::default(),
            shares: Shares::default(),
            fetching: Places::new(CONSUMER_CONNECTIONS_MAX),
            serving: Places::new(PROVIDER_CONNECTIONS_MAX),
            strangers: Places::new(UNAUTHENTICATED_MAX),
            up: Limit::new(parts.limit_up, clock),
            down: Limit::new(parts.limit_down, clock),
            trust: RwLock::new(None),
        })
    }

    /// From now on these tickets count.
    pub(crate) fn set_trust(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Some(trust);
    }

    /// Whose tickets count; `None` before the first login.
    pub(crate) fn trust(&self) -> Option<Trust> {
        *self.trust.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trackers' time.
    pub(crate) fn trackers_time(&self) -> UnixSeconds {
        self.clock.unix(self.trust().map_or(0, |trust| trust.clock_offset_s))
    }

    /// 32 fresh random bytes.
    pub(crate) fn nonce(&self) -> io::Result<Nonce> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Nonce(bytes))
    }
}

/// A limit of bytes a second over all connections in one direction, or none.
pub(crate) struct Limit {
    limited: Option<Limited>,
    clock: Clock,
}

struct Limited {
    rate: NonZeroU64,
    bookings: Mutex<RateLimit>,
    /// For those who send at the same time.
    places: Semaphore,
}

/// A connection's place among those who send at the same time, until it is dropped; without a limit all have one.
pub(crate) type Turn<'a> = Option<SemaphorePermit<'a>>;

impl Limit {
    fn new(rate: Option<NonZeroU64>, clock: Clock) -> Limit {
        let limited = rate.map(|rate| {
            let a_turn = rate.get().saturating_mul(LIMITED_TURN_MS) / 1_000;
            let places = (a_turn / portion(rate)).clamp(1, Semaphore::MAX_PERMITS as u64);
            Limited {
                rate,
                bookings: Mutex::new(RateLimit::new(rate, clock.now())),
                places: Semaphore::new(usize::try_from(places).unwrap_or(Semaphore::MAX_PERMITS)),
            }
        });
        Limit { limited, clock }
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        self.limited.is_some()
    }

    /// Most bytes that are to be sent by one booking.
    pub(crate) fn portion(&self) -> u64 {
        self.limited.as_ref().map_or(u64::MAX, |limited| portion(limited.rate))
    }

    /// Most bytes that are to be received by one booking: so few that every connection there may be has its next within
    /// [`LIMITED_ROUND_MS`].
    pub(crate) fn read_bytes(&self) -> usize {
        let Some(limited) = &self.limited else { return usize::MAX };
        let a_round = limited.rate.get().saturating_mul(LIMITED_ROUND_MS) / 1_000;
        let each = usize::try_from(a_round / CONSUMER_CONNECTIONS_MAX as u64).unwrap_or(usize::MAX);
        each.clamp(LIMITED_READ_MIN_BYTES, LIMITED_READ_BYTES)
    }

    /// Waits for a place among those who send at the same time: so few that each has its next portion within
    /// [`LIMITED_TURN_MS`]. First come, first served.
    pub(crate) async fn enter(&self) -> Turn<'_> {
        match &self.limited {
            Some(limited) => Some(limited.places.acquire().await.expect("it is never closed")),
            None => None,
        }
    }

    /// Books `bytes`; in how many milliseconds they may move.
    pub(crate) fn reserve(&self, bytes: u64) -> u64 {
        self.limited.as_ref().map_or(0, |limited| limited.bookings().book(self.clock.now(), bytes))
    }

    /// Gives back a booking that was not used.
    pub(crate) fn refund(&self, bytes: u64) {
        if let Some(limited) = &self.limited {
            limited.bookings().refund(self.clock.now(), bytes);
        }
    }
}

impl Limited {
    fn bookings(&self) -> MutexGuard<'_, RateLimit> {
        self.bookings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Limit::portion`].
fn portion(rate: NonZeroU64) -> u64 {
    let least = rate.get().min(LIMITED_READ_BYTES as u64);
    (rate.get() / 1_000).saturating_mul(LIMITED_SEND_MS).max(least)
}
