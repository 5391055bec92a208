//! A request that is being carried out: what it waits for, and what it needs when that comes.

use serde_json::Value;

use crate::api::request::Request;

use super::bodies;
use super::dispatch::{Decision, Next, Reply};
use super::passwords;

/// A request that is being carried out.
pub(super) struct Work {
    /// Memory that it holds beside the connection's buffers, in bytes.
    pub(super) held_bytes: usize,
    /// Room set aside for its answer, in bytes.
    pub(super) reserved_bytes: usize,
    /// When it came, in milliseconds: delays count from here, so that waiting for a hash is part of them.
    pub(super) since_ms: u64,
    /// Echoed in the answer.
    pub(super) request_id: Option<Value>,
    /// What it waits for.
    pub(super) stage: Stage,
}

/// What a request waits for.
pub(super) enum Stage {
    /// Room among the answers, since its own may be long; or the turn of its list.
    Parked(Box<Request>),
    /// The turn of the next page of its list.
    Listing(Next<()>),
    /// Room among the large bodies.
    Queued(bodies::Job),
    /// Its large body is being parsed.
    Parsing,
    /// A password's hash.
    Hashing(Next<passwords::Done>),
    /// A decision of the state.
    Deciding(Next<Decision>),
    /// The end of a delay.
    Late(Box<Reply>),
    /// Its large answer is being built or rendered.
    Rendering,
    /// Nothing: the loop is at it.
    Running,
}

impl Work {
    /// Work on a message just taken.
    pub(super) fn new(held_bytes: usize, since_ms: u64) -> Work {
        Work { held_bytes, reserved_bytes: 0, since_ms, request_id: None, stage: Stage::Running }
    }
}
