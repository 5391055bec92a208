//! Large requests and answers, which worker threads parse, build and render.

use serde_json::Value;

use crate::api::answers::CommandAnswer;
use crate::api::request::{BadRequest, Request};
use crate::api::response::{CommandSuccess, Response};

use super::limits::{ELEMENT_BYTES, LARGE_BODY_BYTES, LIST_ENTRY_BYTES};

pub(super) enum BodyJob {
    Parse(Vec<u8>),
    Render(Box<Response>),
    Build(Box<AnswerDraft>),
}

pub(super) type AnswerBuilder = Box<dyn FnOnce() -> CommandSuccess + Send>;

/// An answer whose result is still to be built.
pub(super) struct AnswerDraft {
    pub(super) request_id: Option<Value>,
    pub(super) epoch: u64,
    pub(super) build: AnswerBuilder,
}

pub(super) enum BodyResult {
    /// The request, or why it is refused.
    Parsed(Box<Result<Request, BadRequest>>),
    Rendered(Vec<u8>),
}

pub(super) fn run_body_job((): &mut (), job: BodyJob) -> BodyResult {
    match job {
        BodyJob::Parse(text) => BodyResult::Parsed(Box::new(Request::parse(&text))),
        BodyJob::Render(response) => BodyResult::Rendered(response.to_json()),
        BodyJob::Build(draft) => {
            let AnswerDraft { request_id, epoch, build } = *draft;
            BodyResult::Rendered(Response { request_id, epoch, result: Ok(build()) }.to_json())
        }
    }
}

/// Whether an answer of this many elements is made by a worker; a rough estimate.
pub(super) fn is_long_answer(elements: usize) -> bool {
    elements * ELEMENT_BYTES > LARGE_BODY_BYTES
}

/// Whether an answer is rendered by a worker.
pub(super) fn is_large_response(response: &Response) -> bool {
    match response.result.as_ref().map(|success| &success.answer) {
        Ok(CommandAnswer::Download(download)) => {
            let chunks = download.chunk_metadata.as_ref();
            let named = chunks.map_or(0, |chunks| chunks.chunks.values().map(Vec::len).sum());
            let joined = download.file_sha.as_ref().map_or(0, String::len) / ELEMENT_BYTES;
            is_long_answer(download.file_chunks.values.len() + named + joined)
        }
        Ok(_) => is_long_answer(list_entries(response)),
        Err(_) => false,
    }
}

/// Bytes that a list takes until it is rendered, roughly; 0 for all other answers.
pub(super) fn list_bytes(response: &Response) -> usize {
    list_entries(response) * LIST_ENTRY_BYTES
}

fn list_entries(response: &Response) -> usize {
    match response.result.as_ref().map(|success| &success.answer) {
        Ok(CommandAnswer::Groups(groups)) => groups.groups.len(),
        Ok(CommandAnswer::Files(files)) => files.files.len(),
        Ok(CommandAnswer::Requests(requests)) => requests.pending_list.len(),
        _ => 0,
    }
}
