//! The node: shares and fetches for the user, on behalf of front ends in this process and others.
//!
//! ```text
//!   front ends ══ Unix socket ══► socket ──► desk ──┬──► shares ─────┐
//!                                   │               ├──► downloads ──┼──► core ──┬──► trackers (one link)
//!                 notices ◄─────────┘               │      keeper ───┘           └──► peer (the engine)
//!                                        pulse ─────┘   describe, listing, schedule, view      registry (what is shared)
//!                                                                                      state (directory, lock) ─► private (files)
//! ```
//!
//! Threads: one accepts front ends, one serves each of them, one keeps each download supplied, one tells the trackers
//! that the node is there. What they share lies in [`core`]; each pauses on `ending` and so wakes when the node ends.
//!
//! Place kept for what comes next: a restarted node finds session and key in its state directory; records of shares
//! and downloads will lie beside them.

mod core;
mod describe;
mod desk;
mod downloads;
mod ending;
mod entry;
mod events;
mod keeper;
mod listing;
mod notices;
mod peer;
mod private;
mod pulse;
mod registry;
mod running;
mod schedule;
mod shares;
mod socket;
pub(crate) mod state;
pub(crate) mod trackers;
mod view;

pub(crate) use running::Running;
