//! rsync from its daemon: no remote shell, no compression, whole files, which is its default between machines of one room.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::geteuid;

use super::ports;
use super::rival::{Rival, version_number};
use crate::contender::{Contender, FetchSteps, ProgramContender, TransferTerms};
use crate::topology::spawned::first_line;

/// rsync, from one source.
pub(super) struct RsyncRival;

impl Rival for RsyncRival {
    fn name(&self) -> &'static str {
        "rsync"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(version_number(&first_line("rsync", &["--version"])?))
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let port = ports::free_port()?;
        let folder = terms.content.path.parent().context("the file lies in a folder")?;
        let name = terms.content.path.file_name().context("the file has a name")?.to_string_lossy();
        let owner = if geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
        let text = format!(
            "use chroot = no\n{owner}pid file = {}\n[bench]\npath = {}\nread only = yes\n",
            terms.place.join("rsync.pid").display(),
            folder.display()
        );
        let file = terms.place.join("rsyncd.conf");
        std::fs::write(&file, text)?;
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}")]);
        command.arg(format!("--config={}", file.display()));
        let server = ports::start_server("rsync", &command, terms, port)?;
        let url = format!("rsync://127.0.0.1:{port}/bench/{name}");
        let steps = move |_: usize, into: &Path| {
            let copy = into.join("fetched");
            let mut command = Command::new("rsync");
            command.args(["--whole-file", "--inplace", &url]).arg(&copy);
            FetchSteps { commands: vec![command], copy: Some(copy) }
        };
        Ok(Box::new(ProgramContender::new(kind, terms, vec![server], steps).into_one_source()))
    }
}
