//! What all workers of a node share, besides its downloads.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, RwLock};

use super::backend::IoKind;
use super::buffers::ReceiveBuffers;
use super::clock::{self, EngineClock};
use super::limits::{FILE_CALL_THREADS, LOAD_THREADS, OTHER_VERSIONS_LOGGED, VERIFY_THREADS};
use super::places::ServingPlaces;
use super::rate_limiter::RateLimiter;
use super::share_table::{ShareTable, WatchSignal};
use super::slots::ConnectionSlots;
use super::stall::WorkerStalls;
use super::threads::WorkThreads;
use super::zero_copy::ZeroCopyPolicy;
use crate::config::EngineConfig;
use crate::hash::Hasher;
use crate::lock::{lock, read, write};
use crate::proto::limits::CONSUMER_CONNECTIONS_MAX;
use crate::proto::ticket::{Nonce, SecretKey, TrackerClock, TrackerKey, UnixSeconds};
use crate::storage::filesystem_threads::FilesystemThreads;

/// What all workers of a node share.
pub(crate) struct NodeContext {
    pub(crate) clock: EngineClock,
    /// The back end of all workers but those that get no ring.
    pub(crate) io: IoKind,
    pub(crate) zero_copy: Arc<ZeroCopyPolicy>,
    pub(crate) secret: SecretKey,
    pub(crate) hasher: Hasher,
    pub(crate) buffers: ReceiveBuffers,
    /// Threads for blocking work of downloads.
    pub(crate) threads: WorkThreads,
    pub(crate) stalls: WorkerStalls,
    pub(crate) shares: ShareTable,
    /// Wakes the thread that watches the shares.
    pub(crate) watch: WatchSignal,
    /// Threads that look at files and open them.
    pub(crate) file_calls: FilesystemThreads,
    /// Threads that bring cold pieces of shared files into memory.
    pub(crate) loaders: FilesystemThreads,
    /// Threads that hash shared files again.
    pub(crate) verifiers: FilesystemThreads,
    /// Of connections that fetch.
    pub(crate) fetch_slots: ConnectionSlots,
    /// Of connections that serve.
    pub(crate) places: Arc<ServingPlaces>,
    pub(crate) upload_limit: RateLimiter,
    pub(crate) download_limit: RateLimiter,
    trust: RwLock<Option<TicketTrust>>,
    /// Consumers of other versions that were logged.
    other_versions: Mutex<BTreeSet<(IpAddr, u32)>>,
}

/// Which tickets are valid, and by which clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TicketTrust {
    /// The key that signs valid tickets.
    pub(crate) key: TrackerKey,
    /// The tracker's time of day.
    pub(crate) time: TrackerClock,
}

impl NodeContext {
    /// A node without connections, shares or trust. `io` and `hasher` are what the configuration's choices resolve to.
    pub(crate) fn new(config: &EngineConfig, io: IoKind, hasher: Hasher) -> io::Result<NodeContext> {
        let clock = EngineClock::start();
        Ok(NodeContext {
            clock,
            io,
            zero_copy: Arc::new(ZeroCopyPolicy::new(config.zero_copy, io, clock)),
            secret: config.secret.clone(),
            hasher,
            buffers: ReceiveBuffers::new(),
            threads: WorkThreads::default(),
            stalls: WorkerStalls::default(),
            shares: ShareTable::default(),
            watch: WatchSignal::default(),
            file_calls: FilesystemThreads::new("file", FILE_CALL_THREADS),
            loaders: FilesystemThreads::new("prefault", LOAD_THREADS),
            verifiers: FilesystemThreads::new("verify", VERIFY_THREADS),
            fetch_slots: ConnectionSlots::new(CONSUMER_CONNECTIONS_MAX),
            places: Arc::new(ServingPlaces::new()),
            upload_limit: RateLimiter::new(config.limit_up, clock),
            download_limit: RateLimiter::new(config.limit_down, clock),
            trust: RwLock::new(None),
            other_versions: Mutex::default(),
        })
    }

    /// Whether a consumer of another version is seen for the first time, so that it is to be logged. Only so many are
    /// remembered and logged.
    pub(crate) fn is_new_other_version(&self, consumer: IpAddr, version: u32) -> bool {
        let mut known = lock(&self.other_versions);
        known.len() < OTHER_VERSIONS_LOGGED && known.insert((consumer, version))
    }

    /// Replaces the trust: from now on only tickets under `key` are valid. `now` is the tracker's present time of day.
    pub(crate) fn set_trust(&self, key: TrackerKey, now: UnixSeconds) {
        let time = TrackerClock::new(now, clock::boot_time_s());
        *write(&self.trust) = Some(TicketTrust { key, time });
    }

    /// The trust; `None` before the first login.
    pub(crate) fn trust(&self) -> Option<TicketTrust> {
        *read(&self.trust)
    }

    /// The tracker's time of day; 1970 before the first login, when no ticket is valid anyway.
    pub(crate) fn tracker_time(&self) -> UnixSeconds {
        self.trust().map_or(UnixSeconds(0), |trust| trust.time.time_at(clock::boot_time_s()))
    }

    /// 32 random bytes.
    pub(crate) fn random_nonce(&self) -> io::Result<Nonce> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Nonce(bytes))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{IoChoice, ZeroCopyChoice};

    /// A node on epoll, without limits.
    pub(in super::super) fn epoll_context() -> NodeContext {
        let config = EngineConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            io: IoChoice::Epoll,
            zero_copy: ZeroCopyChoice::Off,
            hash: None,
            workers: None,
            limit_up: None,
            limit_down: None,
            secret: SecretKey::from_seed(&[1; 32]),
            scratch_dir: None,
        };
        NodeContext::new(&config, IoKind::Epoll, Hasher::best()).unwrap()
    }
}
