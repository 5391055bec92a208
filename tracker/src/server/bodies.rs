//! Large bodies, parsed, built and rendered off the loop.

use serde_json::Value;

use crate::api::answers::Answer;
use crate::api::failure::Failure;
use crate::api::request::{BadRequest, Request};
use crate::api::response::{Response, Success};

use super::limits::{ELEMENT_BYTES, LARGE_BODY_BYTES, LIST_ENTRY_BYTES};

/// One large body.
pub(super) enum Job {
    /// A request's text.
    Parse(Vec<u8>),
    /// An answer.
    Render(Box<Response>),
    /// An answer that is still to be built.
    Build(Box<Draft>),
}

/// Builds what a request came to, on whatever thread.
pub(super) type Build = Box<dyn FnOnce() -> Result<Success, Failure> + Send>;

/// An answer but for its longest part.
pub(super) struct Draft {
    /// Echoed.
    pub(super) request_id: Option<Value>,
    /// Stands in every answer.
    pub(super) epoch: u64,
    /// Makes the rest.
    pub(super) build: Build,
}

/// What became of it.
pub(super) enum Done {
    /// The request, or why it is none.
    Parsed(Box<Result<Request, BadRequest>>),
    /// The answer's text.
    Rendered(Vec<u8>),
}

/// Does one job.
pub(super) fn work((): &mut (), job: Job) -> Done {
    match job {
        Job::Parse(text) => Done::Parsed(Box::new(Request::parse(&text))),
        Job::Render(response) => Done::Rendered(response.to_json()),
        Job::Build(draft) => {
            let Draft { request_id, epoch, build } = *draft;
            Done::Rendered(Response { request_id, epoch, result: build() }.to_json())
        }
    }
}

/// Whether an answer of so many elements is long enough to be made off the loop: a rough guess.
pub(super) fn is_long(elements: usize) -> bool {
    elements * ELEMENT_BYTES > LARGE_BODY_BYTES
}

/// Whether an answer is long enough to be rendered off the loop.
pub(super) fn is_large(response: &Response) -> bool {
    match response.result.as_ref().map(|success| &success.answer) {
        Ok(Answer::Download(download)) => {
            let chunks = download.chunk_metadata.as_ref();
            let named = chunks.map_or(0, |chunks| chunks.chunks.values().map(Vec::len).sum());
            let joined = download.file_sha.as_ref().map_or(0, String::len) / ELEMENT_BYTES;
            is_long(download.file_chunks.values.len() + named + joined)
        }
        Ok(_) => is_long(listed(response)),
        Err(_) => false,
    }
}

/// About how many bytes a list takes until it is rendered; 0 for all other answers.
pub(super) fn list_bytes(response: &Response) -> usize {
    listed(response) * LIST_ENTRY_BYTES
}

fn listed(response: &Response) -> usize {
    match response.result.as_ref().map(|success| &success.answer) {
        Ok(Answer::Groups(groups)) => groups.groups.len(),
        Ok(Answer::Files(files)) => files.files.len(),
        Ok(Answer::Requests(requests)) => requests.pending_list.len(),
        _ => 0,
    }
}
