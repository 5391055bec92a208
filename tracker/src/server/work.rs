//! A request that is being carried out: what it waits for, and what it needs when that comes.

use serde_json::Value;

use crate::api::request::Request;

use super::bodies;
use super::dispatch::{Continuation, Decision, Reply};
use super::passwords;

/// A request that is being carried out.
pub(super) struct ActiveRequest {
    /// Memory that it holds beside the connection's buffers, in bytes.
    pub(super) held_bytes: usize,
    /// Room set aside for its answer, in bytes.
    pub(super) reserved_bytes: usize,
    /// When it came, in milliseconds: delays count from here, so that waiting for a hash is part of them.
    pub(super) received_ms: u64,
    /// Echoed in the answer.
    pub(super) request_id: Option<Value>,
    /// What it waits for.
    pub(super) stage: RequestStage,
}

/// What a request waits for.
pub(super) enum RequestStage {
    /// Room among the answers, since its own may be long; or the turn of its list.
    AwaitingRoom(Box<Request>),
    /// The turn of the next page of its list.
    AwaitingListTurn(Continuation<()>),
    /// Room among the large bodies.
    AwaitingWorker(bodies::BodyJob),
    /// Its large body is being parsed.
    Parsing,
    /// A password's hash.
    AwaitingPassword(Continuation<passwords::PasswordResult>),
    /// A decision of the state.
    AwaitingDecision(Continuation<Decision>),
    /// The end of a delay.
    AwaitingDelay(Box<Reply>),
    /// Its large answer is being built or rendered.
    Rendering,
    /// Nothing: the loop is at it.
    Running,
}

impl ActiveRequest {
    /// Work on a message just taken.
    pub(super) fn new(held_bytes: usize, received_ms: u64) -> ActiveRequest {
        ActiveRequest {
            held_bytes,
            reserved_bytes: 0,
            received_ms,
            request_id: None,
            stage: RequestStage::Running,
        }
    }
}
