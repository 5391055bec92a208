//! SHA-1 by the assembly block function of `sha1-asm`: for CPUs without SHA instructions, and for `--hash asm`.

use crate::hash::block::{Block, State};

/// Absorbs the blocks in order.
pub(in crate::hash) fn compress_blocks(state: &mut State, blocks: &[Block]) {
    sha1_asm::compress(state, blocks);
}
