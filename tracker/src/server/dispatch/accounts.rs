//! Users and their sessions: create_user, login, logout, change_password, whoami.
//!
//! Only create_user reveals whether a user exists. Its refusal of a taken name counts as a failed password attempt, so
//! that names cannot be tried quickly.

use std::net::IpAddr;

use crate::api::answers::{CommandAnswer, LoginAnswer, WhoamiAnswer};
use crate::api::failure::RequestFailure;
use crate::api::request::Password;
use crate::api::response::CommandSuccess;
use crate::state::command::{LogAction, LogCommand};
use crate::state::id::{Actor, RequestId, SessionId, UserId};
use crate::state::limits::SESSION_LIFE_S;
use crate::state::node::NodeEndpoint;
use crate::state::outcome::{CommandOutcome, CommandRefusal};

use super::super::clock::ClockReading;
use super::super::password_queue::PasswordClass;
use super::super::passwords::{PasswordJob, PasswordResult};
use super::super::session_token::{self, SessionClaims};
use super::replies;
use super::service::{BoundSession, Caller, Decision, RequestContext, RequestStep, Service, StepResult};

/// A login whose password is being verified.
struct LoginAttempt {
    user: UserId,
    /// Epoch of the password hash that the password is verified against.
    password_epoch: u32,
    node: Option<NodeEndpoint>,
}

impl Service {
    pub(super) fn create_user(
        &mut self,
        caller: &Caller,
        user: UserId,
        password: Password,
        now: ClockReading,
    ) -> StepResult {
        self.admit_attempt(caller.ip, &user, now)?;
        if self.state.queries().account(&user).is_some() {
            return Err(CommandRefusal::UserExists(user).into());
        }
        let hash = PasswordJob::Hash(password);
        RequestStep::password(PasswordClass::NewAccount, hash, move |service, caller, result, now| {
            let PasswordResult::Hashed(password_hash) = result else {
                return Err(service.end_untried(caller, &user, &result));
            };
            let create = LogAction::CreateUser { user: user.clone(), password_hash };
            let command = LogCommand::anonymous(now.unix_s, create);
            RequestStep::propose(command, move |service, caller, decision, now| match decision {
                Ok(CommandOutcome::UserCreated) => {
                    service.throttle.record_login(&user, caller.ip, now.ms);
                    RequestStep::succeed(format!("user {user} is created"))
                }
                Ok(other) => Err(replies::unexpected_outcome(&other)),
                Err(refusal) => Err(refusal.into()),
            })
        })
    }

    /// Counts a password attempt that begins, and says in which class its password waits.
    fn admit_attempt(
        &mut self,
        ip: IpAddr,
        user: &UserId,
        now: ClockReading,
    ) -> Result<PasswordClass, RequestFailure> {
        self.throttle.admit(user, ip, now.ms).map_err(replies::too_many_attempts)?;
        let is_known = self.throttle.is_known(user, ip);
        Ok(if is_known { PasswordClass::KnownLogin } else { PasswordClass::Login })
    }

    /// Takes back an attempt whose password was neither right nor wrong, and says why.
    fn end_untried(&mut self, caller: &Caller, user: &UserId, result: &PasswordResult) -> RequestFailure {
        self.throttle.take_back(user, caller.ip);
        replies::untried_password(result)
    }

    pub(super) fn login(
        &mut self,
        caller: &Caller,
        user: UserId,
        password: Password,
        node: Option<NodeEndpoint>,
        now: ClockReading,
    ) -> StepResult {
        let class = self.admit_attempt(caller.ip, &user, now)?;
        let account = self.state.queries().account(&user);
        let password_epoch = account.as_ref().map_or(0, |account| account.password_epoch);
        let job = PasswordJob::Verify(password, account.map(|account| account.password_hash));
        let attempt = LoginAttempt { user, password_epoch, node };
        RequestStep::password(class, job, move |service, caller, result, now| match result {
            PasswordResult::Verified(true) => service.begin_session(caller, attempt, now),
            PasswordResult::Verified(false) => Err(replies::wrong_password()),
            other => Err(service.end_untried(caller, &attempt.user, &other)),
        })
    }

    fn begin_session(&mut self, caller: &Caller, attempt: LoginAttempt, now: ClockReading) -> StepResult {
        self.throttle.record_login(&attempt.user, caller.ip, now.ms);
        let mut session = SessionId([0; 16]);
        if let Err(error) = getrandom::fill(&mut session.0) {
            tracing::error!(%error, "the system gives no random bytes");
            return Err(replies::internal_failure());
        }
        let LoginAttempt { user, password_epoch, node } = attempt;
        let login = LogAction::Login { user: user.clone(), password_epoch, session, node };
        let expires_s = now.unix_s + SESSION_LIFE_S;
        let claims = SessionClaims { user, session, password_epoch, expires_s };
        let command = LogCommand::anonymous(now.unix_s, login);
        RequestStep::propose(command, move |service, caller, decision, now| match decision {
            Ok(CommandOutcome::LoggedIn) => RequestStep::answer(service.complete_login(caller, claims, now)),
            Ok(other) => Err(replies::unexpected_outcome(&other)),
            Err(CommandRefusal::NoSuchUser(_)) => Err(replies::wrong_password()),
            Err(refusal) => Err(refusal.into()),
        })
    }

