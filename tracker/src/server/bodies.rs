//! Large bodies, parsed and rendered off the loop.

use crate::api::answers::Answer;
use crate::api::request::{BadRequest, Request};
use crate::api::response::Response;

use super::limits::LARGE_BODY_BYTES;

/// One large body.
pub(super) enum Job {
    /// A request's text.
    Parse(Vec<u8>),
    /// An answer.
    Render(Box<Response>),
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
    }
}

/// Whether an answer is long enough to be rendered off the loop: a rough guess from its longest list.
pub(super) fn is_large(response: &Response) -> bool {
    /// About as long as one element of any list is, in bytes.
    const ELEMENT_BYTES: usize = 64;
    let elements = match response.result.as_ref().map(|success| &success.answer) {
        Ok(Answer::Download(download)) => {
            let named =
                download.chunk_metadata.as_ref().map_or(0, |chunks| chunks.values().map(Vec::len).sum());
            download.file_chunks.values.len() + named
        }
        Ok(Answer::Groups(groups)) => groups.groups.len(),
        Ok(Answer::Files(files)) => files.files.len(),
        Ok(Answer::Requests(requests)) => requests.pending_list.len(),
        _ => 0,
    };
    elements * ELEMENT_BYTES > LARGE_BODY_BYTES
}
