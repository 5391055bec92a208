//! What the replica promises, tested with disks that lose writes, lie and fill up, and with kill -9.
//!
//! ```text
//!   rig: a replica and its commands    real: trackers as processes    crash_disk: a disk that loses unsynced writes
//!   power: loss of power   damage: flipped bits, cut files   full: no space   commit: shared syncs
//!   kill: real trackers; worlds: what is written to them             syncs: system calls, by trace
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
