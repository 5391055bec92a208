//! Which source the harness and the programs beside it were built from.

use std::path::Path;
use std::process::Command;

/// The version, and of a build that lies in a working tree also its commit.
pub(crate) fn build_revision() -> String {
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let commit = std::env::current_exe().ok().and_then(|exe| exe.parent().and_then(commit_of));
    commit.map_or(version.to_owned(), |commit| format!("{version} {commit}"))
}

/// The commit of the working tree that `folder` lies in, with a mark when files differ from it.
fn commit_of(folder: &Path) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
