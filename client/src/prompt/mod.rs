//! The prompt: lines with history and completion, with notices of the node in between.
//!
//! ```text
//!   rustyline ──► cli::line ──► cli::PromptLine ──► commands::run_command ──► node
//!       │  └ completion: commands, remote_names, paths, masked passwords      │
//!       └──◄── notices: notices, and the node's end ◄─────────────────────────┘
//! ```
//!
//! A line with a password is neither shown nor stored. A prompt whose node goes away ends at once with exit 1; it never
//! becomes a node itself.

mod completion;
mod notices;
mod remote_names;

use std::io::IsTerminal;

use clap::error::ErrorKind;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Behavior, CompletionType, Config, Editor};

use crate::cli::command::ClientCommand;
use crate::cli::{PromptLine, line};
use crate::commands::node_access::{self, NodeAccess};
use crate::commands::{self, CommandContext};
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::connection::NodeConnection;
use crate::ipc::protocol::{NodeAnswer, NodeRequest};
use crate::ipc::rows::NodeStatus;
use crate::limits;
use crate::node::state_dir;
use crate::plan::ClientPlan;
use crate::render::Screen;
use crate::signals::SignalHandler;
use crate::terminal::LineReadGuard;

use completion::PromptCompleter;
use remote_names::RemoteNames;

type PromptEditor = Editor<PromptCompleter, FileHistory>;

/// Runs lines until `quit` or the end of the input. For piped input, the exit code is that of the first line that failed.
///
/// # Errors
/// When the prompt cannot start or its node went away. A failed line is shown, and the prompt continues.
pub(crate) fn run_prompt(
    plan: &ClientPlan,
    screen: &mut Screen,
    signals: &SignalHandler,
) -> Result<ExitCause, ClientFault> {
    screen.set_at_prompt();
    let (node, mut connection) = NodeAccess::open(plan)?;
    if let NodeAccess::ThisProcess(running) = &node {
        let listen = running.listen_address()?;
        screen.show_note(&format!("this prompt is the node, and listens on {listen}"));
        running
            .missing_requirements()
            .iter()
            .for_each(|what| screen.show_note(&format!("waiting for {what}")));
        running.record_problems().iter().for_each(|trouble| screen.show_note(trouble));
    } else {
        screen.show_note(&format!("attached to the node that runs as process {}", connection.pid()));
    }
    if let NodeAnswer::Node(NodeStatus { user: Some(user), .. }) =
        connection.request(&NodeRequest::Status, &mut |_| Ok(()))?
    {
        screen.show_note(&format!(
            "{user} is logged in here; another user at the same time needs another state directory: `--state DIR`"
        ));
    }
    screen.show_note("`help` shows the commands, `quit` leaves");
    let mut lines = open_editor(plan, RemoteNames::of_node(open_connection(plan, &node)?)?)?;
    let printer = lines.create_external_printer().ok();
    notices::watch_notices(open_connection(plan, &node)?, plan.output, printer)?;
    if let NodeAccess::ThisProcess(running) = &node {
        running.start_recovery(true)?;
    }
    let history = state_dir::history_path(&plan.node.state);
    // There may be no history yet.
    let _ = lines.load_history(&history);
    let outcome = read_lines(plan, screen, signals, &node, &mut connection, &mut lines);
    // A lost history does not fail the command.
    let _ = lines.save_history(&history);
    notices::expect_node_end();
    drop(connection);
    node.close(signals);
    outcome
}

fn open_editor(plan: &ClientPlan, names: RemoteNames) -> Result<PromptEditor, ClientFault> {
    let fault = |error: ReadlineError| {
        ClientFault::new(ExitCause::LocalIo, format!("cannot start the prompt: {error}"))
            .fix("run commands one by one: `client COMMAND`")
    };
    let config = Config::builder()
        .max_history_size(limits::HISTORY_LINES)
        .and_then(|builder| builder.history_ignore_dups(true))
        .map_err(fault)?
        .completion_type(CompletionType::List)
        .behavior(if std::io::stdin().is_terminal() { Behavior::PreferTerm } else { Behavior::Stdio })
        .build();
    let mut lines = PromptEditor::with_config(config).map_err(fault)?;
    lines.set_helper(Some(PromptCompleter::new(plan.directory.clone(), Some(names))));
    Ok(lines)
}

