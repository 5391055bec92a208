//! The control protocol, without I/O: bytes become typed requests or refusals, typed answers become bytes, and back.
//!
//! ```text
//!   bytes ─► codec ─► parse ─► request ─► (server) ─► response ─► bytes
//!              │        │         ▲ render     answers ◄──┴─ peers_answer, chunks, wire
//!             scan    fields ─ any_json
//!                       └─ upload_part, hashes, address, failure, limits     cluster_file: tracker_info.txt
//! ```
//!
//! The client uses the same types the other way round: it renders a [`Request`](request::Request) and reads a
//! [`ReceivedAnswer`](response::ReceivedAnswer).

mod any_json;
mod fields;
mod parse;
mod peers_answer;
mod render;
mod scan;
mod wire;

pub mod address;
pub mod answers;
pub mod chunks;
pub mod cluster_file;
pub mod codec;
pub mod failure;
pub mod hashes;
pub mod limits;
pub mod request;
pub mod response;
pub mod upload_part;

pub use crate::state::command::Policy;
pub use crate::state::id::{GroupFile, GroupId, UploadId, UserId};
