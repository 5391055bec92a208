//! Answers: as the server renders them, and as the client reads them.
//!
//! Every answer has `status`, `message` and `epoch`; a failure has `code` too. [`Response`] is written, [`ReceivedAnswer`] is
//! read: which fields a success has depends on the command, so they are read by [`ReceivedAnswer::append_answer`] when the caller
//! says what it asked for.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::CommandAnswer;
use super::failure::{FailureCode, RequestFailure};
use super::peers_answer;

/// What an answer takes without what its command adds, in bytes; longer ones grow.
const HEAD_BYTES: usize = 256;

/// The answer to one request, to be rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// That of the request, echoed.
    pub request_id: Option<Value>,
    /// Changes with the leader.
    pub epoch: u64,
    /// What came of it.
    pub result: Result<CommandSuccess, RequestFailure>,
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandSuccess {
    /// For people.
    pub message: String,
    /// What the command's answer adds.
    pub answer: CommandAnswer,
}

#[derive(Serialize)]
struct WrittenResponse<'a> {
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
    answer: &'a CommandAnswer,
}

impl Response {
    /// The answer as one line of JSON, without the line's end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        match &self.result {
            Ok(CommandSuccess { message, answer: CommandAnswer::Peers(answer) }) => {
                let mut json =
                    self.success(message, &CommandAnswer::Done {}, peers_answer::room_bytes(answer));
                let end = json.pop();
                assert_eq!(end, Some(b'}'), "an answer is an object");
                peers_answer::append_peers(answer, &mut json);
                json.push(b'}');
                json
            }
            Ok(CommandSuccess { message, answer }) => self.success(message, answer, 0),
            Err(RequestFailure { code, message, fix }) => {
                let written = WrittenResponse {
                    status: "failure",
                    message,
                    code: Some(*code),
                    fix: fix.as_deref(),
                    request_id: self.request_id.as_ref(),
                    epoch: self.epoch,
                    answer: &CommandAnswer::Done {},
                };
                written.to_json(0)
            }
        }
    }

    /// A success, with room behind it for so many bytes.
    fn success(&self, message: &str, answer: &CommandAnswer, room_bytes: usize) -> Vec<u8> {
        let written = WrittenResponse {
            status: "success",
            message,
            code: None,
            fix: None,
            request_id: self.request_id.as_ref(),
            epoch: self.epoch,
            answer,
        };
        written.to_json(room_bytes)
    }
}

impl WrittenResponse<'_> {
    fn to_json(&self, room_bytes: usize) -> Vec<u8> {
        let mut json = Vec::with_capacity(HEAD_BYTES + room_bytes);
        serde_json::to_writer(&mut json, self)
            .expect("answers have text keys and no value that JSON cannot hold");
        json
    }
}

/// An answer as a client reads it.
#[derive(Clone, Debug)]
pub struct ReceivedAnswer {
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
enum ResponseStatus {
    Success,
    Failure,
}

#[derive(Deserialize)]
struct ResponseHead {
    status: ResponseStatus,
    #[serde(default)]
    message: String,
    code: Option<FailureCode>,
    fix: Option<String>,
    request_id: Option<Value>,
    #[serde(default)]
    epoch: u64,
}

impl ReceivedAnswer {
    /// Reads the text of one answer: a success, or the tracker's refusal.
    ///
    /// # Errors
    /// [`BadResponse`] when it is no answer.
    pub fn parse(text: &[u8]) -> Result<Result<ReceivedAnswer, ReceivedFailure>, BadResponse> {
        let head: ResponseHead = serde_json::from_slice(text)?;
        let ResponseHead { message, request_id, epoch, .. } = head;
        Ok(match head.status {
            ResponseStatus::Success => Ok(ReceivedAnswer { request_id, epoch, message, text: text.to_vec() }),
            ResponseStatus::Failure => {
                let code = head.code.unwrap_or(FailureCode::Other);
                Err(ReceivedFailure {
                    request_id,
                    epoch,
                    failure: RequestFailure { code, message, fix: head.fix },
                })
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
pub struct ReceivedFailure {
    /// That of the request.
    pub request_id: Option<Value>,
    /// Changes with the leader.
    pub epoch: u64,
    /// Why.
    pub failure: RequestFailure,
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
