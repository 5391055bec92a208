//! Shoal's transfer engine: very large files in pieces, fetched from all peers that have some, each verified by SHA-1.
//!
//! ```text
//!   engine, download ─► driver (threads, rings, sockets) ──► proto (pure: what to request, send, trust)
//!                            │      └────► hash (digests, chain, lanes)
//!                            └──► storage (source, target) ──► mem (mappings: the fence for unsafe)
//! ```
//!
//! * [`proto`] is pure: no clock, socket, file, thread or unsafe code. It builds alone with `--no-default-features`.
//! * All other modules need the feature `io` and Linux.

pub mod proto;

#[cfg(feature = "io")]
mod abort;
#[cfg(feature = "io")]
pub mod config;
#[cfg(feature = "io")]
mod download;
#[cfg(feature = "io")]
mod driver;
#[cfg(feature = "io")]
mod engine;
#[cfg(feature = "io")]
pub mod error;
#[cfg(feature = "io")]
pub mod hash;
#[cfg(feature = "io")]
mod local_files;
#[cfg(feature = "io")]
pub mod lock;
#[cfg(feature = "io")]
pub mod mem;
#[cfg(feature = "io")]
pub mod stats;
#[cfg(feature = "io")]
pub mod storage;

#[cfg(feature = "io")]
pub use download::Download;
#[cfg(feature = "io")]
pub use engine::{DownloadOrder, Engine};
#[cfg(feature = "io")]
pub use local_files::{ExistingFile, HashedFile};
