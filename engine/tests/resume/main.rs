//! Downloads that are killed, or whose machine is, and go on: what is received and hashed again is counted.
//!
//! ```text
//!   tests ──► child (this program again, as a leecher that is killed) ──► one line of figures at a time
//!     ├─────► trace   its calls to the disk, by strace
//!     ├─────► parts   what is there before: partial files, a source that never gives the last piece
//!     └─────► left    what is in the directory after a kill: pieces that are right, the record, a lossy disk
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod child;
mod kills;
mod left;
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

/// Length of a piece, as slices count.
const PIECE: usize = PIECE_BYTES as usize;

/// Bytes that a kill may cost in hashing, at most.
const CHECKED_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that it does cost: what the workers, and the thread that goes on with what was left, were writing.
const CHECKED_BYTES: u64 = ((engine::config::WORKERS_MAX + 1) * PIECE) as u64;
const _: () = assert!(CHECKED_BYTES <= CHECKED_MAX_BYTES);
