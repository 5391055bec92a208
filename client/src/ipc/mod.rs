//! What passes between a node and its front ends: typed questions, events and answers, one JSON object a line.
//!
//! ```text
//!   front end (prompt, one-shot command)                              node
//!   link::NodeLink ── Ask ──► ┐   Unix socket in the state     ┌ ──► node::desk
//!                 ◄─ Tell ──── ┘   directory, or a socket pair  └ ◄── events::Events
//!                                  within one process
//!   wire: lines with a limit      protocol: Ask, Tell, Event, Answer      rows: what answers are made of
//! ```
//!
//! A command is written once, since both ways are the same stream.

pub(crate) mod connection;
pub(crate) mod json_lines;
pub(crate) mod protocol;
pub(crate) mod rows;
