//! `download_file`: runs in the background at the prompt; on the command line until the file is synced to disk.

use std::path::Path;

use tracker::api::GroupFile;

use super::context::{AttemptFault, CommandContext};
use super::stall::StallTimer;
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeEvent, NodeRequest};
use crate::ipc::rows::{TransferRow, TransferState};
use crate::quoting;
use crate::render::transfer;

pub(super) fn run_download(
    context: &mut CommandContext<'_>,
    file: GroupFile,
    destination: &Path,
) -> Result<(), ClientFault> {
    let destination = context.absolute_path(destination)?;
    let key = file.clone();
    let mut last_row = None;
    let typed = quoting::quote_path(&destination);
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
                    last_row = Some(transfer.clone());
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
        Err(_) if signals.was_signalled() => {
            Err(stopped_fault(&key, &typed, last_row.as_ref(), context.is_own_node))
        }
        Err(fault) => Err(fault),
    }
}

/// What a command says that Ctrl-C has ended: how much is there, and what to type to go on.
fn stopped_fault(
    key: &GroupFile,
    destination: &str,
    row: Option<&TransferRow>,
    is_own_node: bool,
) -> ClientFault {
    let file = quoting::quote_file(key.group.as_str(), key.name.as_str());
    let amount = row.map_or_else(|| "nothing downloaded yet".to_owned(), transfer::amount_text);
    let (outcome, fix) = match (is_own_node, row) {
        (true, None) => ("", format!("`download_file {file} {destination}` starts again")),
        (true, Some(_)) => (
            "; the part stays beside the destination",
            format!("`download_file {file} {destination}` continues"),
        ),
        (false, Some(row)) if row.state == TransferState::Paused => (
            "; it is paused in the running node",
            format!("`resume {file}` continues it, `cancel {file}` ends it"),
        ),
        (false, _) => (
            "; the running node continues the download",
            format!("`show_downloads` shows its progress, `cancel {file}` ends it"),
        ),
    };
    ClientFault::new(ExitCause::Interrupted, format!("{key}: {amount}{outcome}")).fix(fix)
}
