//! Results as records: on standard output as they arrive, and in a folder for later reports.
//!
//! ```text
//!   workloads ─► sink ─┬─► standard output   one record a line (`--json`)
//!                │     └─► folder            DIR/ID.jsonl, DIR/ID.hlog
//!                │           └─► read back, with all earlier runs ─► report
//!                ├─► record       the types of records
//!                ├─► node_counts  seeders and leechers, in a workload's name
//!                ├─► summary      samples ─► results and their ratios
//!                └─► latency      histograms, in the encodings of other tools
//!   calendar: UTC dates in the names of runs
//! ```
//!
//! Invariant: a record is written at once, so an interrupted run keeps what it has measured.

mod calendar;
pub(crate) mod folder;
pub(crate) mod latency;
pub(crate) mod node_counts;
pub(crate) mod record;
pub(crate) mod sink;
pub(crate) mod summary;
