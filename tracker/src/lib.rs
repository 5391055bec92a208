//! Shoal's tracker: users, groups, files and who has what. File bytes never pass through it.
//!
//! * [`state`] is pure: the replicated state machine, and the leader's memory of who is online.

pub mod state;
