//! The commands, written once for the command line and the prompt.
//!
//! ```text
//!   ClientCommand ──► run_once ──┬─► serve, status, doctor, quit       about the node itself
//!                                └─► NodeAccess (running node, or this process) ──► run_command
//!   prompt ───────────────────────────────────────────────────────────────────────────┘ │
//!        request   account   upload   download ── stall        context              ◄──┘
//! ```
//!
//! A command sends requests to the node and shows the answers; decisions are the node's.

mod account;
mod context;
pub(crate) mod doctor;
mod download;
pub(crate) mod node_access;
mod serve;
mod stall;
mod status;
mod upload;

use crate::cli::command::{ClientCommand, PolicyOption};
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{FileRef, NodeRequest};
use crate::plan::ClientPlan;
use crate::render::Screen;
use crate::signals::SignalHandler;

use node_access::NodeAccess;

pub(crate) use context::{CommandContext, break_on_signal};

/// Runs one command of the command line.
///
/// # Errors
/// The command's error.
pub(crate) fn run_once(
    words: ClientCommand,
    plan: &ClientPlan,
    screen: &mut Screen,
    interrupt: &SignalHandler,
) -> Result<(), ClientFault> {
    match words {
        ClientCommand::Serve => return serve::run_serve(plan, screen, interrupt),
        ClientCommand::Status => return status::run_status(plan, screen),
        ClientCommand::Doctor => return doctor::run_doctor(plan, screen),
        ClientCommand::Quit => return status::run_quit(plan, screen),
        _ => check_names(&words)?,
    }
    let uploads = matches!(words, ClientCommand::UploadFile { .. });
    let downloads = matches!(words, ClientCommand::DownloadFile { .. });
    let (door, mut link) = NodeAccess::open(plan)?;
    if uploads || downloads {
        door.resume_shares()?;
    }
    break_on_signal(&link, interrupt)?;
    let mut context = CommandContext {
        link: &mut link,
        screen,
        interrupt,
        directory: plan.directory.clone(),
        overwrite: plan.overwrite,
        wait: plan.wait,
        password_file: plan.password_file.clone(),
        at_prompt: false,
        is_own_node: matches!(door, NodeAccess::ThisProcess(_)),
    };
    let mut outcome = run_command(words, &mut context);
    if outcome.is_ok() && uploads {
        outcome = door.keep_sharing(plan, screen, interrupt);
    }
    drop(link);
    door.close(interrupt);
    outcome
}

/// Checks names before a node is contacted.
///
/// # Errors
/// A usage error for names that no group or file may have.
pub(crate) fn check_names(words: &ClientCommand) -> Result<(), ClientFault> {
    match words {
        ClientCommand::DownloadFile { group_id, file_name, .. }
        | ClientCommand::StopShare { group_id, file_name }
        | ClientCommand::RemoveFile { group_id, file_name }
        | ClientCommand::Pause { group_id, file_name }
        | ClientCommand::Resume { group_id, file_name }
        | ClientCommand::Cancel { group_id, file_name }
        | ClientCommand::GetPeers { group_id, file_name } => file_ref(group_id, file_name).key().map(|_| ()),
        _ => Ok(()),
    }
}

fn file_ref(group: &str, file: &str) -> FileRef {
    FileRef { group: group.to_owned(), file: file.to_owned() }
}

/// Runs a command on a connected node.
///
/// # Errors
/// The command's error.
pub(crate) fn run_command(words: ClientCommand, context: &mut CommandContext<'_>) -> Result<(), ClientFault> {
    check_names(&words)?;
    match words {
        ClientCommand::CreateUser { user_id, password } => account::create_user(context, user_id, password),
        ClientCommand::Login { user_id, password } => account::log_in(context, user_id, password),
        ClientCommand::ChangePassword { password, new_password } => {
            account::change_password(context, password.zip(new_password))
        }
        ClientCommand::Logout => context.request_and_show(&NodeRequest::Logout),
        ClientCommand::Whoami => context.request_and_show(&NodeRequest::Whoami),
        ClientCommand::CreateGroup { group_id, policy } => {
            context.request_and_show(&NodeRequest::CreateGroup {
                group: group_id,
                approval: policy == PolicyOption::Approval,
            })
        }
        ClientCommand::JoinGroup { group_id } => {
            context.request_and_show(&NodeRequest::JoinGroup { group: group_id })
        }
        ClientCommand::LeaveGroup { group_id } => {
            context.request_and_show(&NodeRequest::LeaveGroup { group: group_id })
        }
        ClientCommand::ListGroups => context.request_and_show(&NodeRequest::ListGroups),
        ClientCommand::ListRequests { group_id } => {
            context.request_and_show(&NodeRequest::ListRequests { group: group_id })
        }
        ClientCommand::AcceptRequest { group_id, user_id } => {
            context.request_and_show(&NodeRequest::AcceptRequest { group: group_id, user: user_id })
        }
        ClientCommand::RejectRequest { group_id, user_id } => {
            context.request_and_show(&NodeRequest::RejectRequest { group: group_id, user: user_id })
        }
        ClientCommand::RemoveMember { group_id, user_id } => {
            context.request_and_show(&NodeRequest::RemoveMember { group: group_id, user: user_id })
        }
        ClientCommand::RemoveFile { group_id, file_name } => {
            context.request_and_show(&NodeRequest::RemoveFile(file_ref(&group_id, &file_name)))
        }
        ClientCommand::UploadFile { group_id, file_path } => {
            upload::run_upload(context, &group_id, &file_path)
        }
        ClientCommand::DownloadFile { group_id, file_name, destination_path } => {
            download::run_download(context, file_ref(&group_id, &file_name), &destination_path)
        }
        ClientCommand::ListFiles { group_id } => {
            context.request_and_show(&NodeRequest::ListFiles { group: group_id })
        }
        ClientCommand::StopShare { group_id, file_name } => {
            context.request_and_show(&NodeRequest::StopShare(file_ref(&group_id, &file_name)))
        }
        ClientCommand::ShowDownloads => context.request_and_show(&NodeRequest::ShowDownloads),
        ClientCommand::Pause { group_id, file_name } => {
            context.request_and_show(&NodeRequest::Pause(file_ref(&group_id, &file_name)))
        }
        ClientCommand::Resume { group_id, file_name } => {
            context.request_and_show(&NodeRequest::Resume(file_ref(&group_id, &file_name)))
        }
        ClientCommand::Cancel { group_id, file_name } => {
            context.request_and_show(&NodeRequest::Cancel(file_ref(&group_id, &file_name)))
        }
        ClientCommand::GetPeers { group_id, file_name } => {
            context.request_and_show(&NodeRequest::GetPeers(file_ref(&group_id, &file_name)))
        }
        ClientCommand::Status => context.request_and_show(&NodeRequest::Status),
        ClientCommand::Doctor | ClientCommand::Serve | ClientCommand::Quit => Err(ClientFault::new(
            ExitCause::Usage,
            "this command is for the command line, not for the prompt",
        )
        .fix("`help`")),
    }
}
