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
//!   describe, listing, schedule, view, entry, dormant, outlook: what these work with
//! ```
//!
//! Threads: one accepts front ends, one serves each of them, one keeps each download supplied, one tells the trackers
//! that the node is there, one brings back what an earlier process had. What they share lies in [`core`]; each pauses on
//! `ending` and so wakes when the node ends, the last one on `bell`.

mod bell;
mod comeback;
mod core;
mod describe;
mod desk;
mod dormant;
mod downloads;
mod ending;
mod entry;
mod events;
mod keeper;
mod listing;
mod notices;
mod outlook;
mod peer;
mod private;
mod pulse;
mod records;
mod registry;
mod restore;
mod running;
mod schedule;
mod shares;
mod socket;
pub(crate) mod state;
mod steering;
pub(crate) mod trackers;
mod view;

pub(crate) use running::Running;
