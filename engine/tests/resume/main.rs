//! Resuming downloads after a kill or a crash of the machine. Counts what is received and hashed again.
//!
//! ```text
//!   tests ──► child      this program again, as a leecher that is killed; prints its progress
//!     ├─────► trace      its disk calls, by strace
//!     ├─────► parts      existing partial files, and a source that never gives the last piece
//!     └─────► leftovers  the directory after a kill: correct pieces, the record, a disk that lost data
//! ```
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod child;
mod kills;
mod leftovers;
#[path = "../rig/partial_files.rs"]
mod partial_files;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../rig/scripted_provider.rs"]
mod scripted_provider;
mod starts;
mod syncs;
#[path = "../rig/trace.rs"]
mod trace;
#[path = "../rig/wire.rs"]
mod wire;

use engine::proto::units::PIECE_BYTES;

/// Length of a piece, for slices.
const PIECE: usize = PIECE_BYTES as usize;
