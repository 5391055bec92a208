//! Groups: making, joining, leaving, and who may.

use crate::api::answers::{Answer, JoinAnswer};
use crate::api::failure::Failure;
use crate::api::request::Command;
use crate::api::response::Success;
use crate::state::command::Action;
use crate::state::id::GroupId;
use crate::state::outcome::Outcome;

use super::super::clock::Now;
use super::replies;
use super::service::{Asked, Service, Step};

impl Service {
    /// Carries out a command that changes a group.
    pub(super) fn change_group(asked: &Asked, command: Command, now: Now) -> Step {
        let (action, message) = match command {
            Command::CreateGroup { group, policy } => {
                let message = format!("group {group} is created, and yours");
                (Action::CreateGroup { group, policy }, message)
            }
            Command::JoinGroup { group } => {
                let message = format!("you are a member of group {group}");
                (Action::JoinGroup { group }, message)
            }
            Command::AcceptRequest { group, user } => {
                let message = format!("{user} is a member of group {group}");
                (Action::AcceptRequest { group, user }, message)
            }
            Command::RejectRequest { group, user } => {
                let message = format!("{user} was turned down for group {group}");
                (Action::RejectRequest { group, user }, message)
            }
            Command::RemoveMember { group, user } => {
                let message = format!("{user} is no longer a member of group {group}");
                (Action::RemoveMember { group, user }, message)
            }
            Command::LeaveGroup { group } => {
                let message = format!("you have left group {group}");
                (Action::LeaveGroup { group }, message)
            }
            other => unreachable!("{other:?} changes no group"),
        };
        Step::Propose(
            asked.change(now, action),
            Box::new(move |_, _, decision, _| {
                Step::done(
                    decision
                        .map(|outcome| changed(message, outcome))
                        .map_err(|refusal| replies::refused(&refusal)),
                )
            }),
        )
    }

    /// Refuses those who are no members, and names of groups that are not there. Asked before nearly every answer, so of
    /// a member's group no more than the membership is read.
    pub(super) fn member(&mut self, asked: &Asked, group: &GroupId) -> Result<(), Failure> {
        if self.proposals.is_member(group, &asked.actor.user) {
            return Ok(());
        }
        Err(match self.proposals.queries().group(group, &asked.actor.user) {
            None => replies::no_group(group),
            Some(_) => replies::not_member(group),
        })
    }
}

fn changed(message: String, outcome: Outcome) -> Success {
    let plain = |message| Success { message, answer: Answer::Done {} };
    match outcome {
        Outcome::Joined { pending: true } => Success {
            message: "the owner of the group must accept you first".to_owned(),
            answer: Answer::Join(JoinAnswer { pending: true }),
        },
        Outcome::Joined { pending: false } => {
            Success { message, answer: Answer::Join(JoinAnswer { pending: false }) }
        }
        Outcome::Left { group_deleted: true, .. } => {
            plain(format!("{message}; you were the last, so the group and its files are gone"))
        }
        Outcome::Left { new_owner: Some(owner), .. } => plain(format!("{message}; {owner} owns it now")),
        _ => plain(message),
    }
}
