//! The tracker's decisions, without I/O: no clock, socket, file, thread or randomness. Time and random ids are arguments.
//!
//! ```text
//!   command ──► machine ──► account  session  group ──► file      each decides: check everything, then write
//!                  │            └──────┬───┴──────┴───────┘
//!                retry            access  share ──► binding  manifest      shared by several
//!         (first outcome again)       └─────┬─────────┴─────────┘
//!   outcome ◄──────┘       queries ──►   rows ──► tables       rows as bytes, in order
//!
//!   applied commands, requests for peers ──► leases ──► removals            the leader's memory: not replicated
//!                                                └──► peer_choice ──► swarm ──► lease_memory
//!   row_key, id, node, serde_forms, limits: below all of it
//! ```
//!
//! Invariants:
//! * Only [`StateMachine::apply`](machine::StateMachine::apply) changes a table. It depends on the tables and the command
//!   alone: the same commands give the same bytes everywhere.
//! * A refused command changes nothing but the refusal remembered under its request id.
//! * A group has at least one member, and its owner is a member; only members have shares in it.
//! * No row is longer than [`ROW_MAX_BYTES`](limits::ROW_MAX_BYTES), and no step reads a whole manifest.

mod access;
mod account;
mod binding;
mod file;
mod group;
mod lease_memory;
mod manifest;
mod peer_choice;
mod removals;
mod retry;
mod row_key;
mod rows;
mod serde_forms;
mod session;
mod share;
mod swarm;

pub mod command;
pub mod id;
pub mod leases;
pub mod limits;
pub mod machine;
pub mod node;
pub mod outcome;
pub mod queries;
pub mod tables;

#[cfg(test)]
pub(crate) mod memory_tables;
#[cfg(test)]
mod tests;
