//! sendme: iroh's blobs over QUIC, between two addresses of this machine, without relays.

use std::io::BufRead as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::rival::{Rival, number};
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
        let mut command = Command::new("sendme");
        command.args(["send", "--no-progress", "--relay", "disabled", "--ticket-type", "addresses"]);
        command.arg(&terms.content.path).current_dir(&place);
        let (server, mut lines) = Spawned::start_read("sendme", &command, &terms.place)?;
        let mut line = String::new();
        let ticket = loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                bail!("it ended without a ticket{}", server.last_words());
            }
            if let Some((_, ticket)) = line.split_once(BEFORE_TICKET) {
                break ticket.trim().to_owned();
            }
        };
        // What it says further has to be read, or it would stop on a full pipe.
        std::thread::Builder::new().spawn(move || std::io::copy(&mut lines, &mut std::io::sink()))?;
        let name = terms.content.path.file_name().context("the file has a name")?.to_owned();
        let steps = move |into: &Path| {
            let mut command = Command::new("sendme");
            command.args(["receive", "--no-progress", "--relay", "disabled", &ticket]).current_dir(into);
            Steps { commands: vec![command], copy: Some(into.join(&name)) }
        };
        Ok(Box::new(Programs {
            kind: kind.to_owned(),
            reference: false,
            servers: vec![server],
            steps: Box::new(steps),
            terms: terms.clone(),
        }))
    }
}
