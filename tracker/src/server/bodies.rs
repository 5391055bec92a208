//! Large bodies, parsed, built and rendered off the loop.

use serde_json::Value;

use crate::api::answers::CommandAnswer;
use crate::api::failure::RequestFailure;
use crate::api::request::{BadRequest, Request};
use crate::api::response::{CommandSuccess, Response};

use super::limits::{ELEMENT_BYTES, LARGE_BODY_BYTES, LIST_ENTRY_BYTES};

/// One large body.
pub(super) enum BodyJob {
    /// A request's text.
    Parse(Vec<u8>),
    /// An answer.
    Render(Box<Response>),
    /// An answer that is still to be built.
    Build(Box<AnswerDraft>),
}

/// Builds what a request came to, on whatever thread.
pub(super) type AnswerBuilder = Box<dyn FnOnce() -> Result<CommandSuccess, RequestFailure> + Send>;

/// An answer but for its longest part.
pub(super) struct AnswerDraft {
    /// Echoed.
    pub(super) request_id: Option<Value>,
    /// Stands in every answer.
    pub(super) epoch: u64,
    /// Makes the rest.
    pub(super) build: AnswerBuilder,
}

/// What became of it.
pub(super) enum BodyResult {
    /// The request, or why it is none.
    Parsed(Box<Result<Request, BadRequest>>),
    /// The answer's text.
    Rendered(Vec<u8>),
}

/// Does one job.
pub(super) fn run_body_job((): &mut (), job: BodyJob) -> BodyResult {
    match job {
        BodyJob::Parse(text) => BodyResult::Parsed(Box::new(Request::parse(&text))),
        BodyJob::Render(response) => BodyResult::Rendered(response.to_json()),
        BodyJob::Build(draft) => {
            let AnswerDraft { request_id, epoch, build } = *draft;
            BodyResult::Rendered(Response { request_id, epoch, result: build() }.to_json())
        }
    }
}

/// Whether an answer of so many elements is long enough to be made off the loop: a rough guess.
pub(super) fn is_long_answer(elements: usize) -> bool {
    elements * ELEMENT_BYTES > LARGE_BODY_BYTES
}

/// Whether an answer is long enough to be rendered off the loop.
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

/// About how many bytes a list takes until it is rendered; 0 for all other answers.
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
