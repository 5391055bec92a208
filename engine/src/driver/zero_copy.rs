//! Sends without the kernel's copy: to whom, how much at once, and what became of them.
//!
//! ```text
//!   Route (one connection) ─► is the peer elsewhere, long enough a send, room in the budget? ── no ─► None: the ordinary way
//!                                        └ yes ─► side ring ─► notified: mapped, or copied ─► the peer is given up
//! ```
//!
//! Invariants:
//! * What the kernel holds of sends never exceeds the budget, which is a part of what the user may lock: it charges those bytes
//!   to an ordinary user's locked memory until it has notified (`RLIMIT_MEMLOCK`, getrlimit(2)).
//! * A peer that the kernel has copied for is known as such before its lease goes back, so that no more than the budget is
//!   ever wasted on it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::backend::IoKind;
use super::clock::EngineClock;
use super::limits::{
    ZERO_COPY_COPIED_PEERS, ZERO_COPY_LOCKED_MAX, ZERO_COPY_LOCKED_SHARE, ZERO_COPY_MIN_BYTES,
    ZERO_COPY_RETRY_MS,
};
use super::socket_options;
use crate::config::ZeroCopyChoice;
use crate::mem::side_ring::{CopyOutcome, SideRing};
use crate::mem::window::SendPart;
use crate::proto::time::Moment;
use crate::proto::units::PIECE_BYTES;
use crate::stats::ZeroCopySends;

#[cfg(test)]
mod tests;

/// What a node knows of its sends without a copy.
#[derive(Debug)]
pub(crate) struct ZeroCopyPolicy {
    choice: ZeroCopyChoice,
    clock: EngineClock,
    budget_bytes: u64,
    locked_bytes: AtomicU64,
    /// The kernel knows no such sends.
    is_unsupported: AtomicBool,
    /// Peers that the kernel copied for, and when they may be tried again; the oldest first.
    copied_for: Mutex<VecDeque<(IpAddr, Moment)>>,
    mapped_bytes: AtomicU64,
    copied_bytes: AtomicU64,
    refused: AtomicU64,
}

impl ZeroCopyPolicy {
    /// Settles the choice by the back end and by what the user may lock.
    pub(crate) fn new(choice: ZeroCopyChoice, io: IoKind, clock: EngineClock) -> ZeroCopyPolicy {
        let choice = if io == IoKind::Uring { choice } else { ZeroCopyChoice::Off };
        ZeroCopyPolicy::with_budget(choice, clock, locked_budget_bytes(getrlimit(Resource::Memlock).current))
    }

