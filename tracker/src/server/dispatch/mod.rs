//! From requests to answers: the only place that joins the protocol ([`api`](crate::api)) and the state
//! ([`state`](crate::state)).
//!
//! ```text
//!   Request ─► begin ─┬─► accounts   create_user login logout whoami change_password
//!              │      ├─► groups     create join leave …
//!              │      ├─► files      upload_file stop_share remove_file
//!              │      ├─► lists      list_groups list_files list_requests, page by page
//!              │      └─► swarms     download_file (classic: its longest part) get_peers update_pieces report_peer ping status
//!              ▼             │
//!            Step ◄──────────┘  Answer · Late · Build · More(next) · Password(job, next) · Propose(command, next)
//!                               service: what all of these build on; replies: refusals as failures, with what to type
//! ```
//!
//! Nothing here waits: what takes time is a [`RequestStep`] with the continuation to call when it is done. Requests of one
//! connection are begun one at a time.

mod accounts;
mod classic;
mod files;
mod groups;
mod lists;
mod replies;
mod routing;
mod service;
mod swarms;

#[cfg(test)]
mod tests;

pub(super) use replies::{Reply, internal_failure, proposal_failure, too_many_logins, unreadable_state};
pub(super) use routing::AnswerRoom;
pub(super) use service::{Caller, Continuation, Decision, RequestStep, Service};
