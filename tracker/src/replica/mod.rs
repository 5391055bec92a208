//! What makes the state last: a replicated log and the tables that it is applied to, in one file.
//!
//! ```text
//!   propose(command) ──► node ─proposal─► life ──► consensus library ◄────► network   (the other trackers)
//!                         │             location    │           │
//!                         │                         log_store  machine_store ──► snapshot
//!                         │                            │           │ state::Machine over tables
//!   view() ◄── tables ◄───┴─────────────────────────► store ◄──────┘
//!                                         │ one redb file, checked through an overlay, vouched for by a witness
//!                                        disk
//!
//!   founding (pure) ◄── found ──► cluster_key              who may begin a log
//!   inspect ──► store             shared: what node and life both know; kinds, fault, limits: below all of it
//! ```
//!
//! The order in which things reach the disk, each step only after the one before it:
//! 1. the entry, with everything applied before it: one sync for all commands that waited together;
//! 2. the witness: the number of that change, unsynced;
//! 3. the rows that the entry changes: unsynced, they follow with the next entry;
//! 4. the answer to whoever proposed.
//!
//! A process that is killed loses nothing of 1 to 3; a machine that loses power loses at most 2 and 3, which the entry
//! replaces. An unanswered command is in the log whole or not at all.

mod cluster_key;
mod disk;
mod fault;
mod inspect;
mod location;
mod log_store;
mod machine_store;
mod network;
mod node;
mod overlay;
mod prepare;
mod proposal;
mod published;
mod raft_types;
mod runner;
mod snapshot;
mod store;
mod tables;
mod witness;

pub mod founding;
pub mod limits;

pub use cluster_key::{ClusterKey, KEY_FILE};
pub use fault::ReplicaFault;
pub use inspect::print_log;
pub use location::{LogDirectory, LogLocation};
pub use log_store::LogStore;
pub use machine_store::MachineStore;
pub use node::{Replica, ReplicaCounters};
pub use prepare::{FoundingOptions, PrepareError, PreparedLog, log_directory, prepare_log};
pub use proposal::ProposalError;
pub use published::ReplicaOptions;
pub use raft_types::{ApplyResult, BatchAnswers, CommandBatch, RaftTypes};
pub use snapshot::Snapshot;
pub use store::{LOG_FILE, ReplicaStore, WITNESS_FILE};
pub use tables::TablesView;
pub use witness::Witness;
