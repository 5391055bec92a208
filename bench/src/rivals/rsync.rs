//! rsync from its daemon, without a remote shell and without compression. It sends whole files, as its manual
//! recommends for a fast network.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::geteuid;

use super::ports;
use super::rival::{Rival, program_version};
use crate::contender::{FetchSteps, ProgramContender, TransferTerms};

/// rsync from one source.
pub(super) const RSYNC: Rival = Rival {
    name: "rsync",
    version: || program_version("rsync", &["--version"]),
    keeps_source_mapped: None,
    start: start_daemon,
};

fn start_daemon(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let port = ports::free_port()?;
    let folder = terms.file.path.parent().context("the file's path has no folder")?;
    let name = terms.file.path.file_name().context("the file's path has no name")?.to_string_lossy();
    let owner = if geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
    let text = format!(
        "use chroot = no\n{owner}pid file = {}\n[bench]\npath = {}\nread only = yes\n",
        terms.folder.join("rsync.pid").display(),
        folder.display()
    );
    let config = terms.folder.join("rsyncd.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}")]);
    command.arg(format!("--config={}", config.display()));
    let server = ports::start_server("rsync", &command, terms, port)?;
    let url = format!("rsync://127.0.0.1:{port}/bench/{name}");
    let steps = move |_: usize, into: &Path| {
        let copy = into.join("fetched");
        let mut command = Command::new("rsync");
        command.args(["--whole-file", "--inplace", &url]).arg(&copy);
        FetchSteps { commands: vec![command], copy: Some(copy) }
    };
    Ok(ProgramContender::new(kind, terms, vec![server], steps).into_one_source())
}
