//! The peer protocol without I/O: no clock, socket, file, thread or unsafe code.
//!
//! ```text
//!   values            hex ◄── units ◄── geometry, hashes ◄── manifest ◄── equal_pieces       bitfield   time   limits
//!   at rest           sealed ◄── manifest_form
//!   on the wire       encoding ◄── ticket ◄── frame ◄── codec
//!   one connection    session (handshake, provider) ──► steering       window ──► rate
//!   one node          places (of its connections) ──► rate, ticket
//!   one file          transfer ──► picker, peers, session, window ──► action (for the driver)
//!                     peers ──► peer_trouble (what became of each)
//! ```
//!
//! The driver passes events and the current time to [`transfer::Transfer`] and [`session::ProviderSession`], and carries
//! out the actions that they return. Tests therefore run whole swarms in virtual time, with the same result every time.

mod encoding;
mod equal_pieces;
mod manifest_form;
mod peer_trouble;
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
pub mod places;
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
pub use peer_trouble::{ConnectFailure, DisconnectReason, PeerTrouble, PeerTroubleKind, PeerTroubles};
