//! Makes the state durable: a replicated log, and the tables to which it is applied, in one file.
//!
//! ```text
//!   propose(command) ──► node ─proposal─► runner ──► consensus library ◄──► network   (the other trackers)
//!                         │              location      │           │
//!                         │                         log_store  machine_store ──► snapshot
//!                         │                            │           │ state::machine over tables
//!   view() ◄── tables ◄───┴─────────────────────────► store ◄──────┘
//!                                         │ one redb file, checked through an overlay and against the witness
//!                                        disk
//!
//!   founding (pure) ◄── prepare ──► cluster_key       who may begin a log
//!   inspect ──► store      published: shared by node and runner      raft_types, fault, limits: below all of it
//! ```
//!
//! Order of writes, each step after the one before:
//! 1. the entry, with everything applied before it: one sync for all commands that waited together;
//! 2. the witness: the number of that change, not synced;
//! 3. the rows that the entry changes: not synced, they become durable with the next entry;
//! 4. the answers to the proposals.
//!
//! Killing the process loses none of 1 to 3. A loss of power loses at most 2 and 3, and the entry replaces them. A command
//! without an answer is in the log as a whole or not at all.

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
pub use location::{LogDirectory, LogLocation, NamedFile};
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
