//! What was measured, as records: on standard output while it happens, and in a folder for later.
//!
//! ```text
//!   workloads ─► sink ─┬─► standard output   a record a line (`--json`)
//!                │     └─► folder            DIR/ID.jsonl, DIR/ID.hlog
//!                │           └─► read back, with all earlier runs ─► report
//!                ├─► record    what a line is
//!                ├─► shape     how many take part, in a workload's name
//!                ├─► summary   samples ─► results and their ratios
//!                └─► latency   histograms, in the forms that other tools read
//!   calendar: dates for names    revision: what was measured    limits: the numbers
//! ```
//!
//! Invariant: a line is written when it is known, so that a run that is ended early leaves what it had measured.

mod calendar;
pub(crate) mod folder;
pub(crate) mod latency;
pub(crate) mod node_counts;
pub(crate) mod record;
pub(crate) mod sink;
pub(crate) mod summary;
