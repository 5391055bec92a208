//! Carrying out one request: from its text over whatever it has to wait for to its answer.
//!
//! Invariant: a connection's `work` is there from the moment its message is taken until its answer is appended; every stage
//! but the last is left by exactly one event (a result, a decision, a timer).

use crate::api::failure::{Failure, FailureCode};
use crate::api::request::{BadRequest, Request};
use crate::api::response::Response;

use super::bodies;
use super::clock::Now;
use super::dispatch::{self, Next, Reply, Room, Step};
use super::event_loop::{Server, Timer};
use super::limits::{
    LARGE_BODY_BYTES, LIST_ENTRY_BYTES, LIST_PAGE_ROWS, PASSWORDS_PER_PLACE, PASSWORDS_SHARED,
};
use super::passwords;
use super::slots::ConnectionToken;
use super::throttle;
use super::work::{Stage, Work};

impl Server {
    /// Takes a message's text.
    pub(super) fn start(&mut self, token: ConnectionToken, text: Vec<u8>, now: Now) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if text.len() <= LARGE_BODY_BYTES {
            connection.work = Some(Work::new(0, now.ms));
            return self.parsed(token, Request::parse(&text), now);
        }
        connection.work = Some(Work::new(text.len(), now.ms));
        self.hand_over(token, bodies::Job::Parse(text));
    }

    /// Hands a large body over, or lets it wait for a place.
    fn hand_over(&mut self, token: ConnectionToken, job: bodies::Job) {
        let stage = match &job {
            bodies::Job::Parse(_) => Stage::Parsing,
            bodies::Job::Render(_) | bodies::Job::Build(_) => Stage::Rendering,
        };
        match self.bodies.submit(token, job) {
            Ok(()) => self.set_stage(token, stage),
            Err(job) => {
                self.set_stage(token, Stage::Queued(job));
                self.queued.push_back(token);
            }
        }
    }

    /// Begins the request that has waited longest for room among the answers, if there is room now. One at a time: building
    /// a long answer takes a while, and others have their turns in between.
    pub(super) fn begin_parked(&mut self, now: Now) {
        let Some(token) = self.parked.front().copied() else { return };
        match self.take_stage(token) {
            Some(Stage::Parked(request)) => {
                let bytes = self.room(token, &request, now).bytes();
                if !self.budgets.fits(bytes) {
                    self.wants_room = true;
                    return self.set_stage(token, Stage::Parked(request));
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
    pub(super) fn build_lists(&mut self, now: Now) {
        if self.lists.is_empty() {
            return;
        }
        let fits = self.budgets.fits(LIST_PAGE_ROWS * LIST_ENTRY_BYTES);
        self.wants_room |= !fits;
        let next = if fits { Some(0) } else { self.lists.iter().position(|token| self.is_listing(*token)) };
        let Some(token) = next.and_then(|at| self.lists.remove(at)) else { return };
        match self.take_stage(token) {
            Some(Stage::Parked(request)) => self.begin(token, *request, 0, now),
            Some(Stage::Listing(next)) => {
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
        let work = self.connections.get(token).and_then(|connection| connection.work.as_ref());
        work.is_some_and(|work| matches!(work.stage, Stage::Listing(_)))
    }

    /// What a request's answer needs before it is begun.
    fn room(&mut self, token: ConnectionToken, request: &Request, now: Now) -> Room {
        let Some(connection) = self.connections.get(token) else { return Room::Little };
        self.service.room(&connection.caller, request, now)
    }

    /// Begins a request whose answer takes about so many bytes.
    fn begin(&mut self, token: ConnectionToken, request: Request, answer_bytes: usize, now: Now) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if let Some(work) = &mut connection.work {
            work.reserved_bytes = answer_bytes;
        }
        let step = self.service.begin(&mut connection.caller, request, now);
        self.take_step(token, step, now);
        self.settle(token, now);
    }

    fn parsed(&mut self, token: ConnectionToken, parsed: Result<Request, BadRequest>, now: Now) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(work) = &mut connection.work else { return };
        match parsed {
            Ok(request) => {
                work.request_id.clone_from(&request.request_id);
                match self.service.room(&connection.caller, &request, now) {
                    Room::List => {
                        work.stage = Stage::Parked(Box::new(request));
                        self.lists.push_back(token);
                    }
                    Room::Bytes(bytes) if !self.parked.is_empty() || !self.budgets.fits(bytes) => {
                        work.stage = Stage::Parked(Box::new(request));
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
    fn refuse(&mut self, token: ConnectionToken, failure: Failure, now: Now) {
        let lost = failure.code == FailureCode::Syntax;
        self.reply(token, Err(failure), now);
        if lost
            && let Some(connection) = self.connections.get_mut(token)
            && !connection.survives_syntax_errors()
        {
            connection.end();
        }
    }

    fn take_step(&mut self, token: ConnectionToken, step: Step, now: Now) {
        // What is decided by half of what is there is decided wrong: a user who was not read has no password.
        if !matches!(step, Step::Answer(_)) && !self.service.proposals().were_read(now.ms) {
            return self.reply(token, Err(dispatch::unread()), now);
        }
        match step {
            Step::Answer(reply) | Step::Late(reply, 0) => self.reply(token, *reply, now),
            Step::Late(reply, delay_ms) => {
                let Some(connection) = self.connections.get_mut(token) else { return };
                let since_ms = connection.work.as_ref().map_or(now.ms, |work| work.since_ms);
                self.timers.set(Timer::Late(token), (since_ms + delay_ms).max(now.ms));
                self.set_stage(token, Stage::Late(reply));
            }
            Step::Build(build) => {
                let epoch = self.service.epoch();
                let Some(connection) = self.connections.get_mut(token) else { return };
                let request_id = connection.work.as_mut().and_then(|work| work.request_id.take());
                let draft = Box::new(bodies::Draft { request_id, epoch, build });
                self.hand_over(token, bodies::Job::Build(draft));
            }
            Step::More(bytes, next) => {
                let fits = self.budgets.fits(0);
                let Some(connection) = self.connections.get_mut(token) else { return };
                let Some(work) = &mut connection.work else { return };
                work.reserved_bytes = bytes;
                work.stage = Stage::Listing(next);
                if fits {
                    self.lists.push_back(token);
                } else {
                    self.lists.push_front(token);
                }
            }
            Step::Password(job, next) => self.hash(token, job, next, now),
            Step::Propose(change, next) => {
                self.set_stage(token, Stage::Deciding(next));
                self.service.proposals().propose(token, *change);
            }
        }
    }

    /// Hands a password over, unless too many wait, or too many from this place.
    fn hash(&mut self, token: ConnectionToken, job: passwords::Job, next: Next<passwords::Done>, now: Now) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let place = throttle::place(connection.caller.ip);
        let from_here = self.hashing.values().filter(|other| **other == place).count();
        let crowded = from_here >= PASSWORDS_PER_PLACE && self.hashing.len() >= PASSWORDS_SHARED;
        if crowded || self.passwords.submit(token, job).is_err() {
            return self.reply(token, Err(dispatch::busy()), now);
        }
        self.hashing.insert(token, place);
        self.set_stage(token, Stage::Hashing(next));
    }

    fn set_stage(&mut self, token: ConnectionToken, stage: Stage) {
        if let Some(work) = self.connections.get_mut(token).and_then(|connection| connection.work.as_mut()) {
            work.stage = stage;
        }
    }

    fn take_stage(&mut self, token: ConnectionToken) -> Option<Stage> {
        let work = self.connections.get_mut(token)?.work.as_mut()?;
        Some(std::mem::replace(&mut work.stage, Stage::Running))
    }

    /// Goes on with every request whose decision has come.
    pub(super) fn take_decisions(&mut self, now: Now) {
        while let Some(decided) = self.service.proposals().next_decided(now.ms) {
            let token = decided.whose;
            let Some(Stage::Deciding(next)) = self.take_stage(token) else { continue };
            let Some(connection) = self.connections.get_mut(token) else { continue };
            match decided.outcome {
                Ok(outcome) => {
                    let step = next(&mut self.service, &mut connection.caller, outcome, now);
                    self.take_step(token, step, now);
                }
                Err(why) => self.reply(token, Err(dispatch::unproposed(&why)), now),
            }
            self.ready.insert(token);
        }
    }

    /// Goes on with every request whose password or large body is done.
    pub(super) fn take_results(&mut self, now: Now) {
        while let Some((token, done)) = self.passwords.next_result() {
            self.hashing.remove(&token);
            let Some(Stage::Hashing(next)) = self.take_stage(token) else { continue };
            let Some(connection) = self.connections.get_mut(token) else { continue };
            let done = done.unwrap_or(passwords::Done::Failed);
            let step = next(&mut self.service, &mut connection.caller, done, now);
            self.take_step(token, step, now);
            self.ready.insert(token);
        }
        while let Some((token, done)) = self.bodies.next_result() {
            match (self.take_stage(token), done) {
                (Some(Stage::Parsing), Some(bodies::Done::Parsed(parsed))) => {
                    self.parsed(token, *parsed, now);
                }
                (Some(Stage::Rendering), Some(bodies::Done::Rendered(json))) => {
                    self.finish(token, &json, now);
                }
                (Some(_), _) => self.reply(token, Err(dispatch::internal()), now),
                (None, _) => {}
            }
            self.ready.insert(token);
            if let Some(next) = self.queued.pop_front()
                && let Some(Stage::Queued(job)) = self.take_stage(next)
            {
                self.hand_over(next, job);
            }
        }
        self.take_decisions(now);
    }

    /// A delay is over.
    pub(super) fn delay_ended(&mut self, token: ConnectionToken, now: Now) {
        if let Some(Stage::Late(reply)) = self.take_stage(token) {
            self.reply(token, *reply, now);
            self.ready.insert(token);
        }
    }

    fn reply(&mut self, token: ConnectionToken, mut result: Reply, now: Now) {
        if !self.service.proposals().were_read(now.ms) {
            result = Err(dispatch::unread());
        }
        let epoch = self.service.epoch();
        let Some(work) = self.connections.get_mut(token).and_then(|connection| connection.work.as_mut())
        else {
            return;
        };
        let response = Box::new(Response { request_id: work.request_id.take(), epoch, result });
        if bodies::is_large(&response) {
            work.reserved_bytes = work.reserved_bytes.max(bodies::list_bytes(&response));
            self.hand_over(token, bodies::Job::Render(response));
            return self.settle(token, now);
        }
        self.finish(token, &response.to_json(), now);
    }

    fn finish(&mut self, token: ConnectionToken, json: &[u8], now: Now) {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.work = None;
            connection.answer(json, &mut self.spare, now.ms);
        }
    }
}
