//! Answers: as the server renders them, and as the client reads them.
//!
//! Every answer has `status`, `message` and `epoch`; a failure has `code` too. [`Response`] is written, [`Received`] is
//! read: which fields a success has depends on the command, so they are read by [`Received::answer`] when the caller
//! says what it asked for.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::{Answer, PeersAnswer};
use super::failure::{Failure, FailureCode};

/// What an answer takes without its lists, in bytes; longer ones grow.
const HEAD_BYTES: usize = 256;

/// What one peer takes in an answer at most, in bytes: its key is 64, its address at most 39.
const PEER_BYTES: usize = 160;

/// The answer to one request, to be rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// That of the request, echoed.
    pub request_id: Option<Value>,
    /// Changes with the leader.
    pub epoch: u64,
    /// What came of it.
    pub result: Result<Success, Failure>,
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    /// For people.
    pub message: String,
    /// What the command's answer adds.
    pub answer: Answer,
}

#[derive(Serialize)]
struct Written<'a> {
    status: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<FailureCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a Value>,
    epoch: u64,
    #[serde(flatten)]
    answer: &'a Answer,
}

impl Response {
    /// The answer as one line of JSON, without the line's end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let request_id = self.request_id.as_ref();
        let written = match &self.result {
            Ok(Success { message, answer }) => Written {
                status: "success",
                message,
                code: None,
                fix: None,
                request_id,
                epoch: self.epoch,
                answer,
            },
            Err(Failure { code, message, fix }) => Written {
                status: "failure",
                message,
                code: Some(*code),
                fix: fix.as_deref(),
                request_id,
                epoch: self.epoch,
                answer: &Answer::Done {},
            },
        };
        let mut json = Vec::with_capacity(self.bytes_expected());
        serde_json::to_writer(&mut json, &written)
            .expect("answers have text keys and no value that JSON cannot hold");
        json
    }

    /// About how many bytes the answer takes as JSON, so that the answers which are asked for most never move while
    /// they are written.
    fn bytes_expected(&self) -> usize {
        let (peers, ticket) = match &self.result {
            Ok(Success { answer: Answer::Peers(PeersAnswer { peers, ticket, .. }), .. }) => {
                (peers.len(), ticket.as_ref().map_or(0, |ticket| ticket.0.len()))
            }
            _ => (0, 0),
        };
        // A ticket is written in base64: four bytes for three.
        HEAD_BYTES + PEER_BYTES * peers + 2 * ticket
    }
}

/// An answer as a client reads it.
#[derive(Clone, Debug)]
pub struct Received {
    /// That of the request.
    pub request_id: Option<Value>,
    /// Changes with the leader: then everything that only its memory held is to be told again.
    pub epoch: u64,
    /// For people.
    pub message: String,
    text: Vec<u8>,
}

/// What came is no answer of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("what the tracker sent is no answer of this protocol: {0}")]
pub struct BadResponse(#[from] serde_json::Error);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Success,
    Failure,
}

#[derive(Deserialize)]
struct Head {
    status: Status,
    #[serde(default)]
    message: String,
    code: Option<FailureCode>,
    fix: Option<String>,
    request_id: Option<Value>,
    #[serde(default)]
    epoch: u64,
}

impl Received {
    /// Reads the text of one answer: a success, or the tracker's refusal.
    ///
    /// # Errors
    /// [`BadResponse`] when it is no answer.
    pub fn parse(text: &[u8]) -> Result<Result<Received, Refused>, BadResponse> {
        let head: Head = serde_json::from_slice(text)?;
        let Head { message, request_id, epoch, .. } = head;
        Ok(match head.status {
            Status::Success => Ok(Received { request_id, epoch, message, text: text.to_vec() }),
            Status::Failure => {
                let code = head.code.unwrap_or(FailureCode::Other);
                Err(Refused { request_id, epoch, failure: Failure { code, message, fix: head.fix } })
            }
        })
    }

    /// The fields that the command's answer adds: one of the types of [`answers`](super::answers).
    ///
    /// # Errors
    /// [`BadResponse`] when they are not there or not what they must be.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T, BadResponse> {
        Ok(serde_json::from_slice(&self.text)?)
    }
}

/// A refusal as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// That of the request.
    pub request_id: Option<Value>,
    /// Changes with the leader.
    pub epoch: u64,
    /// Why.
    pub failure: Failure,
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
