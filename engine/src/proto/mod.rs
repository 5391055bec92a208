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
pub mod picker;
pub mod rate;
pub mod session;
pub mod ticket;
pub mod time;
pub mod units;
pub mod window;

pub use encoding::CodecError;
