//! `status` and `quit`: about the node of the state directory, if there is one.

use super::door;
use crate::exit::{Exit, Fault};
use crate::front::protocol::Ask;
use crate::plan::Plan;
use crate::render::Screen;

/// How the node is: exit 0 as soon as one runs here and answers, else 1; 2 for options that are not for this command.
pub(super) fn run(plan: &Plan, screen: &mut Screen) -> Result<(), Fault> {
    ask(plan, screen, &Ask::Status).map_err(|fault| match fault.exit {
        Exit::Usage => fault,
        _ => Fault { exit: Exit::Other, ..fault },
    })
}

/// Ends the node.
pub(super) fn quit(plan: &Plan, screen: &mut Screen) -> Result<(), Fault> {
    ask(plan, screen, &Ask::Stop)
}

fn ask(plan: &Plan, screen: &mut Screen, ask: &Ask) -> Result<(), Fault> {
    let mut link = door::running_node(plan)?.ok_or_else(|| {
        Fault::new(Exit::Other, format!("no node runs in {}", plan.node.state.display()))
            .fix("`client serve` starts one; `--state DIR` names another place")
    })?;
    door::refuse_node_options(plan, link.pid())?;
    let answer = link.ask(ask, &mut |_| Ok(()))?;
    screen.answer(&answer);
    Ok(())
}
