//! `leave_group`: asks on a terminal before a group is deleted or gets another owner.
//!
//! Without a terminal it does not ask, so that scripts never wait for an answer.

use std::io::IsTerminal;

use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};
use tracker::api::GroupId;
use tracker::api::request::{Command, ListPage};

use super::context::{CommandContext, interrupted_fault};
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeAnswer;
use crate::terminal::LineReadGuard;

pub(super) fn leave_group(
    context: &mut CommandContext<'_>,
    group: GroupId,
    yes: bool,
) -> Result<(), ClientFault> {
    if !yes && std::io::stdin().is_terminal() {
        confirm_loss(context, &group)?;
    }
    context.request_and_show(&Command::LeaveGroup { group }.into())
}

/// Asks if the group or its ownership would be lost.
fn confirm_loss(context: &mut CommandContext<'_>, group: &GroupId) -> Result<(), ClientFault> {
    let list = Command::ListGroups { page: ListPage::whole() };
    let answer = context.connection.request(&list.into(), &mut |_| Ok(()));
    let NodeAnswer::Groups { groups } = context.mark_interrupted(answer)? else { return Ok(()) };
    let Some(row) = groups.into_iter().find(|row| row.member && row.group == group.as_str()) else {
        return Ok(());
    };
    let loss = match (row.members, row.owned) {
        (1, _) => {
            format!("You are the last member of {group}: the group and its list of files will be deleted.")
        }
        (_, true) => {
            format!("You own {group}: the member who joined first after you will be its owner.")
        }
        (_, false) => return Ok(()),
    };
    if ask_yes_or_no(&format!("{loss} Leave it? [y/N] "))? {
        return Ok(());
    }
    Err(ClientFault::new(ExitCause::Other, format!("you are still a member of {group}"))
        .fix(format!("`leave_group {group} --yes` leaves it without asking")))
}

/// Asks on the terminal. Anything but `y` or `yes` means no.
fn ask_yes_or_no(question: &str) -> Result<bool, ClientFault> {
    let fault = |error: ReadlineError| {
        ClientFault::new(ExitCause::Usage, format!("cannot ask on the terminal: {error}"))
            .fix("answer with `--yes`")
    };
    let config = Config::builder().max_history_size(0).map_err(fault)?.behavior(Behavior::PreferTerm).build();
    let mut line = DefaultEditor::with_config(config).map_err(fault)?;
    let _reading = LineReadGuard::begin();
    match line.readline(question) {
        Ok(answer) => Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")),
        Err(ReadlineError::Eof) => Ok(false),
        Err(ReadlineError::Interrupted) => Err(interrupted_fault()),
        Err(error) => Err(fault(error)),
    }
}
