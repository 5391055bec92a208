//! The fence: mapped files, buffers lent to the kernel, and the guard against files that shrink under a mapping.
//!
//! ```text
//!            Source, Target (storage)          connections (driver)
//!                 │                               │            │
//!                 ▼                               ▼            ▼
//!   guard ◄── Mapping ◄───── Window ◄──────── Outgoing      BufferPool
//!   (SIGBUS)                                  send: ring,   (bytes that arrive)
//!                                             sendmsg
//!                                             side_ring: without a copy
//! ```
//!
//! All unsafe code of the engine is here and in `hash::simd`, but for one call that [`storage_wait::source`] argues.
//! The module uses nothing of ours.
//!
//! Invariants:
//! * No Rust reference to mapped bytes is formed, except by [`Mapping::borrow`], which is unsafe to call.
//! * A mapping outlives every window of it, and a window every operation of the kernel that reads it.
//! * A buffer in flight belongs to the kernel: it goes in by value and comes back with the result; one that was sent without a
//!   copy, when the kernel has notified that it holds no page of it any more.
//!
//! [`storage_wait::source`]: crate::storage::source
//! [`Mapping::borrow`]: mapping::Mapping::borrow
#![allow(unsafe_code, reason = "this folder is one of the two fences; every block argues its case")]

mod guard;

pub mod limits;
pub mod mapping;
pub mod pool;
pub mod send;
pub mod side_ring;
pub mod window;
pub mod writeback;
