//! Values to bytes and back, by bincode: the only file that calls it.
//!
//! Its varint form (`config::standard()`) is byte-identical to `wincode`'s, which is the way out should bincode 2 have
//! to go. Every decode has a limit, so that no claim of a length allocates memory, and every byte must be used.

use bincode::config::{self, Config};
use bincode::{Decode, Encode};

use super::limits::OPENED_MAX_BYTES;

/// Why bytes are nothing of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame claims more bytes than any message may have.
    #[error("a frame of {claimed} bytes is more than the {allowed} that are allowed here")]
    TooLong {
        /// What the length says.
        claimed: usize,
        /// What this place allows.
        allowed: usize,
    },
    /// The bytes are no such value.
    #[error("not a message of this protocol: {0}")]
    Malformed(String),
    /// Bytes are left after the value.
    #[error("{0} bytes too many after the message")]
    Trailing(usize),
}

fn codec_config() -> impl Config {
    config::standard().with_limit::<OPENED_MAX_BYTES>()
}

/// Encodes a value that this process made.
pub(super) fn encode_value<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, codec_config())
        .expect("values of this protocol hold nothing that bincode refuses")
}

/// Decodes a value from outside; all bytes must be used.
pub(super) fn decode_value<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::decode_from_slice(bytes, codec_config())
        .map_err(|e| CodecError::Malformed(e.to_string()))?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}
