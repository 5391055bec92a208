//! Shoal's tracker: keeps users, groups, lists of files, and which node shares what. File bytes never pass through it.
//!
//! ```text
//!   client, bench ──► api ◄── server ──► replica ──► state
//!                     │        (mio)      (log)        │    api uses state's ids, and nothing else of it
//!                     └─────────► engine ◄─────────────┘    (proto: pieces, manifests, tickets)
//! ```
//!
//! * [`api`] is pure: the control protocol as clients see it.
//! * [`state`] is pure: the replicated state machine, and the leases of sessions that are online.
//! * `replica` (feature `server`) stores the state: the replicated log and the tables, in one file.
//! * `server` (feature `server`) is the mio loop: sockets, clocks and worker threads.
//!
//! The pure parts build alone with `--no-default-features`.

pub mod api;
#[cfg(feature = "server")]
pub mod replica;
#[cfg(feature = "server")]
pub mod server;
pub mod state;
