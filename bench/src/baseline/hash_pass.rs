//! One SHA-1 pass over the file: what a program takes that proves the whole by reading it once more.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use engine::hash::{FileHash, Hasher};

use crate::clock;
use crate::contender::{Contender, RoundOutcome, TransferTerms};

/// Read in steps of this many bytes, which stay in the nearest cache between reading and hashing.
const STEP_BYTES: usize = 256 << 10;

/// One pass, on one thread.
pub(super) struct HashPass {
    terms: TransferTerms,
    hasher: Hasher,
}

impl HashPass {
    /// By the best code that this CPU has for one stream.
    pub(super) fn new(terms: &TransferTerms) -> HashPass {
        HashPass { terms: terms.clone(), hasher: Hasher::best() }
    }
}

impl Contender for HashPass {
    fn kind(&self) -> &str {
        "sha1 pass"
    }

    fn is_reference(&self) -> bool {
        true
    }

    fn run_round(&mut self, _: &Path) -> anyhow::Result<RoundOutcome> {
        let mut file = File::open(&self.terms.content.path)?;
        let mut step = vec![0; STEP_BYTES];
        let began = clock::now();
        let mut hash = FileHash::new(self.hasher);
        loop {
            match file.read(&mut step)? {
                0 => break,
                count => hash.update(&step[..count]),
            }
        }
        let found = hash.finish();
        let command = clock::now() - began;
        anyhow::ensure!(
            found.0 == self.terms.content.sha1,
            "the source has another SHA-1 than when it was made"
        );
        Ok(RoundOutcome { command, ..RoundOutcome::default() })
    }
}
