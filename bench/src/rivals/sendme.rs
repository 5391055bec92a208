//! sendme: iroh's blobs over QUIC, between two addresses of this machine, without relays.

use std::path::Path;

use anyhow::Context as _;

use super::rival::{Rival, at_home, number};
use crate::contender::{Contender, Programs, Steps, Terms};
use crate::topology::spawned::{Spawned, first_line, folder};

/// What stands before the ticket in the sender's words.
const BEFORE_TICKET: &str = "sendme receive ";

/// sendme, from one source.
pub(super) struct Sendme;

impl Rival for Sendme {
    fn name(&self) -> &'static str {
        "sendme"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(number(&first_line("sendme", &["--version"])?))
    }

    fn contender(&self, kind: &str, terms: &Terms) -> anyhow::Result<Box<dyn Contender>> {
        let place = folder(terms.place.join("sendme"))?;
        let mut command = at_home("sendme", terms);
        command.args(["send", "--no-progress", "--relay", "disabled", "--ticket-type", "addresses"]);
        command.arg(&terms.content.path).current_dir(&place);
        // It hashes the file first.
        let (server, ticket) =
            Spawned::start_telling("sendme", &command, &terms.place, BEFORE_TICKET, terms.limit)?;
        let name = terms.content.path.file_name().context("the file has a name")?.to_owned();
        let own = terms.clone();
        let steps = move |_: usize, into: &Path| {
            let mut command = at_home("sendme", &own);
            command.args(["receive", "--no-progress", "--relay", "disabled", &ticket]).current_dir(into);
            Steps { commands: vec![command], copy: Some(into.join(&name)) }
        };
        Ok(Box::new(Programs::new(kind, terms, vec![server], steps).into_one_source()))
    }
}
