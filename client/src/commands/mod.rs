//! The commands, each written once for the prompt and the command line.
//!
//! ```text
//!   Words ──► run_once ──┬─► serve, status, doctor, quit       about the node itself
//!                        └─► Door (running node, or this process) ──► carry_out
//!   prompt ───────────────────────────────────────────────────────────┘ │
//!        account   upload   download ── patience                      ◄──┘
//! ```
//!
//! Invariant: a command asks the node and shows what comes back; it decides nothing that the node could.

mod account;
pub(crate) mod doctor;
pub(crate) mod door;
mod download;
mod patience;
mod serve;
mod status;
mod upload;

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::words::{Policy, Words};
use crate::exit::{Exit, Fault};
use crate::front::link::NodeLink;
use crate::front::protocol::{Ask, FileAt};
use crate::interrupt::Interrupt;
use crate::plan::Plan;
use crate::render::Screen;

use door::Door;

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

fn interrupted() -> Fault {
    Fault::new(Exit::Interrupted, "interrupted")
}

/// Carries out one command of the command line.
///
/// # Errors
/// The command's fault.
pub(crate) fn run_once(
    words: Words,
    plan: &Plan,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<(), Fault> {
    match words {
        Words::Serve => return serve::run(plan, screen, interrupt),
        Words::Status => return status::run(plan, screen),
        Words::Doctor => return doctor::run(plan, screen),
        Words::Quit => return status::quit(plan, screen),
        _ => check(&words)?,
    }
    let uploads = matches!(words, Words::UploadFile { .. });
    let (door, mut link) = Door::open(plan)?;
    break_on_signal(&link, interrupt)?;
    let mut context = Context {
        link: &mut link,
        screen,
        interrupt,
        directory: plan.directory.clone(),
        overwrite: plan.overwrite,
        wait: plan.wait,
        password_file: plan.password_file.clone(),
        at_prompt: false,
    };
    let outcome = carry_out(words, &mut context);
    if outcome.is_ok() && uploads {
        door.keep_sharing(screen, interrupt);
    }
    drop(link);
    door.close(interrupt);
    outcome
}

/// Lets the first signal break the connection to the node, so that whatever waits for an answer ends.
pub(crate) fn break_on_signal(link: &NodeLink, interrupt: &Interrupt) -> Result<(), Fault> {
    let breaker =
        link.breaker().map_err(|error| Fault::new(Exit::LocalIo, format!("no descriptor left: {error}")))?;
    interrupt.on_signal(move || {
        // A connection that is gone already needs no breaking.
        let _ = breaker.shutdown(std::net::Shutdown::Both);
    });
    Ok(())
}

/// What can be known to be wrong before anybody is asked.
///
/// # Errors
/// A usage fault for names that no group or file may have.
pub(crate) fn check(words: &Words) -> Result<(), Fault> {
    match words {
        Words::DownloadFile { group_id, file_name, .. }
        | Words::StopShare { group_id, file_name }
        | Words::RemoveFile { group_id, file_name }
        | Words::Pause { group_id, file_name }
        | Words::Resume { group_id, file_name }
        | Words::Cancel { group_id, file_name }
        | Words::GetPeers { group_id, file_name } => file_at(group_id, file_name).key().map(|_| ()),
        _ => Ok(()),
    }
}

fn file_at(group: &str, file: &str) -> FileAt {
    FileAt { group: group.to_owned(), file: file.to_owned() }
}

/// Carries out a command that is put to the node.
///
/// # Errors
/// The command's fault.
pub(crate) fn carry_out(words: Words, context: &mut Context<'_>) -> Result<(), Fault> {
    check(&words)?;
    match words {
        Words::CreateUser { user_id, password } => account::create_user(context, user_id, password),
        Words::Login { user_id, password } => account::login(context, user_id, password),
        Words::Logout => context.show(&Ask::Logout),
        Words::Whoami => context.show(&Ask::Whoami),
        Words::CreateGroup { group_id, policy } => {
            context.show(&Ask::CreateGroup { group: group_id, approval: policy == Policy::Approval })
        }
        Words::JoinGroup { group_id } => context.show(&Ask::JoinGroup { group: group_id }),
        Words::LeaveGroup { group_id } => context.show(&Ask::LeaveGroup { group: group_id }),
        Words::ListGroups => context.show(&Ask::ListGroups),
        Words::ListRequests { group_id } => context.show(&Ask::ListRequests { group: group_id }),
        Words::AcceptRequest { group_id, user_id } => {
            context.show(&Ask::AcceptRequest { group: group_id, user: user_id })
        }
        Words::RejectRequest { group_id, user_id } => {
            context.show(&Ask::RejectRequest { group: group_id, user: user_id })
        }
        Words::RemoveMember { group_id, user_id } => {
            context.show(&Ask::RemoveMember { group: group_id, user: user_id })
        }
        Words::RemoveFile { group_id, file_name } => {
            context.show(&Ask::RemoveFile(file_at(&group_id, &file_name)))
        }
        Words::UploadFile { group_id, file_path } => upload::run(context, &group_id, &file_path),
        Words::DownloadFile { group_id, file_name, destination_path } => {
            download::run(context, file_at(&group_id, &file_name), &destination_path)
        }
        Words::ListFiles { group_id } => context.show(&Ask::ListFiles { group: group_id }),
        Words::StopShare { group_id, file_name } => {
            context.show(&Ask::StopShare(file_at(&group_id, &file_name)))
        }
        Words::ShowDownloads => context.show(&Ask::ShowDownloads),
        Words::Pause { group_id, file_name } => context.show(&Ask::Pause(file_at(&group_id, &file_name))),
        Words::Resume { group_id, file_name } => context.show(&Ask::Resume(file_at(&group_id, &file_name))),
        Words::Cancel { group_id, file_name } => context.show(&Ask::Cancel(file_at(&group_id, &file_name))),
        Words::GetPeers { group_id, file_name } => {
            context.show(&Ask::GetPeers(file_at(&group_id, &file_name)))
        }
        Words::Status => context.show(&Ask::Status),
        Words::Doctor | Words::Serve | Words::Quit => {
            Err(Fault::new(Exit::Usage, "this command is for the command line, not for the prompt")
                .fix("help"))
        }
    }
}
