//! The benchmarks, one file each.
//!
//! ```text
//!   hash     every way of hashing, beside one pass of the sha1 crate
//!   tracker  a tracker under load, at a fixed rate and at its most
//! ```
//!
//! Each has a `run` that takes its arguments, measures, puts records into a sink and hands it to the report. A new one is
//! a file here, its arguments in `cli`, and a line in `main`.

pub(crate) mod hash;
pub(crate) mod tracker;
