//! The proof of pieces: a piece against its digest, and against the link of its own index in the file's chain.
//!
//! SHA-1's state after piece i - 1 leads, over the bytes of piece i, to its state after piece i. If every link of a file
//! holds at its own index under one and the same chain then, by induction from the initial value, SHA-1 of the file is
//! the digest at the chain's end: the proof of one long pass, in any order and on any core.
//!
//! Invariant: a verdict depends on the job's bytes and expectations alone, not on the jobs beside it.

use super::block::{self, BLOCK_BYTES, State};
use super::hasher::Hasher;
use super::lanes::BlockWork;
use crate::proto::units::{ChainState, Digest};

/// One piece to prove.
#[derive(Clone, Copy, Debug)]
pub struct PieceJob<'a> {
    /// The piece's bytes.
    pub bytes: &'a [u8],
    /// The digest that it should have.
    pub digest: Digest,
    /// The link that it should be; `None` where the file has no chain.
    pub link: Option<LinkCheck>,
}

/// A step of a file's chain: absorbing the piece in state `from` must give `to`.
#[derive(Clone, Copy, Debug)]
pub struct LinkCheck {
    /// The state before the piece: [`ChainState::INITIAL`] for the first.
    pub from: ChainState,
    /// What must follow.
    pub to: LinkEnd,
}

/// Where a link leads.
#[derive(Clone, Copy, Debug)]
pub enum LinkEnd {
    /// To the state between this piece and the next.
    State(ChainState),
    /// To the file's digest: the piece is the last one.
    File {
        /// Length of the whole file in bytes, which its padding names.
        length: u64,
        /// SHA-1 of the whole file.
        digest: Digest,
    },
}

/// What became of a [`PieceJob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashVerdict {
    /// Whether the bytes have the digest. If not, whoever sent them sent the wrong ones.
    pub digest_holds: bool,
    /// Whether the link holds; `None` where none was asked for. When it fails though the digest holds, the chain is
    /// false, which is no sender's fault.
    pub link_holds: Option<bool>,
}

impl HashVerdict {
    /// Whether all that was asked for holds.
    #[must_use]
    pub fn is_proven(self) -> bool {
        self.digest_holds && self.link_holds != Some(false)
    }
}

impl Hasher {
    /// Proves pieces, together where lanes make that faster: both states of a piece come from one load of its bytes.
    /// Verdicts stand in the order of the jobs.
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
                self.evaluate_job(job, own.expect("every job became a work of its kind"), link_state)
            })
            .collect()
    }

    /// The verdict over a job, from the states after its whole blocks.
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
                // States lie between whole blocks: a last piece that starts elsewhere belongs to no such file.
                let starts_at_block =
                    length.checked_sub(piece_bytes).is_some_and(|start| start % BLOCK_BYTES as u64 == 0);
                starts_at_block && self.finish_message(state, rest, length) == digest
            }
        }
    }
}
