//! Zero-copy sends: to which peers, within which budget of locked memory, and their figures.
//!
//! ```text
//!   ZeroCopyRoute (one connection) ─► remote peer, long send, budget left? ── no ─► None: send with a copy
//!                                        └ yes ─► side ring ─► notified: mapped, or copied ─► exclude the peer
//! ```
//!
//! Invariants:
//! * Sends in flight never lock more than the budget, which is a part of what the user may lock: the kernel charges their bytes
//!   to the user's locked memory until it has notified (`RLIMIT_MEMLOCK`, getrlimit(2)).
//! * A peer that the kernel has copied for is excluded before its lease is released, so that at most one budget is wasted on it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, getrlimit};

use super::backend::IoKind;
use super::clock::EngineClock;
use super::limits::{
    ZERO_COPY_COPIED_PEERS, ZERO_COPY_LOCKED_DIVISOR, ZERO_COPY_LOCKED_MAX, ZERO_COPY_MIN_BYTES,
    ZERO_COPY_RETRY_MS,
};
use super::socket_options;
use crate::config::ZeroCopyChoice;
use crate::lock::lock;
use crate::mem::side_ring::{CopyOutcome, SideRing};
use crate::mem::window::SendPart;
use crate::proto::time::Moment;
use crate::proto::units::PIECE_BYTES;
use crate::stats::ZeroCopySends;

#[cfg(test)]
mod tests;

/// Decides which sends go without a copy, and counts them.
#[derive(Debug)]
pub(crate) struct ZeroCopyPolicy {
    choice: ZeroCopyChoice,
    clock: EngineClock,
    budget_bytes: u64,
    locked_bytes: AtomicU64,
    /// The kernel does not support zero-copy sends.
    is_unsupported: AtomicBool,
    /// Peers that the kernel copied for, and when they may be tried again, the oldest first.
    excluded: Mutex<VecDeque<(IpAddr, Moment)>>,
    mapped_bytes: AtomicU64,
    copied_bytes: AtomicU64,
    refused: AtomicU64,
}

impl ZeroCopyPolicy {
    /// Resolves the choice by the back end and by the memory that the user may lock.
    pub(crate) fn new(choice: ZeroCopyChoice, io: IoKind, clock: EngineClock) -> ZeroCopyPolicy {
        let choice = if io == IoKind::Uring { choice } else { ZeroCopyChoice::Off };
        ZeroCopyPolicy::with_budget(choice, clock, locked_budget_bytes(getrlimit(Resource::Memlock).current))
    }

