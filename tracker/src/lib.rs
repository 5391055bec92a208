//! Shoal's tracker: who exists, who belongs to which group, which files there are and who has what. No file byte ever
//! passes through it.
//!
//! ```text
//!   client, bench ──► api ◄── server ──► state
//!                     │        (mio)       │
//!                     └────► engine ◄──────┘   (proto: pieces, manifests, tickets)
//! ```
//!
//! * [`api`] is pure: the control protocol as clients see it. It builds alone with `--no-default-features`.
//! * `server` (feature `server`) is the mio loop; everything with a socket, a clock or a thread is there.

pub mod api;
