//! Users and their sessions: create_user, login, logout, change_password, whoami.
//!
//! No answer tells whether a user exists but that of create_user, and trying names there is slowed like failed logins.

use crate::api::answers::{Answer, LoginAnswer, WhoamiAnswer};
use crate::api::failure::Failure;
use crate::api::request::Password;
use crate::state::command::{Action, Command as Change};
use crate::state::id::UserId;
use crate::state::id::{Actor, RequestId, SessionId};
use crate::state::limits::SESSION_LIFE_S;
use crate::state::node::Holder;
use crate::state::outcome::{Outcome, Refusal};

use super::super::clock::Now;
use super::super::passwords::{Done, Job};
use super::super::session_token::{self, Claims};
use super::replies::{self, Reply};
use super::service::{Asked, Bound, Caller, Decision, Service, Step};

/// A login whose password is being checked.
struct Attempt {
    user: UserId,
    password_epoch: u32,
    node: Option<Holder>,
}

impl Service {
    pub(super) fn create_user(
        &mut self,
        caller: &Caller,
        user: UserId,
        password: Password,
        now: Now,
    ) -> Step {
        if self.proposals.queries().account(&user).is_some() {
            return self.taken(caller, user, now);
        }
        Step::Password(
            Job::Hash(password),
            Box::new(move |_, _, done, now| {
                let Done::Hashed(password_hash) = done else {
                    return Step::done(Err(replies::internal()));
                };
                let create = Action::CreateUser { user: user.clone(), password_hash };
                Step::Propose(
                    Box::new(Change::anonymous(now.unix_s, create)),
                    Box::new(move |service, caller, decision, now| match decision {
                        Ok(Outcome::UserCreated) => {
                            Step::done(replies::done(format!("user {user} is created")))
                        }
                        Ok(other) => Step::done(Err(replies::unexpected(&other))),
                        Err(Refusal::UserExists(user)) => service.taken(caller, user, now),
                        Err(refusal) => Step::done(Err(replies::refused(&refusal))),
                    }),
                )
            }),
        )
    }

    /// A taken name counts as a failed login, or names could be tried for nothing.
    fn taken(&mut self, caller: &Caller, user: UserId, now: Now) -> Step {
        let delay_ms = self.throttle.failed(&user, caller.ip, now.ms);
        Step::Late(Box::new(Err(replies::refused(&Refusal::UserExists(user)))), delay_ms)
    }

    pub(super) fn login(&mut self, user: UserId, password: Password, node: Option<Holder>) -> Step {
        let account = self.proposals.queries().account(&user);
        let password_epoch = account.as_ref().map_or(0, |account| account.password_epoch);
        let job = Job::Verify(password, account.map(|account| account.password_hash));
        let attempt = Attempt { user, password_epoch, node };
        Step::Password(
            job,
            Box::new(move |service, caller, done, now| match done {
                Done::Verified(true) => service.begin_session(caller, attempt, now),
                Done::Verified(false) => {
                    let delay_ms = service.throttle.failed(&attempt.user, caller.ip, now.ms);
                    Step::Late(Box::new(Err(replies::wrong_password())), delay_ms)
                }
                Done::Hashed(_) | Done::Failed => Step::done(Err(replies::internal())),
            }),
        )
    }

    fn begin_session(&mut self, caller: &Caller, attempt: Attempt, now: Now) -> Step {
        let delay_ms = self.throttle.succeeded(&attempt.user, caller.ip, now.ms);
        let mut session = SessionId([0; 16]);
        if let Err(error) = getrandom::fill(&mut session.0) {
            tracing::error!(%error, "the system gives no random bytes");
            return Step::done(Err(replies::internal()));
        }
        let Attempt { user, password_epoch, node } = attempt;
        let login = Action::Login { user: user.clone(), password_epoch, session, node };
        let expires_s = now.unix_s + SESSION_LIFE_S;
        let claims = Claims { user, session, password_epoch, expires_s };
        Step::Propose(
            Box::new(Change::anonymous(now.unix_s, login)),
            Box::new(move |service, caller, decision, now| {
                let reply = match decision {
                    Ok(Outcome::LoggedIn) => service.logged_in(caller, claims, now),
                    Ok(other) => Err(replies::unexpected(&other)),
                    Err(Refusal::NoSuchUser(_)) => Err(replies::wrong_password()),
                    Err(refusal) => Err(replies::refused(&refusal)),
                };
                Step::Late(Box::new(reply), delay_ms)
            }),
        )
    }

