//! What every command works with: the node, the terminal, signals, and the options that matter to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::NodeConnection;
use crate::ipc::protocol::NodeRequest;
use crate::limits;
use crate::render::Screen;
use crate::signals::SignalHandler;

/// What a command works with.
pub(crate) struct CommandContext<'a> {
    /// The node.
    pub(crate) link: &'a mut NodeConnection,
    /// The user's terminal.
    pub(crate) screen: &'a mut Screen,
    /// Signals.
    pub(crate) interrupt: &'a SignalHandler,
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
    pub(crate) is_own_node: bool,
}

impl CommandContext<'_> {
    /// Asks the node and shows the answer.
    pub(crate) fn request_and_show(&mut self, ask: &NodeRequest) -> Result<(), ClientFault> {
        let screen = &mut *self.screen;
        let answer = self.link.request(ask, &mut |event| {
            screen.show_event(&event);
            Ok(())
        });
        self.screen.show_answer(&self.mark_interrupted(answer)?);
        Ok(())
    }

    /// Puts a question that may wait: while no tracker answers it is put again, as long as `--wait` says, and what it waits
    /// for is said. At the prompt it is put once, since its user can put it again.
    pub(crate) fn retry_while_no_tracker<T>(
        &mut self,
        mut ask: impl FnMut(&mut Self) -> Result<T, AttemptFault>,
    ) -> Result<T, ClientFault> {
        // A wait that is longer than the clock can count has no end.
        let deadline = clock::now().checked_add(self.wait);
        let mut said = self.at_prompt;
        loop {
            let fault = match ask(self) {
                Ok(answer) => return Ok(answer),
                Err(AttemptFault::Abandoned(fault)) => return Err(fault),
                Err(AttemptFault::Answered(fault)) => fault,
            };
            let left =
                deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(clock::now()));
            if fault.exit != ExitCause::NoTracker
                || self.at_prompt
                || left.is_zero()
                || self.interrupt.was_signalled()
            {
                return Err(fault);
            }
            if !std::mem::replace(&mut said, true) {
                let seconds = self.wait.as_secs();
                self.screen
                    .show_note(&format!("{fault}; waiting for one, at most {seconds} s (`--wait SECONDS`)"));
            }
            // A tracker that is away says nothing when it is back: there is nothing to wait on but time.
            std::thread::park_timeout(left.min(Duration::from_millis(limits::TRACKER_RETRY_MS)));
        }
    }

    /// A path as typed, absolute, as the node is told it.
    ///
    /// # Errors
    /// A usage fault for a path that is no text: lines to the node and records are.
    pub(crate) fn absolute_path(&self, typed: &Path) -> Result<PathBuf, ClientFault> {
        // `join` keeps a final slash, which says that a directory is meant.
        let path = self.directory.join(typed);
        if path.to_str().is_some() {
            return Ok(path);
        }
        let message = format!("the path {} is not UTF-8, and cannot be put on record", path.display());
        Err(ClientFault::new(ExitCause::Usage, message)
            .fix("rename it, or `cd` to a directory whose name is UTF-8 and give a path from there"))
    }

    /// What broke off because of Ctrl-C is an interruption, whatever it looked like.
    pub(crate) fn mark_interrupted<T>(&self, result: Result<T, ClientFault>) -> Result<T, ClientFault> {
        result.map_err(|fault| if self.interrupt.was_signalled() { interrupted_fault() } else { fault })
    }
}

/// Why a question has no answer.
pub(crate) enum AttemptFault {
    /// The node said why; it can be asked again.
    Answered(ClientFault),
    /// It was given up: the connection is of no more use.
    Abandoned(ClientFault),
}

/// That Ctrl-C ended it.
pub(super) fn interrupted_fault() -> ClientFault {
    ClientFault::new(ExitCause::Interrupted, "interrupted").fix("give the same command again")
}

/// Lets the first signal break the connection to the node, so that whatever waits for an answer ends.
pub(crate) fn break_on_signal(link: &NodeConnection, interrupt: &SignalHandler) -> Result<(), ClientFault> {
    let breaker = link.shutdown_handle().map_err(|error| {
        ClientFault::new(ExitCause::LocalIo, format!("no descriptor left: {error}")).fix("raise `ulimit -n`")
    })?;
    interrupt.on_signal(move || {
        // A connection that is gone already needs no breaking.
        let _ = breaker.shutdown(std::net::Shutdown::Both);
    });
    Ok(())
}
