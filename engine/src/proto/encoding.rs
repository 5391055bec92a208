//! Encodes and decodes values with bincode: the only file that calls it.
//!
//! The varint form (`config::standard()`) is byte-identical to that of `wincode`, which can replace bincode 2. Every decode
//! has a limit, so that no claimed length allocates memory, and must use every byte.

use bincode::config::{self, Config};
use bincode::{Decode, Encode};

use super::limits::OPENED_MAX_BYTES;

/// Why bytes are not a message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame claims more bytes than are allowed here.
    #[error("a frame of {claimed} bytes is longer than the {allowed} bytes allowed here")]
    TooLong {
        /// Length in the frame's head, in bytes.
        claimed: usize,
        /// Longest frame allowed, in bytes.
        allowed: usize,
    },
    /// The bytes are not a value of the expected type.
    #[error("not a message of this protocol: {0}")]
    Malformed(String),
    /// Bytes are left after the value.
    #[error("{0} extra bytes after the message")]
    Trailing(usize),
}

fn codec_config() -> impl Config {
    config::standard().with_limit::<OPENED_MAX_BYTES>()
}

/// Encodes a value that this process built.
pub(super) fn encode_value<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, codec_config()).expect("bincode encodes every value of this protocol")
}

/// Decodes an untrusted value; all bytes must be used.
pub(super) fn decode_value<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::decode_from_slice(bytes, codec_config())
        .map_err(|e| CodecError::Malformed(e.to_string()))?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}
