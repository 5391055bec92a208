//! sendme: iroh's blobs over QUIC, between two addresses of this machine, without relays.

use std::path::Path;

use anyhow::Context as _;

use super::rival::{Rival, isolated_command, version_number};
use crate::contender::{Contender, FetchSteps, ProgramContender, TransferTerms};
use crate::topology::spawned::{SpawnedProgram, empty_folder, first_line};

/// What stands before the ticket in the sender's words.
const TICKET_PREFIX: &str = "sendme receive ";

/// sendme, from one source.
pub(super) struct SendmeRival;

impl Rival for SendmeRival {
    fn name(&self) -> &'static str {
        "sendme"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(version_number(&first_line("sendme", &["--version"])?))
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let place = empty_folder(terms.place.join("sendme"))?;
        let mut command = isolated_command("sendme", terms);
        command.args(["send", "--no-progress", "--relay", "disabled", "--ticket-type", "addresses"]);
        command.arg(&terms.content.path).current_dir(&place);
        // It hashes the file first.
        let (server, ticket) =
            SpawnedProgram::start_until("sendme", &command, &terms.place, TICKET_PREFIX, terms.limit)?;
        let name = terms.content.path.file_name().context("the file has a name")?.to_owned();
        let own = terms.clone();
        let steps = move |_: usize, into: &Path| {
            let mut command = isolated_command("sendme", &own);
            command.args(["receive", "--no-progress", "--relay", "disabled", &ticket]).current_dir(into);
            FetchSteps { commands: vec![command], copy: Some(into.join(&name)) }
        };
        Ok(Box::new(ProgramContender::new(kind, terms, vec![server], steps).into_one_source()))
    }
}
