//! The prompt: lines with history and completion, a node at the same time, and notices in between.
//!
//! ```text
//!   rustyline ──► cli::line ──► cli::Typed ──► commands::carry_out ──► node
//!       │  └ assist: completion, passwords masked                        │
//!       └──◄── watch: notices, and the node's end ◄──────────────────────┘
//! ```
//!
//! Invariants: a line with a password is neither shown nor kept; a prompt whose node goes away says so and ends at
//! once with exit 1, it never becomes a node half-way.

mod assist;
mod watch;

use std::io::IsTerminal;

use clap::error::ErrorKind;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Behavior, CompletionType, Config, Editor};

use crate::cli::words::Words;
use crate::cli::{Typed, line};
use crate::commands::door::{self, Door};
use crate::commands::{self, Context};
use crate::exit::{Exit, Fault};
use crate::front::link::NodeLink;
use crate::interrupt::Interrupt;
use crate::limits;
use crate::node::state;
use crate::plan::Plan;
use crate::render::Screen;
use crate::terminal::Reading;

use assist::Assist;

type Lines = Editor<Assist, FileHistory>;

/// Reads and carries out lines until `quit` or the end of the input. Lines from a pipe are a script: what the first of
/// them that failed ended with is what the prompt ends with.
///
/// # Errors
/// A fault when there can be no prompt. A line that fails is shown and the prompt goes on.
pub(crate) fn run(plan: &Plan, screen: &mut Screen, interrupt: &Interrupt) -> Result<Exit, Fault> {
    screen.set_at_prompt();
    let (door, mut link) = Door::open(plan)?;
    if let Door::Inside(running) = &door {
        let listen = running.listen()?;
        screen.note(&format!("this prompt is the node, and listens on {listen}"));
        running.waits_for().iter().for_each(|what| screen.note(&format!("waiting for {what}")));
        running.troubles().iter().for_each(|trouble| screen.note(trouble));
    } else {
        screen.note(&format!("attached to the node that runs as process {}", link.pid()));
    }
    screen.note("`help` shows the commands, `quit` leaves");
    let mut lines = editor(plan)?;
    let printer = lines.create_external_printer().ok();
    watch::start(open_link(plan, &door)?, plan.output, printer)?;
    if let Door::Inside(running) = &door {
        running.bring_back(true)?;
    }
    let history = state::history_path(&plan.node.state);
    // No history yet is no fault.
    let _ = lines.load_history(&history);
    let outcome = read_lines(plan, screen, interrupt, &door, &mut link, &mut lines);
    // History is a convenience: losing it is no reason to fail.
    let _ = lines.save_history(&history);
    watch::expect_the_end();
    drop(link);
    door.close(interrupt);
    outcome
}

fn editor(plan: &Plan) -> Result<Lines, Fault> {
    let fault = |error: ReadlineError| {
        Fault::new(Exit::LocalIo, format!("there can be no prompt here: {error}"))
            .fix("give commands one by one: `client COMMAND`")
    };
    let config = Config::builder()
        .max_history_size(limits::HISTORY_LINES)
        .and_then(|builder| builder.history_ignore_dups(true))
        .map_err(fault)?
        .completion_type(CompletionType::List)
        .behavior(if std::io::stdin().is_terminal() { Behavior::PreferTerm } else { Behavior::Stdio })
        .build();
    let mut lines = Lines::with_config(config).map_err(fault)?;
    lines.set_helper(Some(Assist::new(plan.directory.clone())));
    Ok(lines)
}

fn read_lines(
    plan: &Plan,
    screen: &mut Screen,
    interrupt: &Interrupt,
    door: &Door,
    link: &mut NodeLink,
    lines: &mut Lines,
) -> Result<Exit, Fault> {
    let script = !std::io::stdin().is_terminal();
    let mut ends_with = Exit::Done;
    loop {
        let reading = Reading::begin();
        let read = lines.readline("shoal> ");
        drop(reading);
        let line = match read {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(ends_with),
            Err(error) => {
                return Err(Fault::new(Exit::LocalIo, format!("the input failed: {error}"))
                    .fix("give commands one by one: `client COMMAND`"));
            }
        };
        if !lines.helper().is_some_and(|assist| assist.names_a_password(&line)) {
            // As above: history is a convenience.
            let _ = lines.add_history_entry(line.as_str());
        }
        match one_line(&line, plan, screen, interrupt, link) {
            Ok(Next::Quit) => return Ok(ends_with),
            Ok(Next::Line) => {}
            Err(fault) => {
                if script && ends_with == Exit::Done {
                    ends_with = fault.exit;
                }
                screen.fault(&fault);
            }
        }
        screen.set_json(plan.output.json);
        interrupt.nothing_to_end();
        if interrupt.take() {
            // The signal broke the connection so that the line ended; the next line needs a fresh one.
            *link = open_link(plan, door)?;
        }
    }
}

fn open_link(plan: &Plan, door: &Door) -> Result<NodeLink, Fault> {
    match door {
        Door::Inside(running) => running.link(),
        Door::Outside => door::running_node(plan)?.ok_or_else(|| {
            Fault::new(Exit::Other, "the node of this state directory went away").fix("`client serve`")
        }),
    }
}

enum Next {
    Line,
    Quit,
}

fn one_line(
    text: &str,
    plan: &Plan,
    screen: &mut Screen,
    interrupt: &Interrupt,
    link: &mut NodeLink,
) -> Result<Next, Fault> {
    let words = line::words(text).map_err(|bad| Fault::new(Exit::Usage, bad.to_string()).fix(bad.fix()))?;
    if words.is_empty() {
        return Ok(Next::Line);
    }
    let typed = match Typed::read(&words) {
        Ok(typed) => typed,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            screen.print(&error.to_string());
            return Ok(Next::Line);
        }
        Err(error) => {
            let message = error.to_string();
            let message = message.trim_start_matches("error: ").trim_end();
            return Err(Fault::new(Exit::Usage, message).fix("`help` shows the commands"));
        }
    };
    screen.set_json(plan.output.json || typed.options.json);
    match typed.words {
        Words::Quit => return Ok(Next::Quit),
        Words::Doctor => return commands::doctor::run(plan, screen).map(|()| Next::Line),
        _ => {}
    }
    commands::break_on_signal(link, interrupt)?;
    commands::carry_out(
        typed.words,
        &mut Context {
            link,
            screen,
            interrupt,
            directory: plan.directory.clone(),
            overwrite: plan.overwrite || typed.options.overwrite,
            wait: plan.wait,
            password_file: typed.options.password_file.map(|path| plan.directory.join(path)),
            at_prompt: true,
            own_node: false,
        },
    )
    .map(|()| Next::Line)
}
