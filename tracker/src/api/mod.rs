//! The control protocol, pure: bytes become a typed request or a refusal, a typed answer becomes bytes, and back.
//!
//! ```text
//!   bytes ─► codec ─► parse ─► request ─► (server) ─► response ─► bytes
//!             │        │        ▲ render      answers ◄─┴─ peers, chunks, wire
//!            scan  fields─loose │
//!                 parts└─ hashes┴─ address  failure  limits       cluster_file: tracker_info.txt
//! ```
//!
//! The client uses the same types the other way round: it renders a [`Request`](request::Request) and reads a
//! [`ReceivedAnswer`](response::Received).

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
