//! The baseline: minimal work on the same file, measured in the same rounds, as a reference for ratios.
//!
//! ```text
//!   baseline_contenders ─┬─► pump        the same sockets, pieces and positioned writes; no protocol, no verification
//!                        ├─► HashPass    one SHA-1 stream over the file
//!                        └─► `cp`
//! ```

pub(crate) mod pump;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use engine::hash::{FileHash, Hasher};

use crate::clock;
use crate::contender::{Contender, FetchSteps, ProgramContender, RoundOutcome, TransferTerms};
use crate::limits::HASH_PASS_BUFFER_BYTES;

/// All baseline contenders. The pump uses as many sockets as Shoal does with so many sources; without `with_sockets` it is
/// left out.
pub(crate) fn baseline_contenders(
    terms: &TransferTerms,
    with_sockets: bool,
) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    if with_sockets {
        all.push(Box::new(pump::pump_contender(&terms.with_own_folder("pump")?)?));
    }
    all.push(Box::new(HashPass { terms: terms.clone(), hasher: Hasher::best() }));
    all.push(Box::new(copy_contender(&terms.with_own_folder("cp")?)));
    Ok(all)
}

/// `cp` of the file.
fn copy_contender(terms: &TransferTerms) -> ProgramContender {
    let source = terms.file.path.clone();
    let steps = move |_: usize, into: &Path| {
        let copy = into.join("copy");
        let mut command = Command::new("cp");
        // A reflink shares the source's blocks and copies nothing.
        command.arg("--reflink=never").arg(&source).arg(&copy);
        FetchSteps { commands: vec![command], copy: Some(copy) }
    };
    ProgramContender::new("cp", terms, Vec::new(), steps).into_reference()
}

/// One SHA-1 stream over the file on one thread, with the fastest code for this CPU: the cost of verifying a whole file by
/// reading it once more.
struct HashPass {
    terms: TransferTerms,
    hasher: Hasher,
}

impl Contender for HashPass {
    fn kind(&self) -> &str {
        "sha1 pass"
    }

    fn is_reference(&self) -> bool {
        true
    }

    fn run_round(&mut self, _: &Path) -> anyhow::Result<RoundOutcome> {
        let mut file = File::open(&self.terms.file.path)?;
        let mut buffer = vec![0; HASH_PASS_BUFFER_BYTES];
        let began = clock::now();
        let mut hash = FileHash::new(self.hasher);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        let found = hash.finish();
        let command = clock::now() - began;
        anyhow::ensure!(
            found.0 == self.terms.file.sha1,
            "the source's SHA-1 has changed since it was created"
        );
        Ok(RoundOutcome { command, ..RoundOutcome::default() })
    }
}
