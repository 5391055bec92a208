//! `cp` of the file, and `cp` followed by a sync of the copy.

use std::path::Path;
use std::process::Command;

use crate::contender::{FetchSteps, ProgramContender, TransferTerms};

/// A contender that copies.
pub(super) fn copy_contender(terms: &TransferTerms) -> ProgramContender {
    let source = terms.content.path.clone();
    let steps = move |_: usize, into: &Path| {
        let copy = into.join("copy");
        let mut command = Command::new("cp");
        // A copy that shares its blocks with the source would move nothing.
        command.arg("--reflink=never").arg(&source).arg(&copy);
        FetchSteps { commands: vec![command], copy: Some(copy) }
    };
    ProgramContender::new("cp", terms, Vec::new(), steps).into_reference()
}