    fn logged_in(&mut self, caller: &mut Caller, claims: Claims, now: Now) -> Reply {
        let token = session_token::sign(&claims, &self.keys.sessions);
        let message = format!("{} is logged in", claims.user);
        let actor = Actor { user: claims.user, session: claims.session };
        self.bind(caller, Bound { actor, token: token.clone() }, now);
        let tracker_key = self.keys.tickets.tracker_key();
        replies::with(
            message,
            Answer::Login(LoginAnswer { session: token, tracker_key, server_time: now.unix_s }),
        )
    }

    pub(super) fn logout(asked: &Asked, now: Now) -> Step {
        Step::Propose(
            asked.change(now, Action::Logout),
            Box::new(|service, caller, decision, now| {
                Step::done(match decision {
                    Ok(Outcome::LoggedOut) => {
                        service.unbind(caller, now);
                        replies::logged_out()
                    }
                    Ok(other) => Err(replies::unexpected(&other)),
                    Err(refusal) => Err(replies::refused(&refusal)),
                })
            }),
        )
    }

    /// Whether this very request ended the session before: then the answer was lost, and its retry cannot log in to be carried out.
    pub(super) fn logged_out_before(&self, token: &str, request_id: Option<RequestId>, now: Now) -> bool {
        let Some(claims) = session_token::verify(token, &self.keys.sessions, now.unix_s) else {
            return false;
        };
        let actor = Actor { user: claims.user, session: claims.session };
        let logout = Change::by(actor, now.unix_s, request_id, Action::Logout);
        matches!(self.proposals.queries().first_answer(&logout), Some(Ok(Outcome::LoggedOut)))
    }

    pub(super) fn change_password(&mut self, asked: &Asked, old: Password, new: Password, now: Now) -> Step {
        let Some(account) = self.proposals.queries().account(&asked.actor.user) else {
            return Step::done(Err(replies::not_logged_in()));
        };
        let password_epoch = account.password_epoch;
        let (actor, request_id) = (asked.actor.clone(), asked.request_id);
        let change = move |password_hash, at_s| {
            let action = Action::ChangePassword { password_epoch, password_hash };
            Change::by(actor, at_s, request_id, action)
        };
        let asked_before = self.proposals.queries().first_answer(&change.clone()(String::new(), now.unix_s));
        let user = asked.actor.user.clone();
        if let Some(first @ Ok(_)) = asked_before {
            // Carried out before, when the answer was lost: then the password is the new one, and the old one would be refused.
            let again = move |delay_ms| password_changed(first, delay_ms);
            return verified(user, new, account.password_hash, Box::new(again));
        }
        let hash_new = move |delay_ms| {
            Step::Password(
                Job::Hash(new),
                Box::new(move |_, _, done, now| {
                    let Done::Hashed(password_hash) = done else {
                        return Step::done(Err(replies::internal()));
                    };
                    let change = Box::new(change(password_hash, now.unix_s));
                    Step::Propose(
                        change,
                        Box::new(move |_, _, decision, _| password_changed(decision, delay_ms)),
                    )
                }),
            )
        };
        verified(user, old, account.password_hash, Box::new(hash_new))
    }

    pub(super) fn whoami(&self, asked: &Asked, now: Now) -> Reply {
        let whoami =
            self.proposals.queries().whoami(&asked.actor, now.unix_s).ok_or_else(replies::not_logged_in)?;
        let answer = WhoamiAnswer {
            user_id: whoami.user.clone(),
            created: whoami.created_s,
            sessions: whoami.sessions as u64,
            address: asked.node.map(|node| node.address),
            peer_key: asked.node.and_then(|node| node.peer_key),
        };
        replies::with(format!("you are {}", whoami.user), Answer::Whoami(answer))
    }
}

/// Goes on when the password is right, to an answer that is so late; else the failure counts, and is answered late.
fn verified(user: UserId, password: Password, hash: String, then: Box<dyn FnOnce(u64) -> Step>) -> Step {
    Step::Password(
        Job::Verify(password, Some(hash)),
        Box::new(move |service, caller, done, now| {
            if done != Done::Verified(true) {
                let delay_ms = service.throttle.failed(&user, caller.ip, now.ms);
                return Step::Late(Box::new(Err(wrong_old_password())), delay_ms);
            }
            then(service.throttle.succeeded(&user, caller.ip, now.ms))
        }),
    )
}

/// This session goes on under its token: the state knows the epoch that it began with.
fn password_changed(decision: Decision, delay_ms: u64) -> Step {
    let reply = match decision {
        Ok(Outcome::PasswordChanged { .. }) => {
            replies::done("the password is changed; your other sessions have ended")
        }
        Ok(other) => Err(replies::unexpected(&other)),
        Err(refusal) => Err(replies::refused(&refusal)),
    };
    Step::Late(Box::new(reply), delay_ms)
}

fn wrong_old_password() -> Failure {
    Failure::new(crate::api::failure::FailureCode::WrongPassword, "the old password is wrong")
}
