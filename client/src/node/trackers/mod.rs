//! The node's side of the control protocol: one connection, requests answered in order.
//!
//! ```text
//!   --trackers, tracker_info.txt, last login ──► locator ──► connection (TCP, to the first that accepts)
//!                                                                 ▲
//!   the node's threads ──► client (session, request ids, reconnecting) ── refusal ──► ClientFault
//!                             └──► exchange (one request), standing (whether the tracker knows the login)
//! ```
//!
//! Requests and answers are `tracker::api`'s types; this module writes no JSON of the control protocol itself.

mod client;
mod connection;
mod exchange;
mod locator;
mod refusal;
mod standing;

use crate::exit::{ClientFault, ExitCause};

pub(crate) use client::{RequestUrgency, TrackerClient};
pub(crate) use exchange::ping_tracker;
pub(crate) use locator::TrackerLocator;
pub(crate) use standing::TrackerStanding;

/// No tracker can be reached; `tried` lists the addresses and errors.
pub(crate) fn no_tracker_fault(tried: &str) -> ClientFault {
    ClientFault::new(ExitCause::NoTracker, format!("no tracker can be reached ({tried})"))
        .fix("start one with `tracker`, or name the right ones with `--trackers HOST:PORT`; `client doctor` shows details")
}