    fn with_budget(choice: ZeroCopyChoice, clock: EngineClock, budget_bytes: u64) -> ZeroCopyPolicy {
        let enough = budget_bytes >= charged_bytes(u64::from(PIECE_BYTES));
        if choice != ZeroCopyChoice::Off && !enough {
            tracing::info!(
                "too little memory may be locked for sends without a copy; `ulimit -l` with more allows them"
            );
        }
        ZeroCopyPolicy {
            choice: if enough { choice } else { ZeroCopyChoice::Off },
            clock,
            budget_bytes,
            locked_bytes: AtomicU64::new(0),
            is_unsupported: AtomicBool::new(false),
            copied_for: Mutex::default(),
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

    /// What became of all of them so far.
    pub(crate) fn sends(&self) -> ZeroCopySends {
        ZeroCopySends {
            mapped_bytes: self.mapped_bytes.load(Ordering::Relaxed),
            copied_bytes: self.copied_bytes.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Books one send; `None`: it has to go the ordinary way.
    fn reserve(self: &Arc<ZeroCopyPolicy>, peer: IpAddr, bytes: u64) -> Option<ZeroCopyLease> {
        let barred = self.is_unsupported.load(Ordering::Relaxed) || self.is_excluded(peer);
        if bytes < ZERO_COPY_MIN_BYTES || barred {
            return None;
        }
        let bytes = charged_bytes(bytes);
        let with_it = |locked: u64| Some(locked + bytes).filter(|locked| *locked <= self.budget_bytes);
        self.locked_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_it).ok()?;
        Some(ZeroCopyLease { zero_copy: Arc::clone(self), bytes })
    }

    fn is_excluded(&self, peer: IpAddr) -> bool {
        let mut copied_for = self.copied_for();
        if copied_for.is_empty() {
            return false;
        }
        let now = self.clock.now();
        while copied_for.front().is_some_and(|(_, until)| *until <= now) {
            copied_for.pop_front();
        }
        copied_for.iter().any(|(copied, _)| *copied == peer)
    }

    /// Takes in what the kernel made of a send.
    fn record_usage(&self, peer: IpAddr, usage: CopyOutcome, bytes: u64) {
        match usage {
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
        let mut copied_for = self.copied_for();
        if copied_for.iter().any(|(copied, _)| *copied == peer) {
            return;
        }
        tracing::debug!(%peer, "the kernel copies what goes there: sent the ordinary way from now on");
        if copied_for.len() == ZERO_COPY_COPIED_PEERS {
            copied_for.pop_front();
        }
        copied_for.push_back((peer, self.clock.now().plus_ms(ZERO_COPY_RETRY_MS)));
    }

    /// Whether a send failed by being one without a copy, so that the ordinary way is open.
    fn is_fallback_error(&self, error: &io::Error) -> bool {
        match error.raw_os_error() {
            Some(libc::ENOMEM | libc::ENOBUFS) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                true
            }
            Some(libc::EINVAL | libc::EOPNOTSUPP) => {
                if !self.is_unsupported.swap(true, Ordering::Relaxed) {
                    tracing::info!(%error, "this kernel sends nothing without a copy");
                }
                true
            }
            // Nothing was sent, and it was not the peer.
            Some(libc::EINTR | libc::EAGAIN) => true,
            _ => false,
        }
    }

    fn copied_for(&self) -> MutexGuard<'_, VecDeque<(IpAddr, Moment)>> {
        self.copied_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be locked by sends, of what the user may lock in all; no limit: `None`.
fn locked_budget_bytes(limit: Option<u64>) -> u64 {
    limit.map_or(ZERO_COPY_LOCKED_MAX, |limit| (limit / ZERO_COPY_LOCKED_SHARE).min(ZERO_COPY_LOCKED_MAX))
}

/// What the kernel charges at most for a send of so many bytes: whole pages, one more where they begin in the middle of one, and
/// one for the frame's head.
fn charged_bytes(bytes: u64) -> u64 {
    let page_bytes = rustix::param::page_size() as u64;
    (bytes.div_ceil(page_bytes) + 2) * page_bytes
}

/// Locked memory of one send, until the kernel has notified of it.
#[derive(Debug)]
struct ZeroCopyLease {
    zero_copy: Arc<ZeroCopyPolicy>,
    bytes: u64,
}

impl Drop for ZeroCopyLease {
    fn drop(&mut self) {
        self.zero_copy.locked_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The way to one peer without a copy.
#[derive(Debug)]
pub(crate) struct ZeroCopyRoute {
    ring: Rc<SideRing>,
    zero_copy: Arc<ZeroCopyPolicy>,
    peer: IpAddr,
}

impl ZeroCopyRoute {
    /// By this thread's ring.
    pub(crate) fn new(ring: Rc<SideRing>, zero_copy: Arc<ZeroCopyPolicy>, peer: IpAddr) -> ZeroCopyRoute {
        ZeroCopyRoute { ring, zero_copy, peer: peer.to_canonical() }
    }

    /// Sends the beginning of `parts`, as a rule all of it; `None`: nothing was sent, and it has to go the ordinary way.
    pub(crate) async fn send(&self, socket: &Rc<TcpStream>, parts: &[SendPart]) -> Option<io::Result<usize>> {
        let bytes: usize = parts.iter().map(SendPart::len).sum();
        if !self.ring.has_room() {
            return None;
        }
        let lease = self.zero_copy.reserve(self.peer, bytes as u64)?;
        let (zero_copy, peer) = (Arc::clone(&self.zero_copy), self.peer);
        let report = Box::new(move |usage, bytes| {
            zero_copy.record_usage(peer, usage, bytes);
            drop(lease);
        });
        match self.ring.send(socket, parts.to_vec(), report).await {
            Err(error) if self.zero_copy.is_fallback_error(&error) => None,
            sent => Some(sent),
        }
    }
}
