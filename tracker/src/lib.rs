//! Shoal's tracker: who exists, who belongs to which group, which files there are and who has what. No file byte ever
//! passes through it.
//!
//! ```text
//!   client, bench ──► api ◄── server ──► state
//!                     │        (mio)       │       api uses state's ids, and nothing else of it
//!                     └────► engine ◄──────┘       (proto: pieces, manifests, tickets)
//! ```
//!
//! * [`api`] is pure: the control protocol as clients see it.
//! * [`state`] is pure: the replicated state machine, and the leader's memory of who is online.
//! * `server` (feature `server`) is the mio loop; everything with a socket, a clock or a thread is there.
//!
//! The pure parts build alone with `--no-default-features`.

pub mod api;
#[cfg(feature = "server")]
pub mod server;
pub mod state;
