//! SHA-1 of pieces and files, as fast as the CPU allows: digests, the chain that makes the file's digest parallel,
//! lanes.
//!
//! ```text
//!   upload (windows: digests by the pool, chain and file digest by one pass)
//!     ├─► file    one sequential pass            verify  pieces against digests and links
//!     └─► hasher  one digest, or many ◄─────────────┘
//!            └─► lanes  which pieces go together ─► simd  THE FENCE: block functions
//!            └─► kind   what this CPU has ────────────┘
//!   block: states, blocks, padding       limits: every number
//! ```
//!
//! Pure computation over borrowed bytes: no file, no socket, no clock; only [`upload`] has threads. Whoever lends the
//! bytes of a mapping vouches for them (`storage`).

mod block;
mod file_hash;
mod hasher;
mod kind;
mod lanes;
mod limits;
mod simd;
pub mod upload;
mod verify;

#[cfg(test)]
mod tests;

pub use file_hash::FileHash;
pub use hasher::Hasher;
pub use kind::{HashKind, UnknownKind, UnsupportedKind};
pub use upload::{FileHasher, FileHashes, PoolError, WindowHashes, WindowSource};
pub use verify::{HashVerdict, LinkCheck, LinkEnd, PieceJob};
