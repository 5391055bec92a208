//! Verifies pieces: against their digest, and against their own link of the file's chain.
//!
//! SHA-1's state after piece i - 1 leads, over the bytes of piece i, to its state after piece i. If every
//! link of a file holds at its own index under one chain then, by induction from the initial value, SHA-1 of
//! the file is the digest at the chain's end. That proves what one long pass would, in any order and on any
//! core.
//!
//! Invariant: a verdict depends on its job only, not on the other jobs.

use super::block::{self, BLOCK_BYTES, State};
use super::hasher::Hasher;
use super::lanes::BlockWork;
use crate::proto::units::{ChainState, Digest};

/// One piece to verify.
#[derive(Clone, Copy, Debug)]
pub struct PieceJob<'a> {
    /// The piece's bytes.
    pub bytes: &'a [u8],
    /// The digest expected of it.
    pub digest: Digest,
    /// The link expected of it; `None` where the file has no chain.
    pub link: Option<LinkCheck>,
}

/// A link of a file's chain: absorbing the piece in state `from` must give `to`.
#[derive(Clone, Copy, Debug)]
pub struct LinkCheck {
    /// The state before the piece: [`ChainState::INITIAL`] for the first.
    pub from: ChainState,
    /// The expected result.
    pub to: LinkEnd,
}

/// The end of a link.
#[derive(Clone, Copy, Debug)]
pub enum LinkEnd {
    /// The state between this piece and the next.
    State(ChainState),
    /// The file's digest: the piece is the last one.
    File {
        /// Length of the whole file in bytes, which the padding contains.
        length: u64,
        /// SHA-1 of the whole file.
        digest: Digest,
    },
}

/// Result of a [`PieceJob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashVerdict {
    /// Whether the bytes have the digest. If not, their sender sent wrong ones.
    pub digest_holds: bool,
    /// Whether the link holds; `None` without a link to check. If it fails although the digest holds, the
    /// chain is wrong, which is not the sender's fault.
    pub link_holds: Option<bool>,
}

impl HashVerdict {
    /// Whether every requested check holds.
    #[must_use]
    pub fn is_proven(self) -> bool {
        self.digest_holds && self.link_holds != Some(false)
    }
}

impl Hasher {
    /// Verifies pieces, together where lanes make that faster: both states of a piece come from one load of
    /// its bytes. Returns one verdict a job, in order.
    #[must_use]
    pub fn verify(&self, jobs: &[PieceJob<'_>]) -> Vec<HashVerdict> {
        let mut alone: Vec<BlockWork<'_, 1>> = Vec::new();
        let mut linked: Vec<BlockWork<'_, 2>> = Vec::new();
        for job in jobs {
            let (blocks, _) = block::split_blocks(job.bytes);
            match job.link {
                None => alone.push(BlockWork { states: [block::initial_state()], blocks }),
                Some(link) => {
                    linked.push(BlockWork {
                        states: [block::initial_state(), block::state_from_chain(link.from)],
                        blocks,
                    });
                }
            }
        }
        self.absorb_all(&mut alone);
        self.absorb_all(&mut linked);
        let mut alone = alone.iter().map(|work| work.states[0]);
        let mut linked = linked.iter().map(|work| work.states);
        jobs.iter()
            .map(|job| {
                let (own, link_state) = match job.link {
                    None => (alone.next(), None),
                    Some(_) => linked.next().map_or((None, None), |[own, link]| (Some(own), Some(link))),
                };
                self.evaluate_job(job, own.expect("every job has a work"), link_state)
            })
            .collect()
    }

    /// The verdict on a job, from the states after its whole blocks.
    fn evaluate_job(&self, job: &PieceJob<'_>, own: State, link_state: Option<State>) -> HashVerdict {
        let (_, rest) = block::split_blocks(job.bytes);
        let digest_holds = self.finish_message(own, rest, job.bytes.len() as u64) == job.digest;
        let link_holds = job
            .link
            .zip(link_state)
            .map(|(link, state)| self.link_holds(link.to, state, rest, job.bytes.len() as u64));
        HashVerdict { digest_holds, link_holds }
    }

    /// Whether `state`, after the whole blocks of a piece of `piece_bytes`, ends where the link says.
    fn link_holds(&self, to: LinkEnd, state: State, rest: &[u8], piece_bytes: u64) -> bool {
        match to {
            LinkEnd::State(expected) => rest.is_empty() && block::state_to_chain(state) == expected,
            LinkEnd::File { length, digest } => {
                // States lie between whole blocks, so a last piece that starts elsewhere belongs to no such
                // file.
                let starts_at_block =
                    length.checked_sub(piece_bytes).is_some_and(|start| start % BLOCK_BYTES as u64 == 0);
                starts_at_block && self.finish_message(state, rest, length) == digest
            }
        }
    }
}
