//! The benchmarks, one file each.
//!
//! ```text
//!   hash      every way of hashing, beside one pass of the sha1 crate
//!   transfer  a file from seeders to leechers, beside the floor and the field
//!   compare   the same by two builds or with two settings
//!   tracker   a tracker under load, at a fixed rate and at its most
//!   host      what the machine is, with the filesystem that a run would use
//!   swarm     one seeder and many leechers, each with an uplink of its own
//! ```
//!
//! Each has a `run` that takes its arguments, measures, puts records into a sink and hands it to the report. A new one is
//! a file here, its arguments in `cli`, and a line in `main`.

pub(crate) mod compare;
pub(crate) mod hash;
pub(crate) mod host;
pub(crate) mod swarm;
pub(crate) mod tracker;
pub(crate) mod transfer;
