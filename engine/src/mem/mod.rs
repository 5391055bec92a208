//! First of two fences for unsafe code: mapped files, buffers lent to the kernel, and the guard against files
//! that shrink while mapped.
//!
//! ```text
//!            Source, Target (storage)          connections (driver)
//!                 │                               │            │
//!                 ▼                               ▼            ▼
//!   guard ◄── Mapping ◄──── MappedWindow ◄───── SendPart    BufferPool
//!   (SIGBUS)                                  send: ring,   (received bytes)
//!                                             sendmsg
//!                                             side_ring: zero-copy
//! ```
//!
//! All unsafe code of the engine is here and in `hash::simd`, except one call in [`storage::source`]. Only
//! the leaf [`lock`](crate::lock) is used from outside of this module.
//!
//! Invariants:
//! * No Rust reference to mapped bytes exists, except through [`Mapping::borrow`], which is unsafe to call.
//! * A mapping outlives its windows, and a window every kernel operation that reads it.
//! * A buffer in flight belongs to the kernel: it is passed by value and returned with the result. A
//!   zero-copy buffer returns when the kernel has notified that it holds no page of it any more.
//!
//! [`storage::source`]: crate::storage::source
//! [`Mapping::borrow`]: mapping::Mapping::borrow
#![allow(unsafe_code, reason = "one of the two fences for unsafe code; each block has a safety comment")]

mod guard;

pub mod limits;
pub mod mapping;
pub mod pool;
pub mod send;
pub mod side_ring;
pub mod window;
pub mod writeback;
