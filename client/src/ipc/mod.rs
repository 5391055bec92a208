//! The protocol between a node and its front ends: typed requests, events and answers, one JSON object per line.
//!
//! ```text
//!   front end (prompt, one-shot command)                                        node
//!   connection::NodeConnection ── NodeRequest ──► ┐  Unix socket in the state  ┌ ──► node::serve
//!                              ◄─ NodeMessage ─── ┘  directory, or a socket    └ ◄── node::events
//!                                                    pair within one process
//!   json_lines: lines with a length limit    protocol: the messages    rows: parts of answers
//! ```
//!
//! A node in the same process is reached over a socket pair, so there is only one code path.

pub(crate) mod connection;
pub(crate) mod json_lines;
pub(crate) mod path_form;
pub(crate) mod protocol;
pub(crate) mod rows;