    fn complete_login(
        &mut self,
        caller: &mut Caller,
        claims: SessionClaims,
        now: ClockReading,
    ) -> CommandSuccess {
        let token = session_token::sign_token(&claims, &self.keys.sessions);
        let message = format!("{} is logged in", claims.user);
        let actor = Actor { user: claims.user, session: claims.session };
        self.bind_session(caller, BoundSession { actor, token: token.clone() }, now);
        let tracker_key = self.keys.tickets.tracker_key();
        let answer = LoginAnswer { session: token, tracker_key, server_time: now.unix_s };
        replies::success_with(message, CommandAnswer::Login(answer))
    }

    pub(super) fn logout(context: &RequestContext, now: ClockReading) -> StepResult {
        let command = context.to_command(now, LogAction::Logout);
        RequestStep::propose(command, |service, caller, decision, now| match decision? {
            CommandOutcome::LoggedOut => {
                service.unbind_session(caller, now);
                RequestStep::answer(replies::logged_out())
            }
            other => Err(replies::unexpected_outcome(&other)),
        })
    }

    /// Whether this logout is a retry of one that ended the session. Its answer was lost, and the retry no longer
    /// has a session.
    pub(super) fn is_retried_logout(
        &self,
        token: &str,
        request_id: Option<RequestId>,
        now: ClockReading,
    ) -> bool {
        let Some(claims) = session_token::verify_token(token, &self.keys.sessions, now.unix_s) else {
            return false;
        };
        let actor = Actor { user: claims.user, session: claims.session };
        let logout = LogCommand::by(actor, now.unix_s, request_id, LogAction::Logout);
        matches!(self.state.queries().first_answer(&logout), Some(Ok(CommandOutcome::LoggedOut)))
    }

    pub(super) fn change_password(
        &mut self,
        context: &RequestContext,
        old: Password,
        new: Password,
        now: ClockReading,
    ) -> StepResult {
        let Some(account) = self.state.queries().account(&context.actor.user) else {
            return Err(replies::not_logged_in());
        };
        let password_epoch = account.password_epoch;
        let (actor, request_id) = (context.actor.clone(), context.request_id);
        let change_command = move |password_hash, at_s| {
            let action = LogAction::ChangePassword { password_epoch, password_hash };
            LogCommand::by(actor, at_s, request_id, action)
        };
        // The hash may be empty here: retries are recognised without it, since each try salts it anew.
        let first_answer =
            self.state.queries().first_answer(&change_command.clone()(String::new(), now.unix_s));
        let user = context.actor.user.clone();
        let class = self.admit_attempt(context.ip, &user, now)?;
        if let Some(first @ Ok(_)) = first_answer {
            // An earlier try of this request has changed the password, so the new password is the one to verify.
            let repeat_answer = move || password_changed(first);
            return verify_then(class, user, new, account.password_hash, Box::new(repeat_answer));
        }
        let hash_new = move || {
            RequestStep::password(class, PasswordJob::Hash(new), move |_, _, result, now| {
                let PasswordResult::Hashed(password_hash) = result else {
                    return Err(replies::untried_password(&result));
                };
                RequestStep::propose(change_command(password_hash, now.unix_s), move |_, _, decision, _| {
                    password_changed(decision)
                })
            })
        };
        verify_then(class, user, old, account.password_hash, Box::new(hash_new))
    }

    pub(super) fn whoami(&self, context: &RequestContext, now: ClockReading) -> StepResult {
        let whoami =
            self.state.queries().whoami(&context.actor, now.unix_s).ok_or_else(replies::not_logged_in)?;
        let answer = WhoamiAnswer {
            user_id: whoami.user.clone(),
            created: whoami.created_s,
            sessions: whoami.sessions as u64,
            address: context.node.map(|node| node.address),
            peer_key: context.node.and_then(|node| node.peer_key),
        };
        let message = format!("you are {}", whoami.user);
        RequestStep::answer(replies::success_with(message, CommandAnswer::Whoami(answer)))
    }
}

/// Verifies a user's current password, and calls `then` if it is correct.
fn verify_then(
    class: PasswordClass,
    user: UserId,
    password: Password,
    hash: String,
    then: Box<dyn FnOnce() -> StepResult>,
) -> StepResult {
    let verify = PasswordJob::Verify(password, Some(hash));
    RequestStep::password(class, verify, move |service, caller, result, now| match result {
        PasswordResult::Verified(true) => {
            service.throttle.record_login(&user, caller.ip, now.ms);
            then()
        }
        PasswordResult::Verified(false) => Err(wrong_old_password()),
        other => Err(service.end_untried(caller, &user, &other)),
    })
}

/// The answer to `change_password`. The token of the current session stays valid: the state compares its epoch with
/// the one that the session had at login.
fn password_changed(decision: Decision) -> StepResult {
    match decision {
        Ok(CommandOutcome::PasswordChanged { .. }) => {
            RequestStep::succeed("the password is changed; your other sessions have ended")
        }
        Ok(other) => Err(replies::unexpected_outcome(&other)),
        Err(refusal) => Err(refusal.into()),
    }
}

fn wrong_old_password() -> RequestFailure {
    RequestFailure::new(crate::api::failure::FailureCode::WrongPassword, "the old password is wrong")
}
