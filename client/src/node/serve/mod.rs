//! Serves front ends: [`socket`] accepts them and reads their requests, [`requests`] handles each request.
//!
//! ```text
//!   front end ══ Unix socket ══► socket ──► requests ──► downloads, shares, trackers
//! ```

pub(crate) mod requests;
pub(crate) mod socket;
