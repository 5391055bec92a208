//! The node: shares and downloads files for its user, on behalf of front ends in this process and others.
//!
//! ```text
//!   front ends ══ Unix socket ══► serve ──┐
//!                                         ├──► downloads ──► shares ──► core ──┬──► trackers ──┐
//!                         recovery ───────┘                    ▲               ├───────────────┴──► peer (the engine)
//!       heartbeat, reachability (the tracker calls back) ──────┘               ├──► disk (state directory, records)
//!                                                                              └──► events, locks, shutdown
//! ```
//!
//! Threads: one accepts front ends, one serves each of them, one announces each running download, one sends
//! heartbeats, one recovers, and one compares files at destinations for that. They share [`core`], [`shares`]
//! and [`downloads`]. A thread that changes a share or a download holds its lock ([`locks`]). All of them end
//! with the shutdown latch: they wait on it, are woken when it is set, or check it once a second.

mod core;
mod disk;
mod downloads;
mod events;
mod heartbeat;
mod locks;
#[cfg(test)]
mod locks_model;
#[cfg(test)]
mod locks_tests;
mod peer;
mod reachability;
mod recovery;
mod retry_policy;
mod rows;
mod runtime;
mod serve;
mod shares;
mod shutdown;
mod sync;
mod tracker_time;
pub(crate) mod trackers;

pub(crate) use disk::records::{accepts_download_record, accepts_share_record};
pub(crate) use disk::state_dir;
pub(crate) use runtime::NodeRuntime;
