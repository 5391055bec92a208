//! Engines against peers that lie, fail and stall, and against files that differ from their manifest.
//!
//! ```text
//!   providers ──► scripted_provider ─┐
//!   consumers ──► scripted_consumer ─┴─► wire (frames over a plain socket)
//!   manifests, lost, disk ──► rig (engines in this process)
//!   ring, zero_copy ──► seeder (an engine in another process) ──► rig
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod consumers;
mod disk;
mod lost;
mod manifests;
mod providers;
#[path = "../rig/mod.rs"]
mod rig;
mod ring;
mod scripted_consumer;
#[path = "../rig/scripted_provider.rs"]
mod scripted_provider;
mod seeder;
#[path = "../rig/wire.rs"]
mod wire;
mod zero_copy;

use engine::proto::units::PIECE_BYTES;

/// Bytes of a whole piece.
const PIECE: usize = PIECE_BYTES as usize;
