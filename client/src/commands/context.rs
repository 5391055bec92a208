//! What every command works with: the node, the terminal, signals, and the options that matter to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::exit::{Exit, Fault};
use crate::front::link::NodeLink;
use crate::front::protocol::Ask;
use crate::interrupt::Interrupt;
use crate::limits;
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

    /// Puts a question that may wait: while no tracker answers it is put again, as long as `--wait` says, and what it waits
    /// for is said. At the prompt it is put once, since its user can put it again.
    pub(crate) fn patiently<T>(
        &mut self,
        mut ask: impl FnMut(&mut Self) -> Result<T, Asked>,
    ) -> Result<T, Fault> {
        // A wait that is longer than the clock can count has no end.
        let deadline = clock::now().checked_add(self.wait);
        let mut said = self.at_prompt;
        loop {
            let fault = match ask(self) {
                Ok(answer) => return Ok(answer),
                Err(Asked::Over(fault)) => return Err(fault),
                Err(Asked::Answered(fault)) => fault,
            };
            let left =
                deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(clock::now()));
            if fault.exit != Exit::NoTracker || self.at_prompt || left.is_zero() || self.interrupt.happened()
            {
                return Err(fault);
            }
            if !std::mem::replace(&mut said, true) {
                let seconds = self.wait.as_secs();
                self.screen
                    .note(&format!("{fault}; waiting for one, at most {seconds} s (`--wait SECONDS`)"));
            }
            // A tracker that is away says nothing when it is back: there is nothing to wait on but time.
            std::thread::park_timeout(left.min(Duration::from_millis(limits::TRACKER_RETRY_MS)));
        }
    }

    /// A path as typed, absolute, as the node is told it.
    ///
    /// # Errors
    /// A usage fault for a path that is no text: lines to the node and records are.
    pub(crate) fn path(&self, typed: &Path) -> Result<PathBuf, Fault> {
        // `join` keeps a final slash, which says that a directory is meant.
        let path = self.directory.join(typed);
        if path.to_str().is_some() {
            return Ok(path);
        }
        let message = format!("the path {} is not UTF-8, and cannot be put on record", path.display());
        Err(Fault::new(Exit::Usage, message)
            .fix("rename it, or `cd` to a directory whose name is UTF-8 and give a path from there"))
    }

    /// What broke off because of Ctrl-C is an interruption, whatever it looked like.
    pub(crate) fn judge<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| if self.interrupt.happened() { interrupted() } else { fault })
    }
}

/// Why a question has no answer.
pub(crate) enum Asked {
    /// The node said why; it can be asked again.
    Answered(Fault),
    /// It was given up: the connection is of no more use.
    Over(Fault),
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
