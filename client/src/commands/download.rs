//! `download_file`: runs in the background at the prompt; on the command line until the file is synced to disk.

use std::path::Path;

use super::context::{AttemptFault, CommandContext};
use super::stall::StallTimer;
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{FileRef, NodeEvent, NodeRequest};
use crate::quoting;

pub(super) fn run_download(
    context: &mut CommandContext<'_>,
    at: FileRef,
    destination: &Path,
) -> Result<(), ClientFault> {
    let destination = context.absolute_path(destination)?;
    let file = quoting::quote_file(&at.group, &at.file);
    let ask = NodeRequest::Download {
        at,
        destination,
        overwrite: context.overwrite,
        background: context.at_prompt,
    };
    let interrupt = context.interrupt;
    let answer = context.retry_while_no_tracker(|context| {
        let mut patience = StallTimer::new(context.wait);
        let mut given_up = false;
        let screen = &mut *context.screen;
        let answer = context.link.request(&ask, &mut |event| {
            screen.show_event(&event);
            match &event {
                NodeEvent::Transfer(transfer) => {
                    patience.check(clock::now(), transfer).inspect_err(|_| given_up = true)
                }
                _ => Ok(()),
            }
        });
        answer.map_err(
            |fault| if given_up { AttemptFault::Abandoned(fault) } else { AttemptFault::Answered(fault) },
        )
    });
    match answer {
        Ok(answer) => {
            context.screen.show_answer(&answer);
            Ok(())
        }
        Err(_) if interrupt.was_signalled() => Err(if context.is_own_node {
            let message = "interrupted; what was fetched stays beside the destination";
            ClientFault::new(ExitCause::Interrupted, message).fix("the same command goes on where it stopped")
        } else {
            let message = "this command ends; the node goes on with the download";
            let fix = format!("`show_downloads` shows how it goes, `cancel {file}` ends it");
            ClientFault::new(ExitCause::Interrupted, message).fix(fix)
        }),
        Err(fault) => Err(fault),
    }
}
