//! sendme: iroh's blobs over QUIC, between two addresses of this machine, without relays.

use std::path::Path;

use anyhow::Context as _;

use super::rival::{Rival, isolated_command, program_version};
use crate::contender::{FetchSteps, ProgramContender, TransferTerms};
use crate::topology::spawned::{SpawnedProgram, create_empty_folder};

/// The text before the ticket in the sender's output.
const TICKET_PREFIX: &str = "sendme receive ";

/// sendme from one source.
pub(super) const SENDME: Rival = Rival {
    name: "sendme",
    version: || program_version("sendme", &["--version"]),
    keeps_source_mapped: None,
    start: start_sender,
};

fn start_sender(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let place = create_empty_folder(terms.folder.join("sendme"))?;
    let mut command = isolated_command("sendme", terms);
    command.args(["send", "--no-progress", "--relay", "disabled", "--ticket-type", "addresses"]);
    command.arg(&terms.file.path).current_dir(&place);
    // It prints the ticket after it has hashed the file.
    let (server, ticket) =
        SpawnedProgram::start_until("sendme", &command, &terms.folder, TICKET_PREFIX, terms.round_limit)?;
    let name = terms.file.path.file_name().context("the file has a name")?.to_owned();
    let own = terms.clone();
    let steps = move |_: usize, into: &Path| {
        let mut command = isolated_command("sendme", &own);
        command.args(["receive", "--no-progress", "--relay", "disabled", &ticket]).current_dir(into);
        FetchSteps { commands: vec![command], copy: Some(into.join(&name)) }
    };
    Ok(ProgramContender::new(kind, terms, vec![server], steps).into_one_source())
}
