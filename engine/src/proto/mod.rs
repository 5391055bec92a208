//! The peer protocol, pure: bytes, keys and decisions, without a clock, a socket, a file, a thread or unsafe code.
//!
//! ```text
//!   what things are      hex ◄── units ◄── geometry, hashes ◄── manifest ◄── copies       bitfield   time   limits
//!   what is kept         sealed ◄── manifest_form
//!   what is said         encoding ◄── ticket ◄── frame ◄── codec
//!   one connection       session (opening, provider) ──► spread      window ──► rate
//!   one file             transfer ──► picker, peers, session, window ──► action (what the driver is to do)
//! ```
//!
//! The driver feeds [`transfer::Transfer`] and [`session::ProviderSession`] with the moment and what happened, and carries out
//! what they answer. So a whole swarm runs inside a test, in microseconds and always alike.

mod encoding;
mod equal_pieces;
mod manifest_form;
mod peers;

pub mod action;
pub mod bitfield;
pub mod codec;
pub mod frame;
pub mod geometry;
pub mod hashes;
pub mod hex;
pub mod limits;
pub mod manifest;
pub mod picker;
pub mod rate;
pub mod sealed;
pub mod session;
pub mod steering;
pub mod ticket;
pub mod time;
pub mod transfer;
pub mod units;
pub mod window;

pub use encoding::CodecError;
pub use peers::DisconnectReason;
