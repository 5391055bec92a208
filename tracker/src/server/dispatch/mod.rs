//! From requests to answers: the only place that joins the protocol ([`api`](crate::api)) and the state
//! ([`state`](crate::state)).
//!
//! ```text
//!   Request ─► begin ─┬─► accounts   create_user login logout whoami change_password
//!              │      ├─► groups     create join leave … list_groups
//!              │      ├─► files      upload_file list_files stop_share remove_file
//!              │      └─► swarms     download_file get_peers update_pieces report_peer ping status
//!              ▼             │
//!            Step ◄──────────┘  Answer · Late · Password(job, next) · Propose(command, next)
//!                               service: what all of these build on; replies: refusals as failures, with what to type
//! ```
//!
//! Nothing here waits: what takes time is a [`Step`] with the continuation to call when it is done. Requests of one
//! connection are begun one at a time.

mod accounts;
mod begin;
mod files;
mod groups;
mod replies;
mod service;
mod swarms;

pub(super) use replies::{Reply, busy, internal};
pub(super) use service::{Caller, Decision, Next, Service, Step};
