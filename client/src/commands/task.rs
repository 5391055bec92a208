//! Plans a typed command: checks its names and turns it into a task for the node, before a node is contacted.
//!
//! A new command whose answer is a message needs one line here and its definition in `cli::command`.

use std::path::PathBuf;

use engine::proto::manifest::FileName;
use tracker::api::request::{Command, ListPage};
use tracker::api::{GroupFile, GroupId, Policy, UserId};

use crate::cli::command::{ClientCommand, FileArgs, MemberArgs, PolicyOption};
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeRequest;
use crate::printable::escape_line;

/// A command for a node, with valid names.
pub(super) enum NodeTask {
    /// One request, whose answer is shown.
    Request(NodeRequest),
    CreateUser {
        user: UserId,
        password: Option<String>,
    },
    Login {
        user: UserId,
        password: Option<String>,
    },
    /// The old and the new password, if given.
    ChangePassword(Option<(String, String)>),
    /// A group and a file in either order, and the name in the group if it is not the file's own.
    Upload {
        first: PathBuf,
        second: PathBuf,
        listed_name: Option<FileName>,
    },
    /// `yes`: without asking.
    LeaveGroup {
        group: GroupId,
        yes: bool,
    },
    Download {
        file: GroupFile,
        destination: PathBuf,
    },
}

impl NodeTask {
    /// Plans a typed command.
    ///
    /// # Errors
    /// A usage error for an invalid name, or a command that is for the command line only.
    pub(super) fn plan(command: ClientCommand) -> Result<NodeTask, ClientFault> {
        let control = match command {
            ClientCommand::CreateUser { user_id, password } => {
                return Ok(NodeTask::CreateUser { user: parse_user(&user_id)?, password });
            }
            ClientCommand::Login { user_id, password } => {
                return Ok(NodeTask::Login { user: parse_user(&user_id)?, password });
            }
            ClientCommand::ChangePassword { password, new_password } => {
                return Ok(NodeTask::ChangePassword(password.zip(new_password)));
            }
            ClientCommand::UploadFile { group_id, file_path, listed_name } => {
                let listed_name = listed_name.as_deref().map(parse_listed_name).transpose()?;
                return Ok(NodeTask::Upload { first: group_id.into(), second: file_path, listed_name });
            }
            ClientCommand::DownloadFile { file, destination_path } => {
                return Ok(NodeTask::Download { file: parse_file(&file)?, destination: destination_path });
            }
            ClientCommand::Logout => Command::Logout,
            ClientCommand::Whoami => Command::Whoami,
            ClientCommand::ListGroups => Command::ListGroups { page: ListPage::whole() },
            ClientCommand::CreateGroup { group_id, policy } => {
                Command::CreateGroup { group: parse_group(&group_id)?, policy: policy.into() }
            }
            ClientCommand::JoinGroup(args) => Command::JoinGroup { group: parse_group(&args.group_id)? },
            ClientCommand::LeaveGroup { group_id, yes } => {
                return Ok(NodeTask::LeaveGroup { group: parse_group(&group_id)?, yes });
            }
            ClientCommand::ListRequests(args) => {
                Command::ListRequests { group: parse_group(&args.group_id)?, page: ListPage::whole() }
            }
            ClientCommand::ListFiles(args) => {
                Command::ListFiles { group: parse_group(&args.group_id)?, page: ListPage::whole() }
            }
            ClientCommand::AcceptRequest(args) => {
                let (group, user) = parse_member(&args)?;
                Command::AcceptRequest { group, user }
            }
            ClientCommand::RejectRequest(args) => {
                let (group, user) = parse_member(&args)?;
                Command::RejectRequest { group, user }
            }
            ClientCommand::RemoveMember(args) => {
                let (group, user) = parse_member(&args)?;
                Command::RemoveMember { group, user }
            }
            ClientCommand::RemoveFile(args) => Command::RemoveFile { file: parse_file(&args)? },
            ClientCommand::StopShare(args) => Command::StopShare { file: parse_file(&args)?, content: None },
            ClientCommand::GetPeers(args) => {
                Command::GetPeers { file: parse_file(&args)?, content: None, peer_key: None }
            }
            other => return plan_local(other).map(NodeTask::Request),
        };
        Ok(NodeTask::Request(control.into()))
    }
}

/// The request for a command that concerns the node alone.
fn plan_local(command: ClientCommand) -> Result<NodeRequest, ClientFault> {
    match command {
        ClientCommand::ShowDownloads => Ok(NodeRequest::ShowDownloads),
        ClientCommand::Pause(args) => parse_file(&args).map(NodeRequest::Pause),
        ClientCommand::Resume(args) => parse_file(&args).map(NodeRequest::Resume),
        ClientCommand::Cancel(args) => parse_file(&args).map(NodeRequest::Cancel),
        ClientCommand::Status => Ok(NodeRequest::Status),
        _ => Err(ClientFault::new(
            ExitCause::Usage,
            "this command is for the command line, not for the prompt",
        )
        .fix("`help`")),
    }
}

impl From<PolicyOption> for Policy {
    fn from(policy: PolicyOption) -> Policy {
        match policy {
            PolicyOption::Open => Policy::Open,
            PolicyOption::Approval => Policy::Approval,
        }
    }
}

/// Parses a group name.
///
/// # Errors
/// A usage error.
pub(super) fn parse_group(text: &str) -> Result<GroupId, ClientFault> {
    GroupId::new(text).map_err(|bad| {
        ClientFault::new(
            ExitCause::Usage,
            format!("`{}` is not a valid group name: {bad}", escape_line(text)),
        )
        .fix("choose another name; `list_groups` lists the groups")
    })
}

fn parse_user(text: &str) -> Result<UserId, ClientFault> {
    UserId::new(text).map_err(|bad| {
        ClientFault::new(ExitCause::Usage, format!("`{}` is not a valid user name: {bad}", escape_line(text)))
            .fix("choose another name")
    })
}

fn parse_listed_name(text: &str) -> Result<FileName, ClientFault> {
    FileName::new(text).and_then(|name| name.check_new().map(|()| name)).map_err(|bad| {
        ClientFault::new(ExitCause::Usage, format!("`--as {}`: {bad}", escape_line(text)))
            .fix("choose another name")
    })
}

fn parse_member(args: &MemberArgs) -> Result<(GroupId, UserId), ClientFault> {
    Ok((parse_group(&args.group_id)?, parse_user(&args.user_id)?))
}

fn parse_file(args: &FileArgs) -> Result<GroupFile, ClientFault> {
    Ok(GroupFile { group: parse_group(&args.group_id)?, name: FileName::new(&args.file_name)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_file_names_are_refused() {
        for name in ["..", "a/b", "", "x\u{202E}y"] {
            let args = FileArgs { group_id: "g".into(), file_name: name.into() };
            let planned = NodeTask::plan(ClientCommand::Pause(args)).map(|_| ());
            assert_eq!(planned.unwrap_err().exit, ExitCause::Usage, "{name:?}");
        }
    }
}
