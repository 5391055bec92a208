//! Engines against peers that lie, break and dawdle, and against files that are not what somebody stated.
//!
//! ```text
//!   providers ──► liar (a scripted provider) ──┐
//!   consumers ──► caller (a scripted consumer) ┴─► wire (frames over a plain socket)
//!   manifests, lost, disk ──► rig (engines in this process)
//!   ring, zero_copy ──► seeder (an engine in a process of its own) ──► rig
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod caller;
mod consumers;
mod disk;
#[path = "../rig/liar.rs"]
mod liar;
mod lost;
mod manifests;
mod providers;
#[path = "../rig/mod.rs"]
mod rig;
mod ring;
mod seeder;
#[path = "../rig/wire.rs"]
mod wire;
mod zero_copy;

use engine::proto::units::PIECE_BYTES;

/// Bytes of a whole piece.
const PIECE: usize = PIECE_BYTES as usize;