fn read_lines(
    plan: &ClientPlan,
    screen: &mut Screen,
    signals: &SignalHandler,
    node: &NodeAccess,
    connection: &mut NodeConnection,
    lines: &mut PromptEditor,
) -> Result<ExitCause, ClientFault> {
    let script = !std::io::stdin().is_terminal();
    let mut ends_with = ExitCause::Done;
    loop {
        let reading = LineReadGuard::begin();
        let read = lines.readline("shoal> ");
        drop(reading);
        let line = match read {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(ends_with),
            Err(error) => {
                return Err(ClientFault::new(ExitCause::LocalIo, format!("cannot read the input: {error}"))
                    .fix("run commands one by one: `client COMMAND`"));
            }
        };
        if !lines.helper().is_some_and(|assist| assist.may_contain_password(&line)) {
            // A lost history line does not fail the command.
            let _ = lines.add_history_entry(line.as_str());
        }
        match run_line(&line, plan, screen, signals, connection) {
            Ok(LineOutcome::Quit) => return Ok(ends_with),
            Ok(LineOutcome::Line) => {}
            Err(fault) => {
                if script && ends_with == ExitCause::Done {
                    ends_with = fault.exit;
                }
                screen.show_fault(&fault);
            }
        }
        screen.set_json(plan.output.json);
        signals.clear_action();
        if signals.take_signal() {
            // The signal shut down the connection to end the line; the next line needs a new one.
            *connection = open_connection(plan, node)?;
        }
    }
}

fn open_connection(plan: &ClientPlan, node: &NodeAccess) -> Result<NodeConnection, ClientFault> {
    match node {
        NodeAccess::ThisProcess(running) => running.connect(),
        NodeAccess::OtherProcess => node_access::connect_running_node(plan)?.ok_or_else(|| {
            ClientFault::new(ExitCause::Other, "the node of this state directory went away")
                .fix("`client serve`")
        }),
    }
}

enum LineOutcome {
    Line,
    Quit,
}

fn run_line(
    text: &str,
    plan: &ClientPlan,
    screen: &mut Screen,
    signals: &SignalHandler,
    connection: &mut NodeConnection,
) -> Result<LineOutcome, ClientFault> {
    let words = line::split_words(text)
        .map_err(|bad| ClientFault::new(ExitCause::Usage, bad.to_string()).fix(bad.fix()))?;
    if words.is_empty() {
        return Ok(LineOutcome::Line);
    }
    let typed = match PromptLine::read(&words) {
        Ok(typed) => typed,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            screen.print(&error.to_string());
            return Ok(LineOutcome::Line);
        }
        Err(error) => {
            let message = error.to_string();
            let message = message.trim_start_matches("error: ").trim_end();
            return Err(ClientFault::new(ExitCause::Usage, message).fix("`help` shows the commands"));
        }
    };
    screen.set_json(plan.output.json || typed.options.json);
    match typed.command {
        ClientCommand::Quit => return Ok(LineOutcome::Quit),
        ClientCommand::Doctor => {
            return commands::doctor::run_doctor(plan, screen).map(|()| LineOutcome::Line);
        }
        _ => {}
    }
    commands::break_on_signal(connection, signals)?;
    commands::run_command(
        typed.command,
        &mut CommandContext {
            connection,
            screen,
            signals,
            directory: plan.directory.clone(),
            overwrite: plan.overwrite || typed.options.overwrite,
            wait: plan.wait,
            password_file: typed.options.password_file.map(|path| plan.directory.join(path)),
            at_prompt: true,
            is_own_node: false,
        },
    )
    .map(|()| LineOutcome::Line)
}
