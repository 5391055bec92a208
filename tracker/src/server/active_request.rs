//! One request that is being carried out, and what it waits for.
//!
//! Invariant: a request waits for one thing at a time. It is [`RequestStage::Running`] between two waits, and
//! only while the loop works on it.

use serde_json::Value;

use crate::api::answers::AddressProblem;
use crate::api::request::Request;

use super::bodies::BodyJob;
use super::dispatch::{Continuation, Decision};
use super::passwords::PasswordResult;

/// A request, from the moment its message is taken until its answer is appended.
pub(super) struct ActiveRequest {
    /// Memory that the request holds beside the connection's buffers, in bytes.
    pub(super) held_bytes: usize,
    /// Room reserved for its answer, in bytes.
    pub(super) reserved_bytes: usize,
    pub(super) request_id: Option<Value>,
    stage: RequestStage,
}

/// What a request waits for, with what it needs to go on then.
pub(super) enum RequestStage {
    /// Room for its answer.
    AwaitingRoom(Box<Request>),
    /// The turn of the next page of its list.
    AwaitingListTurn(Continuation<()>),
    /// A place in the queue of the body workers.
    AwaitingWorker(BodyJob),
    /// A worker parses its large body.
    Parsing,
    /// A worker hashes or compares a password.
    AwaitingPassword(Continuation<PasswordResult>),
    /// A worker calls a node back.
    AwaitingAddressCheck(Continuation<Result<(), AddressProblem>>),
    /// The state machine's decision.
    AwaitingDecision(Continuation<Decision>),
    /// A worker builds or renders its large answer.
    Rendering,
    /// Nothing: the loop works on it.
    Running,
}

impl ActiveRequest {
    pub(super) fn new(held_bytes: usize) -> ActiveRequest {
        ActiveRequest { held_bytes, reserved_bytes: 0, request_id: None, stage: RequestStage::Running }
    }

    /// Starts to wait.
    pub(super) fn wait_for(&mut self, stage: RequestStage) {
        assert!(matches!(self.stage, RequestStage::Running), "a request waits for one thing at a time");
        self.stage = stage;
    }

    /// Ends the wait, and gives what the request needs to go on.
    pub(super) fn take_stage(&mut self) -> RequestStage {
        std::mem::replace(&mut self.stage, RequestStage::Running)
    }
}
