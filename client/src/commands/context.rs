//! What every command needs: the connection to the node, the terminal, signals, and its options.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::NodeConnection;
use crate::ipc::protocol::NodeRequest;
use crate::limits;
use crate::printable::show_path;
use crate::render::Screen;
use crate::signals::SignalHandler;

pub(crate) struct CommandContext<'a> {
    pub(crate) connection: &'a mut NodeConnection,
    pub(crate) screen: &'a mut Screen,
    pub(crate) signals: &'a SignalHandler,
    /// Base of relative paths.
    pub(crate) directory: PathBuf,
    pub(crate) overwrite: bool,
    /// How long a download may stay paused or without progress, and how long uploads and downloads wait for a tracker.
    pub(crate) wait: Duration,
    pub(crate) password_file: Option<PathBuf>,
    /// At the prompt, downloads run in the background.
    pub(crate) at_prompt: bool,
    /// The node runs in this process and ends with the command.
    pub(crate) is_own_node: bool,
}

impl CommandContext<'_> {
    /// Sends a request to the node and shows the answer.
    pub(crate) fn request_and_show(&mut self, request: &NodeRequest) -> Result<(), ClientFault> {
        let screen = &mut *self.screen;
        let answer = self.connection.request(request, &mut |event| {
            screen.show_event(&event);
            Ok(())
        });
        self.screen.show_answer(&self.mark_interrupted(answer)?);
        Ok(())
    }

    /// Repeats `attempt` while no tracker can be reached, for at most `--wait`, and says what it waits for. At the prompt there is
    /// one attempt, since the user can repeat the command.
    pub(crate) fn retry_while_no_tracker<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, AttemptFault>,
    ) -> Result<T, ClientFault> {
        // `None` is a wait without end: `--wait` exceeds the clock's range.
        let deadline = clock::now().checked_add(self.wait);
        let mut notified = self.at_prompt;
        loop {
            let fault = match attempt(self) {
                Ok(answer) => return Ok(answer),
                Err(AttemptFault::Abandoned(fault)) => return Err(fault),
                Err(AttemptFault::Answered(fault)) => fault,
            };
            let left =
                deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(clock::now()));
            if fault.exit != ExitCause::NoTracker
                || self.at_prompt
                || left.is_zero()
                || self.signals.was_signalled()
            {
                return Err(fault);
            }
            if !std::mem::replace(&mut notified, true) {
                let seconds = self.wait.as_secs();
                self.screen
                    .show_note(&format!("{fault}; waiting for one, at most {seconds} s (`--wait SECONDS`)"));
            }
            // The return of a tracker raises no event, so this polls.
            std::thread::park_timeout(left.min(Duration::from_millis(limits::TRACKER_RETRY_MS)));
        }
    }

    /// The absolute form of a destination, for the node.
    ///
    /// # Errors
    /// Usage error for a path that is not UTF-8, since a download's record and its answers are JSON.
    pub(crate) fn absolute_path(&self, typed: &Path) -> Result<PathBuf, ClientFault> {
        let path = join_without_dots(&self.directory, typed);
        if path.to_str().is_some() {
            return Ok(path);
        }
        let message = format!("the path {} is not UTF-8, and cannot be recorded", show_path(&path));
        Err(ClientFault::new(ExitCause::Usage, message).fix("name a directory whose whole path is UTF-8"))
    }

    /// Turns any error after Ctrl-C into an interruption.
    pub(crate) fn mark_interrupted<T>(&self, result: Result<T, ClientFault>) -> Result<T, ClientFault> {
        result.map_err(|fault| if self.signals.was_signalled() { interrupted_fault() } else { fault })
    }
}

/// `typed` below `directory`, without `.` in it. A final slash or `.` marks a directory, and becomes a final slash.
fn join_without_dots(directory: &Path, typed: &Path) -> PathBuf {
    let mut path: PathBuf = directory.join(typed).components().collect();
    if [&b"/"[..], b"/."].iter().any(|end| typed.as_os_str().as_bytes().ends_with(end))
        || typed == Path::new(".")
    {
        path.push("");
    }
    path
}

/// Why an attempt failed.
pub(crate) enum AttemptFault {
    /// The node answered with an error; the request can be repeated.
    Answered(ClientFault),
    /// The request was abandoned; the connection can no longer be used.
    Abandoned(ClientFault),
}

/// The error of a command that Ctrl-C ended.
pub(super) fn interrupted_fault() -> ClientFault {
    ClientFault::new(ExitCause::Interrupted, "interrupted").fix("give the same command again")
}

/// Makes the first signal shut down the connection to the node, which ends any wait for an answer.
pub(crate) fn break_on_signal(
    connection: &NodeConnection,
    signals: &SignalHandler,
) -> Result<(), ClientFault> {
    let breaker = connection.shutdown_handle().map_err(ClientFault::no_descriptor)?;
    signals.on_signal(move || {
        // Fails only if the connection is closed already.
        let _ = breaker.shutdown(std::net::Shutdown::Both);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_leave_a_path_and_a_directory_stays_marked() {
        for (typed, path) in [
            (".", "/base/"),
            ("./", "/base/"),
            ("a/.", "/base/a/"),
            ("./a", "/base/a"),
            ("a/./b", "/base/a/b"),
            ("a/", "/base/a/"),
            ("../a", "/base/../a"),
            (".a.", "/base/.a."),
            ("/", "/"),
            ("/x/.", "/x/"),
        ] {
            let joined = join_without_dots(Path::new("/base"), Path::new(typed));
            assert_eq!(joined.to_str(), Some(path), "{typed}");
        }
    }
}
