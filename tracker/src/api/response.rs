//! Answers, as the server renders them and as the client reads them.
//!
//! Every answer has `status`, `message` and `epoch`; a failure has `code` too. The other fields of a success depend on the
//! command, so a client reads them with [`ReceivedAnswer::answer`], naming the type that it expects.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::CommandAnswer;
use super::failure::{FailureCode, RequestFailure};
use super::peers_answer;

/// Initial buffer of an answer without the command's fields, in bytes; longer ones grow.
const HEAD_BYTES: usize = 256;

/// The answer to one request, to be rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Echo of the request's id.
    pub request_id: Option<Value>,
    /// Changes whenever another tracker leads.
    pub epoch: u64,
    /// Success or failure of the request.
    pub result: Result<CommandSuccess, RequestFailure>,
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandSuccess {
    /// For people.
    pub message: String,
    /// The command's own fields.
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
    /// The answer as one line of JSON, without a line break.
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

    /// A success, in a buffer with room for `room_bytes` more.
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

/// A success as the client reads it.
#[derive(Clone, Debug)]
pub struct ReceivedAnswer {
    /// Echo of the request's id.
    pub request_id: Option<Value>,
    /// Changes whenever another tracker leads; the client must then repeat what only the leader's memory held.
    pub epoch: u64,
    /// For people.
    pub message: String,
    text: Vec<u8>,
}

/// A received text is not an answer of this protocol.
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
    /// Reads one answer: a success or a failure.
    ///
    /// # Errors
    /// [`BadResponse`] when the text is not an answer.
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

    /// The command's own fields, as one of the types of [`answers`](super::answers).
    ///
    /// # Errors
    /// [`BadResponse`] when a field is missing or has another type.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T, BadResponse> {
        Ok(serde_json::from_slice(&self.text)?)
    }
}

/// A failure as the client reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedFailure {
    /// Echo of the request's id.
    pub request_id: Option<Value>,
    /// Changes whenever another tracker leads.
    pub epoch: u64,
    /// Why the request failed.
    pub failure: RequestFailure,
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
