//! The node: shares and fetches for the user, on behalf of front ends in this process and others.
//!
//! ```text
//!   front ends ══ Unix socket ══► socket ──► desk ──┬──► shares ─────┐
//!                                   │               ├──► downloads ──┼──► core ──┬──► trackers (one link)
//!                 notices ◄─────────┘               │     keeper     │           ├──► peer (the engine)
//!                                                   └──► steering ───┤           ├──► registry (what is shared)
//!                  bell ──► comeback ──► restore, downloads ─────────┤           └──► records ──► private (files)
//!                                        pulse ──────────────────────┘    state (directory, lock) ────┘
//!
//!   describe, listing, comparing, revival, following, schedule, view, entry, dormant, former, outlook, claims: what these work with
//! ```
//!
//! Threads: one accepts front ends, one serves each of them, one keeps each download supplied, one tells the trackers
//! that the node is there, one brings back what an earlier process had, and one
//! compares for it what is at destinations. What they share lies in [`core`]. The node's end
//! wakes each of them: the pulse pauses on `ending`, the one that brings back on `bell`, which rings then too; who serves a front end or
//! keeps a download looks at `ending` every second or more often. Whoever changes what the node has of a file holds its
//! claim ([`locks`]).

mod core;
mod disk;
mod downloads;
mod events;
mod heartbeat;
mod locks;
mod notices;
mod peer;
mod recovery;
mod retry_policy;
mod revival;
mod rows;
mod runtime;
mod serve;
mod share;
mod shares;
mod shutdown;
pub(crate) mod trackers;
mod wakeup;

pub(crate) use disk::records::{accepts_download_record, accepts_share_record};
pub(crate) use disk::state_dir;
pub(crate) use runtime::NodeRuntime;
