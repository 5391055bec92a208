//! The commands, each written once for the prompt and the command line.
//!
//! ```text
//!   Words ──► run_once ──┬─► serve, status, doctor, quit       about the node itself
//!                        └─► Door (running node, or this process) ──► carry_out
//!   prompt ───────────────────────────────────────────────────────────┘ │
//!        account   upload   download ── patience        context       ◄──┘
//! ```
//!
//! Invariant: a command asks the node and shows what comes back; it decides nothing that the node could.

mod account;
mod context;
pub(crate) mod doctor;
pub(crate) mod door;
mod download;
mod patience;
mod serve;
mod status;
mod upload;

use crate::cli::words::{Policy, Words};
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Ask, FileAt};
use crate::interrupt::Interrupt;
use crate::plan::Plan;
use crate::render::Screen;

use door::Door;

pub(crate) use context::{Context, break_on_signal};

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
    let downloads = matches!(words, Words::DownloadFile { .. });
    let (door, mut link) = Door::open(plan)?;
    if uploads || downloads {
        door.share_meanwhile()?;
    }
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
        own_node: matches!(door, Door::Inside(_)),
    };
    let mut outcome = carry_out(words, &mut context);
    if outcome.is_ok() && uploads {
        outcome = door.keep_sharing(plan, screen, interrupt);
    }
    drop(link);
    door.close(interrupt);
    outcome
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
        Words::ChangePassword { password, new_password } => {
            account::change_password(context, password.zip(new_password))
        }
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
                .fix("`help`"))
        }
    }
}
