//! SHA-1 states, whole blocks, and the padding that ends a message.
//!
//! Invariant: padding follows FIPS 180-4, section 5.1.1, for the length of the whole message, which is longer
//! than the given bytes when a chain ends with the last piece of a file.

use crate::proto::units::{ChainState, Digest};

/// Length of a SHA-1 block.
pub(super) const BLOCK_BYTES: usize = 64;

/// Length of the message's length in bits, at the end of the padding.
const LENGTH_BYTES: usize = 8;

/// One block, as the block functions take it.
pub(super) type Block = [u8; BLOCK_BYTES];

/// SHA-1's five working words, in the machine's byte order.
pub(super) type State = [u32; 5];

/// The whole blocks of a message, and the bytes after them.
pub(super) fn split_blocks(bytes: &[u8]) -> (&[Block], &[u8]) {
    bytes.as_chunks()
}

/// The state before any block.
pub(super) fn initial_state() -> State {
    state_from_chain(ChainState::INITIAL)
}

pub(super) fn state_from_chain(link: ChainState) -> State {
    let (words, _) = link.0.as_chunks::<4>();
    std::array::from_fn(|i| u32::from_be_bytes(words[i]))
}

/// The 20 bytes of a state, its words big-endian.
fn state_to_bytes(state: State) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (place, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    bytes
}

pub(super) fn state_to_chain(state: State) -> ChainState {
    ChainState(state_to_bytes(state))
}

/// The state after the padding, as the digest of the message.
pub(super) fn state_to_digest(state: State) -> Digest {
    Digest(state_to_bytes(state))
}

/// The last one or two blocks of a message: the bytes that fill no block, then the padding.
pub(super) struct PaddedTail {
    blocks: [Block; 2],
    used: usize,
}

impl PaddedTail {
    /// The end of a message of `message_bytes` in all; `rest` are its bytes after the last whole block.
    ///
    /// # Panics
    /// When `rest` would fill a block: callers get it from [`split_blocks`].
    pub(super) fn new(rest: &[u8], message_bytes: u64) -> PaddedTail {
        assert!(rest.len() < BLOCK_BYTES, "{} bytes fill a block", rest.len());
        let used = if rest.len() + 1 + LENGTH_BYTES <= BLOCK_BYTES { 1 } else { 2 };
        let mut blocks = [[0; BLOCK_BYTES]; 2];
        blocks[0][..rest.len()].copy_from_slice(rest);
        blocks[0][rest.len()] = 0x80;
        // The standard counts bits modulo 2^64.
        let bits = message_bytes.wrapping_mul(8).to_be_bytes();
        blocks[used - 1][BLOCK_BYTES - LENGTH_BYTES..].copy_from_slice(&bits);
        PaddedTail { blocks, used }
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks[..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_takes_a_second_block_from_56_bytes_on() {
        for (rest, used) in [(0, 1), (1, 1), (55, 1), (56, 2), (63, 2)] {
            let bytes = vec![0xFF; rest];
            let tail = PaddedTail::new(&bytes, rest as u64);
            assert_eq!(tail.blocks().len(), used, "{rest}");
            let flat = tail.blocks().as_flattened();
            assert_eq!(flat[rest], 0x80);
            assert!(flat[rest + 1..flat.len() - 8].iter().all(|byte| *byte == 0));
            assert_eq!(flat[flat.len() - 8..], (rest as u64 * 8).to_be_bytes());
        }
    }

    #[test]
    fn a_state_survives_its_encoding() {
        assert_eq!(state_to_chain(state_from_chain(ChainState::INITIAL)), ChainState::INITIAL);
        assert_eq!(initial_state()[0], 0x6745_2301);
    }
}
