//! Notices at the prompt, over a second connection to the node.
//!
//! When the node goes away the process ends with exit 1 and a restored terminal, unless the prompt is leaving already.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::ExternalPrinter;

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::NodeConnection;
use crate::ipc::protocol::{NodeEvent, NodeRequest};
use crate::plan::OutputPlan;
use crate::printable::escape_lines;
use crate::render::Screen;
use crate::terminal;

/// The prompt is leaving, so the end of the node is expected.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// The node may end from now on.
pub(super) fn expect_node_end() {
    LEAVING.store(true, Ordering::SeqCst);
}

/// Prints notices without disturbing the line that is being typed.
pub(super) fn watch_notices(
    mut connection: NodeConnection,
    output: OutputPlan,
    mut printer: Option<impl ExternalPrinter + Send + 'static>,
) -> Result<(), ClientFault> {
    let mut print = move |text: &str| {
        let text = escape_lines(text);
        let printed = printer.as_mut().is_some_and(|printer| printer.print(format!("{text}\n")).is_ok());
        if !printed {
            // A terminal that has gone ends the prompt, not its threads.
            _ = writeln!(std::io::stderr(), "{text}");
        }
    };
    let hear = move || {
        let end = connection.request(&NodeRequest::Watch, &mut |event| {
            if let NodeEvent::Notice { text } = event {
                print(&text);
            }
            Ok(())
        });
        if let Err(fault) = end
            && !LEAVING.load(Ordering::SeqCst)
        {
            // The reading thread will print nothing more, so this is printed here.
            terminal::restore_terminal();
            Screen::new(output).show_fault(&fault);
            terminal::exit_with_terminal_restored(ExitCause::Other);
        }
    };
    std::thread::Builder::new()
        .name("notices".into())
        .spawn(hear)
        .map(drop)
        .map_err(|error| ClientFault::no_thread(&error))
}
