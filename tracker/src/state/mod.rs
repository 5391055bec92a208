//! The tracker's decisions, pure: no clock, socket, file, thread or randomness. Time and random ids come as arguments.
//!
//! ```text
//!   command ──► machine ──► account  session  group ──► file         each decides: check all, then write
//!                  │            └──────┬───┴──────┴───────┘
//!       wish ◄── retry        acting  membership  share ──► binding  manifest    what several need
//!        (first outcome again)     └───────┬────────┴──────────┴────────┘
//!   outcome ◄──────┘       queries ──►   rows ──► tables ◄── memory  rows as bytes, in order
//!
//!   command, outcome, peers that ask ──► lease ──► swarm             the leader's memory: not replicated
//!   key, id, node, form, limits: below all of it
//! ```
//!
//! Invariants:
//! * Nothing changes a table but [`StateMachine::apply`](machine::Machine::apply), and what it does depends on the tables and
//!   the command alone: the same commands give the same bytes everywhere.
//! * A refused command changes nothing, save that its refusal is remembered under its request id.
//! * A group has at least one member, and its owner is one; only members have shares in it.
//! * No row exceeds [`ROW_MAX_BYTES`](limits::ROW_MAX_BYTES), and no step reads a manifest whole.

mod access;
mod account;
mod binding;
mod file;
mod group;
mod manifest;
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
