//! Dispatch: carries out requests of the control protocol ([`api`](crate::api)) on the replicated state
//! ([`state`](crate::state)). No other module knows both.
//!
//! ```text
//!   Request ─► routing ─┬─► accounts   create_user login logout whoami change_password
//!                       ├─► groups     create_group join_group leave_group …
//!                       ├─► files      upload_file stop_share remove_file
//!                       ├─► lists      list_groups list_files list_requests, page by page
//!                       └─► swarms     download_file (its classic view, on a worker thread: classic) get_peers update_pieces report_peer ping status
//!                                      check_address
//!                              │
//!       RequestStep ◄──────────┘    all of them use `service` (state, keys, caches) and `replies` (messages)
//! ```
//!
//! Invariants: nothing here blocks; what takes time is a [`RequestStep`] with the continuation to call with
//! its result. The requests of one connection are begun one at a time.

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

pub(super) use replies::{Reply, internal_failure, proposal_failure, too_many_checks, unreadable_state};
pub(super) use routing::AnswerRoom;
pub(super) use service::{Caller, Continuation, Decision, RequestStep, Service, StepResult};