    fn with_budget(choice: ZeroCopyChoice, clock: EngineClock, budget_bytes: u64) -> ZeroCopyPolicy {
        let is_enough = budget_bytes >= charged_bytes(u64::from(PIECE_BYTES));
        if choice != ZeroCopyChoice::Off && !is_enough {
            tracing::info!(
                "too little memory may be locked for zero-copy sends; a higher `ulimit -l` allows them"
            );
        }
        ZeroCopyPolicy {
            choice: if is_enough { choice } else { ZeroCopyChoice::Off },
            clock,
            budget_bytes,
            locked_bytes: AtomicU64::new(0),
            is_unsupported: AtomicBool::new(false),
            excluded: Mutex::default(),
            mapped_bytes: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Whether connections to this peer may have a route.
    pub(crate) fn applies_to(&self, peer: SocketAddr) -> bool {
        match self.choice {
            ZeroCopyChoice::Off => false,
            ZeroCopyChoice::Auto => {
                !self.is_unsupported.load(Ordering::Relaxed) && !socket_options::is_own_address(peer)
            }
            ZeroCopyChoice::Always => true,
        }
    }

    /// Figures of all sends so far.
    pub(crate) fn sends(&self) -> ZeroCopySends {
        ZeroCopySends {
            mapped_bytes: self.mapped_bytes.load(Ordering::Relaxed),
            copied_bytes: self.copied_bytes.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Reserves locked memory for one send; `None`: it has to be sent with a copy.
    fn reserve(self: &Arc<ZeroCopyPolicy>, peer: IpAddr, bytes: u64) -> Option<ZeroCopyLease> {
        let is_barred = self.is_unsupported.load(Ordering::Relaxed) || self.is_excluded(peer);
        if bytes < ZERO_COPY_MIN_BYTES || is_barred {
            return None;
        }
        let bytes = charged_bytes(bytes);
        let with_send = |locked: u64| Some(locked + bytes).filter(|locked| *locked <= self.budget_bytes);
        self.locked_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_send).ok()?;
        Some(ZeroCopyLease { policy: Arc::clone(self), bytes })
    }

    fn is_excluded(&self, peer: IpAddr) -> bool {
        let mut excluded = lock(&self.excluded);
        if excluded.is_empty() {
            return false;
        }
        let now = self.clock.now();
        while excluded.front().is_some_and(|(_, until)| *until <= now) {
            excluded.pop_front();
        }
        excluded.iter().any(|(other, _)| *other == peer)
    }

    /// Counts a send whose bytes the kernel mapped or copied.
    fn record_usage(&self, peer: IpAddr, outcome: CopyOutcome, bytes: u64) {
        match outcome {
            CopyOutcome::Mapped => _ = self.mapped_bytes.fetch_add(bytes, Ordering::Relaxed),
            CopyOutcome::Copied => {
                self.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
                if self.choice == ZeroCopyChoice::Auto {
                    self.exclude_peer(peer);
                }
            }
        }
    }

    fn exclude_peer(&self, peer: IpAddr) {
        let mut excluded = lock(&self.excluded);
        if excluded.iter().any(|(other, _)| *other == peer) {
            return;
        }
        tracing::debug!(%peer, "the kernel copies bytes for this peer; no more zero-copy sends to it for now");
        if excluded.len() == ZERO_COPY_COPIED_PEERS {
            excluded.pop_front();
        }
        excluded.push_back((peer, self.clock.now().plus_ms(ZERO_COPY_RETRY_MS)));
    }

    /// Counts a failed send, and notes when the kernel supports none. Returns whether the same bytes may succeed with a
    /// copy.
    fn record_error(&self, error: &io::Error) -> bool {
        match error.raw_os_error() {
            Some(libc::ENOMEM | libc::ENOBUFS) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                true
            }
            Some(libc::EINVAL | libc::EOPNOTSUPP) => {
                if !self.is_unsupported.swap(true, Ordering::Relaxed) {
                    tracing::info!(%error, "this kernel does not support zero-copy sends");
                }
                true
            }
            // Nothing was sent, for a reason that is not the peer's.
            Some(libc::EINTR | libc::EAGAIN) => true,
            _ => false,
        }
    }
}

/// The budget of sends, when the user may lock `limit` bytes; `None`: no limit.
fn locked_budget_bytes(limit: Option<u64>) -> u64 {
    limit.map_or(ZERO_COPY_LOCKED_MAX, |limit| (limit / ZERO_COPY_LOCKED_DIVISOR).min(ZERO_COPY_LOCKED_MAX))
}

/// Most bytes that the kernel charges for a send of `bytes`: whole pages, one more for a start in the middle of a page, and
/// one for the frame's head.
fn charged_bytes(bytes: u64) -> u64 {
    let page_bytes = rustix::param::page_size() as u64;
    (bytes.div_ceil(page_bytes) + 2) * page_bytes
}

/// Locked memory of one send, until the kernel has notified.
#[derive(Debug)]
struct ZeroCopyLease {
    policy: Arc<ZeroCopyPolicy>,
    bytes: u64,
}

impl Drop for ZeroCopyLease {
    fn drop(&mut self) {
        self.policy.locked_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Zero-copy sends to one peer.
#[derive(Debug)]
pub(crate) struct ZeroCopyRoute {
    ring: Rc<SideRing>,
    policy: Arc<ZeroCopyPolicy>,
    peer: IpAddr,
}

impl ZeroCopyRoute {
    /// A route by this thread's side ring.
    pub(crate) fn new(ring: Rc<SideRing>, policy: Arc<ZeroCopyPolicy>, peer: IpAddr) -> ZeroCopyRoute {
        ZeroCopyRoute { ring, policy, peer: peer.to_canonical() }
    }

    /// Sends the beginning of `parts`, usually all of them. `None`: nothing was sent, and they have to be sent with a copy.
    pub(crate) async fn send(
        &self,
        socket: &Arc<TcpStream>,
        parts: &[SendPart],
    ) -> Option<io::Result<usize>> {
        let bytes: usize = parts.iter().map(SendPart::len).sum();
        // Bytes in memory would be copied to be kept until the notification.
        let is_mapped = parts.iter().any(|part| matches!(part, SendPart::Window(_)));
        if !is_mapped || !self.ring.has_room() {
            return None;
        }
        let lease = self.policy.reserve(self.peer, bytes as u64)?;
        let (policy, peer) = (Arc::clone(&self.policy), self.peer);
        let report = Box::new(move |outcome, bytes| {
            policy.record_usage(peer, outcome, bytes);
            drop(lease);
        });
        match self.ring.send(socket, parts.to_vec(), report).await {
            Err(error) if self.policy.record_error(&error) => None,
            sent => Some(sent),
        }
    }
}
