//! The peer protocol, pure: bytes, keys and decisions, without a clock, a socket, a file, a thread or unsafe code.
//!
//! ```text
//!   units ◄─┬─ geometry ◄── manifest
//!           ├─ bitfield
//!           └─ ticket ◄── frame ◄── codec        limits: every number
//!                 └─► encoding ◄──────┘
//! ```

mod encoding;

pub mod bitfield;
pub mod codec;
pub mod frame;
pub mod geometry;
pub mod limits;
pub mod manifest;
pub mod ticket;
pub mod units;

pub use encoding::CodecError;
