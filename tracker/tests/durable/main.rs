//! What the replica promises, held against disks that lose, lie and fill up, and against kill -9.
//!
//! ```text
//!   rig: a replica, its commands   real: trackers as processes   crash_disk: a disk in memory that loses what was not synced, or runs full
//!   power: loss of power   damage: flipped bits, cut files   full: no space   kill: real trackers, worlds: what is written to them   commit: shared syncs
//!   syncs: what reaches the system, by trace
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod commit;
mod crash_disk;
mod damage;
mod full;
mod kill;
mod power;
mod real;
mod rig;
mod syncs;
#[path = "../../../engine/tests/rig/trace.rs"]
mod trace;
mod worlds;
