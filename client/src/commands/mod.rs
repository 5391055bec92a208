//! The commands, written once for the command line and the prompt.
//!
//! ```text
//!   ClientCommand ──► run_once ──┬─► serve, status, doctor, quit       about the node itself
//!                                └─► NodeAccess (running node, or this process) ──► run_command
//!   prompt ───────────────────────────────────────────────────────────────────────────┘ │
//!        task   account   leave   upload   download ── stall   suggestions   context  ◄──┘
//! ```
//!
//! A command sends requests to the node and shows the answers; decisions are the node's.

mod account;
mod context;
pub(crate) mod doctor;
mod download;
mod leave;
pub(crate) mod node_access;
mod node_service;
mod stall;
mod suggestions;
mod task;
mod upload;

use crate::cli::command::ClientCommand;
use crate::exit::ClientFault;
use crate::plan::ClientPlan;
use crate::render::Screen;
use crate::signals::SignalHandler;

use node_access::NodeAccess;
use suggestions::TypedNames;
use task::NodeTask;

pub(crate) use context::{CommandContext, break_on_signal};

/// Runs one command of the command line.
///
/// # Errors
/// The command's error.
pub(crate) fn run_once(
    command: ClientCommand,
    plan: &ClientPlan,
    screen: &mut Screen,
    signals: &SignalHandler,
) -> Result<(), ClientFault> {
    let command = match command {
        ClientCommand::Serve => return node_service::run_serve(plan, screen, signals),
        ClientCommand::Status => return node_service::run_status(plan, screen),
        ClientCommand::Doctor => return doctor::run_doctor(plan, screen),
        ClientCommand::Quit => return node_service::run_quit(plan, screen),
        command => command,
    };
    let typed = TypedNames::of(&command);
    let task =
        NodeTask::plan(command).map_err(|fault| suggestions::suggest_word_order(fault, typed.as_ref()))?;
    let uploads = matches!(task, NodeTask::Upload { .. });
    let downloads = matches!(task, NodeTask::Download { .. });
    let (node, mut connection) = NodeAccess::open(plan)?;
    if uploads || downloads {
        node.resume_shares()?;
    }
    break_on_signal(&connection, signals)?;
    let mut context = CommandContext {
        connection: &mut connection,
        screen,
        signals,
        directory: plan.directory.clone(),
        overwrite: plan.overwrite,
        wait: plan.wait,
        password_file: plan.password_file.clone(),
        at_prompt: false,
        is_own_node: matches!(node, NodeAccess::ThisProcess(_)),
    };
    let mut outcome = run_task(task, typed.as_ref(), &mut context);
    if outcome.is_ok() && uploads {
        outcome = node.keep_sharing(plan, screen, signals);
    }
    drop(connection);
    node.close(signals);
    outcome
}

/// Runs one command of the prompt on a connected node.
///
/// # Errors
/// The command's error.
pub(crate) fn run_command(
    command: ClientCommand,
    context: &mut CommandContext<'_>,
) -> Result<(), ClientFault> {
    let typed = TypedNames::of(&command);
    let task =
        NodeTask::plan(command).map_err(|fault| suggestions::suggest_word_order(fault, typed.as_ref()))?;
    run_task(task, typed.as_ref(), context)
}

fn run_task(
    task: NodeTask,
    typed: Option<&TypedNames>,
    context: &mut CommandContext<'_>,
) -> Result<(), ClientFault> {
    let outcome = match task {
        NodeTask::Request(request) => context.request_and_show(&request),
        NodeTask::CreateUser { user, password } => account::create_user(context, user, password),
        NodeTask::Login { user, password } => account::log_in(context, user, password),
        NodeTask::ChangePassword(passwords) => account::change_password(context, passwords),
        NodeTask::LeaveGroup { group, yes } => leave::leave_group(context, group, yes),
        NodeTask::Upload { first, second, listed_name } => {
            upload::run_upload(context, &first, &second, listed_name.as_ref())
        }
        NodeTask::Download { file, destination } => download::run_download(context, file, &destination),
    };
    outcome.map_err(|fault| suggestions::suggest_names(fault, typed, context))
}
