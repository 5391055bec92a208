//! Groups: creating, joining and leaving them, and the check of membership.

use engine::proto::limits::{TICKET_GRACE_S, TICKET_LIFE_S};

use crate::api::answers::{CommandAnswer, JoinAnswer};
use crate::api::failure::RequestFailure;
use crate::api::request::Command;
use crate::api::response::CommandSuccess;
use crate::state::command::LogAction;
use crate::state::id::{GroupId, UserId};
use crate::state::outcome::{CommandOutcome, CommandRefusal};

use super::super::clock::ClockReading;
use super::replies;
use super::service::{RequestContext, RequestStep, Service, StepResult};

impl Service {
    /// Carries out a command that changes a group.
    pub(super) fn change_group(context: &RequestContext, command: Command, now: ClockReading) -> StepResult {
        let (action, message) = match command {
            Command::CreateGroup { group, policy } => {
                let message = format!("group {group} is created, and yours");
                (LogAction::CreateGroup { group, policy }, message)
            }
            Command::JoinGroup { group } => {
                let message = format!("you are a member of group {group}");
                (LogAction::JoinGroup { group }, message)
            }
            Command::AcceptRequest { group, user } => {
                let message = format!("{user} is a member of group {group}");
                (LogAction::AcceptRequest { group, user }, message)
            }
            Command::RejectRequest { group, user } => {
                let message = format!("the request of {user} to join group {group} is rejected");
                (LogAction::RejectRequest { group, user }, message)
            }
            Command::RemoveMember { group, user } => {
                let message = removal_message(&group, &user, now.unix_s);
                (LogAction::RemoveMember { group, user }, message)
            }
            Command::LeaveGroup { group } => {
                let message = format!("you have left group {group}");
                (LogAction::LeaveGroup { group }, message)
            }
            other => unreachable!("{other:?} changes no group"),
        };
        let user = context.actor.user.clone();
        RequestStep::propose(context.to_command(now, action), move |service, _, decision, _| {
            let outcome = decision.map_err(|refusal| match &refusal {
                CommandRefusal::GroupExists(group) if service.state.is_member(group, &user) => {
                    replies::own_group(group)
                }
                _ => refusal.into(),
            })?;
            RequestStep::answer(group_success(message, outcome))
        })
    }

    /// Refuses users who are not members, and unknown groups. Nearly every request calls it, so for a member
    /// only the membership row is read.
    pub(super) fn require_member(
        &mut self,
        context: &RequestContext,
        group: &GroupId,
    ) -> Result<(), RequestFailure> {
        if self.state.is_member(group, &context.actor.user) {
            return Ok(());
        }
        Err(match self.state.queries().group(group, &context.actor.user) {
            None => replies::no_group(group),
            Some(_) => {
                let remover = self.state.leases.removals.member_remover(group, &context.actor.user);
                replies::not_member(group, remover)
            }
        })
    }
}

/// Says how long the removed member may go on with downloads that have begun: as long as a ticket lasts.
fn removal_message(group: &GroupId, user: &UserId, now_s: u64) -> String {
    let life_s = TICKET_LIFE_S + TICKET_GRACE_S;
    let until_s = (now_s + life_s) % (24 * 3_600);
    let (hour, minute, second) = (until_s / 3_600, until_s / 60 % 60, until_s % 60);
    format!(
        "{user} is no longer a member of group {group}; downloads that {user} has begun may go on until \
         {hour:02}:{minute:02}:{second:02} UTC, for {} minutes at most",
        life_s / 60
    )
}

fn group_success(message: String, outcome: CommandOutcome) -> CommandSuccess {
    match outcome {
        CommandOutcome::Joined { pending: true } => CommandSuccess {
            message: "the owner of the group must accept you first".to_owned(),
            answer: CommandAnswer::Join(JoinAnswer { pending: true }),
        },
        CommandOutcome::Joined { pending: false } => {
            CommandSuccess { message, answer: CommandAnswer::Join(JoinAnswer { pending: false }) }
        }
        CommandOutcome::Left { group_deleted: true, .. } => replies::plain_success(format!(
            "{message}; you were the last, so the group and its files are gone"
        )),
        CommandOutcome::Left { new_owner: Some(owner), .. } => {
            replies::plain_success(format!("{message}; {owner} owns it now"))
        }
        _ => replies::plain_success(message),
    }
}
