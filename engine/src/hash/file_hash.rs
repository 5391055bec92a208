//! The sequential pass over a file: its digest, and the states in between, which make the chain.
//!
//! Invariant: `partial` holds `partial_bytes` bytes that are not absorbed yet, fewer than a block.

use super::block::{self, BLOCK_BYTES, Block, State};
use super::hasher::Hasher;
use crate::proto::units::{ChainState, Digest};

/// SHA-1 of a stream of bytes.
#[derive(Clone, Debug)]
pub struct FileHash {
    hasher: Hasher,
    state: State,
    length: u64,
    partial: Block,
    partial_bytes: usize,
}

impl FileHash {
    /// A pass over no bytes yet.
    #[must_use]
    pub fn new(hasher: Hasher) -> FileHash {
        FileHash {
            hasher,
            state: block::initial_state(),
            length: 0,
            partial: [0; BLOCK_BYTES],
            partial_bytes: 0,
        }
    }

    /// Number of bytes so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Absorbs the next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.partial_bytes > 0 {
            let taken = bytes.len().min(BLOCK_BYTES - self.partial_bytes);
            let (start, rest) = bytes.split_at(taken);
            self.partial[self.partial_bytes..self.partial_bytes + taken].copy_from_slice(start);
            self.partial_bytes += taken;
            bytes = rest;
            if self.partial_bytes < BLOCK_BYTES {
                return;
            }
            self.hasher.single().compress(&mut self.state, &[self.partial]);
        }
        let (blocks, rest) = block::split_blocks(bytes);
        self.hasher.single().compress(&mut self.state, blocks);
        self.partial[..rest.len()].copy_from_slice(rest);
        self.partial_bytes = rest.len();
    }

    /// The state after the bytes so far: a link of the chain after whole pieces. `None` inside a block, where
    /// SHA-1 has no state.
    #[must_use]
    pub fn state(&self) -> Option<ChainState> {
        (self.partial_bytes == 0).then(|| block::state_to_chain(self.state))
    }

    /// SHA-1 of all bytes.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.hasher.finish_message(self.state, &self.partial[..self.partial_bytes], self.length)
    }
}
