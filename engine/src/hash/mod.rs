//! SHA-1 of pieces and files at the CPU's full speed: digests, lanes, and the chain that makes a file's
//! digest parallel.
//!
//! ```text
//!   upload (windows: digests by the pool, chain and file digest by one pass)
//!     ├─► file_hash  one sequential pass       verify  pieces against digests and links
//!     └─► hasher     one digest, or many ◄─────────┘
//!            └─► lanes  which pieces go together ─► simd  fence for unsafe: block functions
//!            └─► kind   what this CPU supports ───────┘
//!   block: states, blocks, padding           limits: every number
//! ```
//!
//! Pure computation over borrowed bytes: no file, no socket, no clock; only [`upload`] has threads. The
//! lender of mapped bytes (`storage`) is responsible for them.

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
