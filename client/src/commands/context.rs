//! What every command works with: the node, the terminal, signals, and the options that matter to it.

use std::path::PathBuf;
use std::time::Duration;

use crate::exit::{Exit, Fault};
use crate::front::link::NodeLink;
use crate::front::protocol::Ask;
use crate::interrupt::Interrupt;
use crate::render::Screen;

/// What a command works with.
pub(crate) struct Context<'a> {
    /// The node.
    pub(crate) link: &'a mut NodeLink,
    /// The user's terminal.
    pub(crate) screen: &'a mut Screen,
    /// Signals.
    pub(crate) interrupt: &'a Interrupt,
    /// The working directory, for paths as typed.
    pub(crate) directory: PathBuf,
    /// Replace existing files.
    pub(crate) overwrite: bool,
    /// How long a download may stay paused or still.
    pub(crate) wait: Duration,
    /// Where the password is.
    pub(crate) password_file: Option<PathBuf>,
    /// Whether this is the prompt: then downloads run in the background.
    pub(crate) at_prompt: bool,
    /// Whether the node ends with this command.
    pub(crate) own_node: bool,
}

impl Context<'_> {
    /// Asks the node and shows the answer.
    pub(crate) fn show(&mut self, ask: &Ask) -> Result<(), Fault> {
        let screen = &mut *self.screen;
        let answer = self.link.ask(ask, &mut |event| {
            screen.event(&event);
            Ok(())
        });
        self.screen.answer(&self.judge(answer)?);
        Ok(())
    }

    /// What broke off because of Ctrl-C is an interruption, whatever it looked like.
    pub(crate) fn judge<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| if self.interrupt.happened() { interrupted() } else { fault })
    }
}

/// That Ctrl-C ended it.
pub(super) fn interrupted() -> Fault {
    Fault::new(Exit::Interrupted, "interrupted").fix("give the same command again")
}

/// Lets the first signal break the connection to the node, so that whatever waits for an answer ends.
pub(crate) fn break_on_signal(link: &NodeLink, interrupt: &Interrupt) -> Result<(), Fault> {
    let breaker = link.breaker().map_err(|error| {
        Fault::new(Exit::LocalIo, format!("no descriptor left: {error}")).fix("raise `ulimit -n`")
    })?;
    interrupt.on_signal(move || {
        // A connection that is gone already needs no breaking.
        let _ = breaker.shutdown(std::net::Shutdown::Both);
    });
    Ok(())
}
