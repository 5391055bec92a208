//! `download_file`: in the background at the prompt; on the command line until the file is durable.

use std::path::Path;

use super::context::{Context, interrupted};
use super::patience::Patience;
use crate::clock;
use crate::exit::Fault;
use crate::front::protocol::{Ask, Event, FileAt};

/// Fetches a file.
pub(super) fn run(context: &mut Context<'_>, at: FileAt, destination: &Path) -> Result<(), Fault> {
    // `join` keeps a final slash, which says that a directory is meant.
    let destination = context.directory.join(destination);
    let ask = Ask::Download { at, destination, overwrite: context.overwrite, background: context.at_prompt };
    let mut patience = Patience::new(context.wait);
    let screen = &mut *context.screen;
    let interrupt = context.interrupt;
    let answer = context.link.ask(&ask, &mut |event| {
        screen.event(&event);
        match &event {
            Event::Transfer(transfer) => patience.look(clock::now(), transfer),
            _ => Ok(()),
        }
    });
    match answer {
        Ok(answer) => {
            context.screen.answer(&answer);
            Ok(())
        }
        Err(_) if interrupt.happened() => {
            let mut fault = interrupted().fix("give the same command to go on: the download is resumable");
            fault.message = "interrupted; what was fetched stays beside the destination".into();
            Err(fault)
        }
        Err(fault) => Err(fault),
    }
}
