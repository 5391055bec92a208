//! A second connection to the node, on which the prompt hears what nobody asked for.
//!
//! Invariant: when the node goes away the whole process ends with exit 1, in whatever state the prompt is; unless the
//! prompt itself is leaving. The terminal is then as it was.

use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::ExternalPrinter;

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::NodeConnection;
use crate::ipc::protocol::{NodeEvent, NodeRequest};
use crate::plan::OutputPlan;
use crate::render::Screen;
use crate::terminal;

/// Whether the prompt is leaving, so that the node's end is no surprise.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// From now on the node may end without a word.
pub(super) fn expect_node_end() {
    LEAVING.store(true, Ordering::SeqCst);
}

/// Hears notices on `link` and prints them without disturbing the line that is being typed.
pub(super) fn watch_notices(
    mut link: NodeConnection,
    output: OutputPlan,
    mut printer: Option<impl ExternalPrinter + Send + 'static>,
) -> Result<(), ClientFault> {
    let mut print = move |text: &str| {
        let printed = printer.as_mut().is_some_and(|printer| printer.print(format!("{text}\n")).is_ok());
        if !printed {
            eprintln!("{text}");
        }
    };
    let hear = move || {
        let end = link.request(&NodeRequest::Watch, &mut |event| {
            if let NodeEvent::Notice { text } = event {
                print(&text);
            }
            Ok(())
        });
        if let Err(fault) = end
            && !LEAVING.load(Ordering::SeqCst)
        {
            // The thread that reads lines prints nothing any more for anybody: this goes out at once.
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
