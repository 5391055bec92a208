//! `download_file`: in the background at the prompt; on the command line until the file is durable.

use std::path::Path;

use super::context::{Asked, Context};
use super::patience::Patience;
use crate::clock;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Ask, Event, FileAt};
use crate::quoted;

/// Fetches a file.
pub(super) fn run(context: &mut Context<'_>, at: FileAt, destination: &Path) -> Result<(), Fault> {
    let destination = context.path(destination)?;
    let file = quoted::file(&at.group, &at.file);
    let ask = Ask::Download { at, destination, overwrite: context.overwrite, background: context.at_prompt };
    let interrupt = context.interrupt;
    let answer = context.patiently(|context| {
        let mut patience = Patience::new(context.wait);
        let mut given_up = false;
        let screen = &mut *context.screen;
        let answer = context.link.ask(&ask, &mut |event| {
            screen.event(&event);
            match &event {
                Event::Transfer(transfer) => {
                    patience.look(clock::now(), transfer).inspect_err(|_| given_up = true)
                }
                _ => Ok(()),
            }
        });
        answer.map_err(|fault| if given_up { Asked::Over(fault) } else { Asked::Answered(fault) })
    });
    match answer {
        Ok(answer) => {
            context.screen.answer(&answer);
            Ok(())
        }
        Err(_) if interrupt.happened() => Err(if context.own_node {
            let message = "interrupted; what was fetched stays beside the destination";
            Fault::new(Exit::Interrupted, message).fix("the same command goes on where it stopped")
        } else {
            let message = "this command ends; the node goes on with the download";
            let fix = format!("`show_downloads` shows how it goes, `cancel {file}` ends it");
            Fault::new(Exit::Interrupted, message).fix(fix)
        }),
        Err(fault) => Err(fault),
    }
}
