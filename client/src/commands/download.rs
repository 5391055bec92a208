//! `download_file`: runs in the background at the prompt; on the command line until the file is synced to disk.

use std::path::Path;

use tracker::api::GroupFile;

use super::context::{AttemptFault, CommandContext};
use super::stall::StallTimer;
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeEvent, NodeRequest};
use crate::quoting;

pub(super) fn run_download(
    context: &mut CommandContext<'_>,
    file: GroupFile,
    destination: &Path,
) -> Result<(), ClientFault> {
    let destination = context.absolute_path(destination)?;
    let quoted = quoting::quote_file(file.group.as_str(), file.name.as_str());
    let request = NodeRequest::Download {
        file,
        destination,
        overwrite: context.overwrite,
        background: context.at_prompt,
    };
    let signals = context.signals;
    let answer = context.retry_while_no_tracker(|context| {
        let mut stall_timer = StallTimer::new(context.wait);
        let mut stalled = false;
        let screen = &mut *context.screen;
        let answer = context.connection.request(&request, &mut |event| {
            screen.show_event(&event);
            match &event {
                NodeEvent::Transfer(transfer) => {
                    stall_timer.check(clock::now(), transfer).inspect_err(|_| stalled = true)
                }
                _ => Ok(()),
            }
        });
        answer.map_err(
            |fault| if stalled { AttemptFault::Abandoned(fault) } else { AttemptFault::Answered(fault) },
        )
    });
    match answer {
        Ok(answer) => {
            context.screen.show_answer(&answer);
            Ok(())
        }
        Err(_) if signals.was_signalled() => Err(if context.is_own_node {
            let message = "interrupted; the downloaded part stays beside the destination";
            ClientFault::new(ExitCause::Interrupted, message).fix("give the same command again to resume")
        } else {
            let message = "this command ends; the node continues the download";
            let fix = format!("`show_downloads` shows its progress, `cancel {quoted}` ends it");
            ClientFault::new(ExitCause::Interrupted, message).fix(fix)
        }),
        Err(fault) => Err(fault),
    }
}
