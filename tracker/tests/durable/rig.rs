//! A replica and simple commands for it.

use std::io;
use std::process::{self, Child};
use std::sync::mpsc;
use std::time::Duration;

use tracker::replica::{ApplyResult, LogLocation, ProposalError, Replica, ReplicaFault, ReplicaOptions};
use tracker::state::command::{LogAction, LogCommand};
use tracker::state::id::UserId;
use tracker::state::queries::StateQueries;

/// Longest wait for an answer. Exceeded by a hang, not by a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn start(home: impl LogLocation) -> Result<Replica, ReplicaFault> {
    Replica::start(home, ReplicaOptions::at("127.0.0.1:1", "test"))
}

/// Starts a program. The name is that of the engine's rig, whose files are shared.
pub(crate) fn try_spawn(command: &mut process::Command) -> io::Result<Child> {
    command.spawn()
}

pub(crate) fn user(number: usize) -> UserId {
    UserId::new(&format!("user{number}")).unwrap()
}

pub(crate) fn create_user(number: usize) -> LogCommand {
    let password_hash = format!("secret-hash-{number}");
    LogCommand::anonymous(1_000, LogAction::CreateUser { user: user(number), password_hash })
}

/// Proposes a command and waits for its result.
pub(crate) fn propose(replica: &Replica, command: LogCommand) -> Result<ApplyResult, ProposalError> {
    let (reply, outcome) = mpsc::sync_channel(1);
    replica.propose(command, move |answer| reply.send(answer).unwrap())?;
    outcome.recv_timeout(PATIENCE).unwrap()
}

/// Whether an account exists. Repeats the read while the log is being reopened.
pub(crate) fn is_there(replica: &Replica, number: usize) -> bool {
    const LOOKS: usize = 60_000;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..LOOKS {
        if let Ok(view) = replica.view() {
            let there = StateQueries::new(&view).account(&user(number)).is_some();
            if view.check().is_ok() {
                return there;
            }
        }
        // Only limits the rate; the read itself is the condition.
        std::thread::park_timeout(PAUSE);
    }
    panic!("the log cannot be read");
}
