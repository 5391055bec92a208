//! Carrying out one request: from its text over whatever it has to wait for to its answer.
//!
//! Invariant: a connection's `work` is there from the moment its message is taken until its answer is appended; every stage
//! but the last is left by exactly one event (a result, a decision, a timer).

use crate::api::failure::{FailureCode, RequestFailure};
use crate::api::request::{BadRequest, Request};
use crate::api::response::Response;

use super::bodies;
use super::clock::ClockReading;
use super::dispatch::{self, AnswerRoom, Continuation, Reply, RequestStep};
use super::event_loop::{LoopTimer, Server};
use super::limits::{
    LARGE_BODY_BYTES, LIST_ENTRY_BYTES, LIST_PAGE_ROWS, PASSWORDS_PER_PLACE, PASSWORDS_SHARED,
};
use super::passwords;
use super::slots::ConnectionToken;
use super::throttle;
use super::work::{ActiveRequest, RequestStage};

impl Server {
    /// Takes a message's text.
    pub(super) fn start(&mut self, token: ConnectionToken, text: Vec<u8>, now: ClockReading) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if text.len() <= LARGE_BODY_BYTES {
            connection.request = Some(ActiveRequest::new(0, now.ms));
            return self.parsed(token, Request::parse(&text), now);
        }
        connection.request = Some(ActiveRequest::new(text.len(), now.ms));
        self.hand_over(token, bodies::BodyJob::Parse(text));
    }

    /// Hands a large body over, or lets it wait for a place.
    fn hand_over(&mut self, token: ConnectionToken, job: bodies::BodyJob) {
        let stage = match &job {
            bodies::BodyJob::Parse(_) => RequestStage::Parsing,
            bodies::BodyJob::Render(_) | bodies::BodyJob::Build(_) => RequestStage::Rendering,
        };
        match self.bodies.submit(token, job) {
            Ok(()) => self.set_stage(token, stage),
            Err(job) => {
                self.set_stage(token, RequestStage::AwaitingWorker(job));
                self.queued.push_back(token);
            }
        }
    }

    /// Begins the request that has waited longest for room among the answers, if there is room now. One at a time: building
    /// a long answer takes a while, and others have their turns in between.
    pub(super) fn begin_parked(&mut self, now: ClockReading) {
        let Some(token) = self.parked.front().copied() else { return };
        match self.take_stage(token) {
            Some(RequestStage::AwaitingRoom(request)) => {
                let bytes = self.room(token, &request, now).bytes();
                if !self.budgets.fits(bytes) {
                    self.wants_room = true;
                    return self.set_stage(token, RequestStage::AwaitingRoom(request));
                }
                self.parked.pop_front();
                self.begin(token, *request, bytes, now);
                self.take_decisions(now);
            }
            Some(_) | None => _ = self.parked.pop_front(),
        }
        self.ready.insert(token);
    }

    /// Builds the next page of one list. While there is no room, only one that is begun goes on, and that to its end: so there is
    /// always one that ends.
    pub(super) fn build_lists(&mut self, now: ClockReading) {
        if self.lists.is_empty() {
            return;
        }
        let fits = self.budgets.fits(LIST_PAGE_ROWS * LIST_ENTRY_BYTES);
        self.wants_room |= !fits;
        let next = if fits { Some(0) } else { self.lists.iter().position(|token| self.is_listing(*token)) };
        let Some(token) = next.and_then(|at| self.lists.remove(at)) else { return };
        match self.take_stage(token) {
            Some(RequestStage::AwaitingRoom(request)) => self.begin(token, *request, 0, now),
            Some(RequestStage::AwaitingListTurn(next)) => {
                let Some(connection) = self.connections.get_mut(token) else { return };
                let step = next(&mut self.service, &mut connection.caller, (), now);
                self.take_step(token, step, now);
                self.settle(token, now);
            }
            Some(_) | None => {}
        }
        self.take_decisions(now);
        self.ready.insert(token);
    }

    fn is_listing(&self, token: ConnectionToken) -> bool {
        let work = self.connections.get(token).and_then(|connection| connection.request.as_ref());
        work.is_some_and(|work| matches!(work.stage, RequestStage::AwaitingListTurn(_)))
    }

    /// What a request's answer needs before it is begun.
    fn room(&mut self, token: ConnectionToken, request: &Request, now: ClockReading) -> AnswerRoom {
        let Some(connection) = self.connections.get(token) else { return AnswerRoom::Negligible };
        self.service.answer_room(&connection.caller, request, now)
    }

    /// Begins a request whose answer takes about so many bytes.
    fn begin(&mut self, token: ConnectionToken, request: Request, answer_bytes: usize, now: ClockReading) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if let Some(work) = &mut connection.request {
            work.reserved_bytes = answer_bytes;
        }
        let step = self.service.begin_request(&mut connection.caller, request, now);
        self.take_step(token, step, now);
        self.settle(token, now);
    }

    fn parsed(&mut self, token: ConnectionToken, parsed: Result<Request, BadRequest>, now: ClockReading) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(work) = &mut connection.request else { return };
        match parsed {
            Ok(request) => {
                work.request_id.clone_from(&request.request_id);
                match self.service.answer_room(&connection.caller, &request, now) {
                    AnswerRoom::List => {
                        work.stage = RequestStage::AwaitingRoom(Box::new(request));
                        self.lists.push_back(token);
                    }
                    AnswerRoom::Bytes(bytes) if !self.parked.is_empty() || !self.budgets.fits(bytes) => {
                        work.stage = RequestStage::AwaitingRoom(Box::new(request));
                        self.parked.push_back(token);
                    }
                    room => self.begin(token, request, room.bytes(), now),
                }
            }
            Err(BadRequest { request_id, failure }) => {
                work.request_id = request_id;
                self.refuse(token, failure, now);
            }
        }
        self.take_decisions(now);
    }

    /// Answers a failure; after a syntax error the stream form cannot be followed any more.
    fn refuse(&mut self, token: ConnectionToken, failure: RequestFailure, now: ClockReading) {
        let lost = failure.code == FailureCode::Syntax;
        self.reply(token, Err(failure), now);
        if lost
            && let Some(connection) = self.connections.get_mut(token)
            && !connection.survives_syntax_errors()
        {
            connection.begin_close();
        }
    }

    fn take_step(&mut self, token: ConnectionToken, step: RequestStep, now: ClockReading) {
        // What is decided by half of what is there is decided wrong: a user who was not read has no password.
        if !matches!(step, RequestStep::Answer(_)) && !self.service.state().check_reads(now.ms) {
            return self.reply(token, Err(dispatch::unreadable_state()), now);
        }
        match step {
            RequestStep::Answer(reply) | RequestStep::DelayedAnswer(reply, 0) => {
                self.reply(token, *reply, now)
            }
            RequestStep::DelayedAnswer(reply, delay_ms) => {
                let Some(connection) = self.connections.get_mut(token) else { return };
                let since_ms = connection.request.as_ref().map_or(now.ms, |work| work.received_ms);
                self.timers.set(LoopTimer::DelayedAnswer(token), (since_ms + delay_ms).max(now.ms));
                self.set_stage(token, RequestStage::AwaitingDelay(reply));
            }
            RequestStep::BuildAnswer(build) => {
                let epoch = self.service.epoch();
                let Some(connection) = self.connections.get_mut(token) else { return };
                let request_id = connection.request.as_mut().and_then(|work| work.request_id.take());
                let draft = Box::new(bodies::AnswerDraft { request_id, epoch, build });
                self.hand_over(token, bodies::BodyJob::Build(draft));
            }
            RequestStep::ContinueList(bytes, next) => {
                let fits = self.budgets.fits(0);
                let Some(connection) = self.connections.get_mut(token) else { return };
                let Some(work) = &mut connection.request else { return };
                work.reserved_bytes = bytes;
                work.stage = RequestStage::AwaitingListTurn(next);
                if fits {
                    self.lists.push_back(token);
                } else {
                    self.lists.push_front(token);
                }
            }
            RequestStep::Password(job, next) => self.hash(token, job, next, now),
            RequestStep::Propose(change, next) => {
                self.set_stage(token, RequestStage::AwaitingDecision(next));
                self.service.state().propose(token, *change);
            }
        }
    }

    /// Hands a password over, unless too many wait, or too many from this place.
    fn hash(
        &mut self,
        token: ConnectionToken,
        job: passwords::PasswordJob,
        next: Continuation<passwords::PasswordResult>,
        now: ClockReading,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let place = throttle::address_block(connection.caller.ip);
        let from_here = self.hashing.values().filter(|other| **other == place).count();
        let crowded = from_here >= PASSWORDS_PER_PLACE && self.hashing.len() >= PASSWORDS_SHARED;
        if crowded || self.passwords.submit(token, job).is_err() {
            return self.reply(token, Err(dispatch::too_many_logins()), now);
        }
        self.hashing.insert(token, place);
        self.set_stage(token, RequestStage::AwaitingPassword(next));
    }

    fn set_stage(&mut self, token: ConnectionToken, stage: RequestStage) {
        if let Some(work) = self.connections.get_mut(token).and_then(|connection| connection.request.as_mut())
        {
            work.stage = stage;
        }
    }

    fn take_stage(&mut self, token: ConnectionToken) -> Option<RequestStage> {
        let work = self.connections.get_mut(token)?.request.as_mut()?;
        Some(std::mem::replace(&mut work.stage, RequestStage::Running))
    }

    /// Goes on with every request whose decision has come.
    pub(super) fn take_decisions(&mut self, now: ClockReading) {
        while let Some(decided) = self.service.state().next_decided(now.ms) {
            let token = decided.connection;
            let Some(RequestStage::AwaitingDecision(next)) = self.take_stage(token) else { continue };
            let Some(connection) = self.connections.get_mut(token) else { continue };
            match decided.outcome {
                Ok(outcome) => {
                    let step = next(&mut self.service, &mut connection.caller, outcome, now);
                    self.take_step(token, step, now);
                }
                Err(why) => self.reply(token, Err(dispatch::proposal_failure(&why)), now),
            }
            self.ready.insert(token);
        }
    }

    /// Goes on with every request whose password or large body is done.
    pub(super) fn take_results(&mut self, now: ClockReading) {
        while let Some((token, done)) = self.passwords.next_result() {
            self.hashing.remove(&token);
            let Some(RequestStage::AwaitingPassword(next)) = self.take_stage(token) else { continue };
            let Some(connection) = self.connections.get_mut(token) else { continue };
            let done = done.unwrap_or(passwords::PasswordResult::Failed);
            let step = next(&mut self.service, &mut connection.caller, done, now);
            self.take_step(token, step, now);
            self.ready.insert(token);
        }
        while let Some((token, done)) = self.bodies.next_result() {
            match (self.take_stage(token), done) {
                (Some(RequestStage::Parsing), Some(bodies::BodyResult::Parsed(parsed))) => {
                    self.parsed(token, *parsed, now);
                }
                (Some(RequestStage::Rendering), Some(bodies::BodyResult::Rendered(json))) => {
                    self.finish(token, &json, now);
                }
                (Some(_), _) => self.reply(token, Err(dispatch::internal_failure()), now),
                (None, _) => {}
            }
            self.ready.insert(token);
            if let Some(next) = self.queued.pop_front()
                && let Some(RequestStage::AwaitingWorker(job)) = self.take_stage(next)
            {
                self.hand_over(next, job);
            }
        }
        self.take_decisions(now);
    }

    /// A delay is over.
    pub(super) fn delay_ended(&mut self, token: ConnectionToken, now: ClockReading) {
        if let Some(RequestStage::AwaitingDelay(reply)) = self.take_stage(token) {
            self.reply(token, *reply, now);
            self.ready.insert(token);
        }
    }

    fn reply(&mut self, token: ConnectionToken, mut result: Reply, now: ClockReading) {
        if !self.service.state().check_reads(now.ms) {
            result = Err(dispatch::unreadable_state());
        }
        let epoch = self.service.epoch();
        let Some(work) = self.connections.get_mut(token).and_then(|connection| connection.request.as_mut())
        else {
            return;
        };
        let response = Box::new(Response { request_id: work.request_id.take(), epoch, result });
        if bodies::is_large_response(&response) {
            work.reserved_bytes = work.reserved_bytes.max(bodies::list_bytes(&response));
            self.hand_over(token, bodies::BodyJob::Render(response));
            return self.settle(token, now);
        }
        self.finish(token, &response.to_json(), now);
    }

    fn finish(&mut self, token: ConnectionToken, json: &[u8], now: ClockReading) {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.request = None;
            connection.append_answer(json, &mut self.spare, now.ms);
        }
    }
}
