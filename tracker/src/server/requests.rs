//! The path of a request, from the text of its message to its answer: owns the service, the worker pools, and
//! the order in which large bodies wait for a worker.
//!
//! Invariant: a waiting request goes on by exactly one event: room, the turn of its list, a worker's result,
//! a decision of the state, or a timer.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use mio::Waker;

use crate::api::failure::{FailureCode, RequestFailure};
use crate::api::request::{BadRequest, Request};
use crate::api::response::Response;

use super::active_request::{ActiveRequest, RequestStage};
use super::bodies::{self, AnswerDraft, BodyJob, BodyResult};
use super::clock::ClockReading;
use super::connections::{Connections, LoopTimer};
use super::dispatch::{self, AnswerRoom, Continuation, Reply, RequestStep, Service};
use super::limits::{
    BODIES_WAITING, BODY_THREADS, LARGE_BODY_BYTES, PASSWORD_THREADS, PASSWORDS_PER_BLOCK, PASSWORDS_SHARED,
    PASSWORDS_WAITING,
};
use super::passwords::{self, PasswordJob, PasswordResult};
use super::slots::ConnectionToken;
use super::throttle;
use super::workers::WorkerPool;

/// Carries out requests, stage by stage.
pub(super) struct RequestPipeline {
    pub(super) service: Service,
    passwords: WorkerPool<PasswordJob, PasswordResult>,
    bodies: WorkerPool<BodyJob, BodyResult>,
    /// Passwords that the workers have, with the address block that each came from.
    hashing: BTreeMap<ConnectionToken, IpAddr>,
    /// Large bodies that wait for a place among the jobs of the body workers.
    queued_bodies: VecDeque<ConnectionToken>,
}

impl RequestPipeline {
    /// Starts the worker threads.
    ///
    /// # Errors
    /// What the system says when it refuses a thread.
    pub(super) fn new(service: Service, waker: &Arc<Waker>) -> io::Result<RequestPipeline> {
        Ok(RequestPipeline {
            service,
            passwords: WorkerPool::start(
                "password",
                PASSWORD_THREADS,
                PASSWORDS_WAITING,
                waker,
                passwords::run_password_job,
            )?,
            bodies: WorkerPool::start("body", BODY_THREADS, BODIES_WAITING, waker, bodies::run_body_job)?,
            hashing: BTreeMap::new(),
            queued_bodies: VecDeque::new(),
        })
    }

    /// Starts a request from the text of its message.
    pub(super) fn start(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        text: Vec<u8>,
        now: ClockReading,
    ) {
        let Some(connection) = connections.get_mut(token) else { return };
        if text.len() <= LARGE_BODY_BYTES {
            connection.request = Some(ActiveRequest::new(0, now.ms));
            return self.admit(connections, token, Request::parse(&text), now);
        }
        connection.request = Some(ActiveRequest::new(text.len(), now.ms));
        self.submit_body(connections, token, BodyJob::Parse(text));
    }

    /// Begins the request that has waited longest for room, if there is room now. One per round of the loop:
    /// a long answer takes a while to build, and other connections get their turns in between.
    pub(super) fn begin_parked(&mut self, connections: &mut Connections, now: ClockReading) {
        let Some(token) = connections.admission.first_parked() else { return };
        let Some(RequestStage::AwaitingRoom(request)) = connections.take_stage(token) else {
            unreachable!("a parked request waits for room")
        };
        let bytes = self.answer_bytes(connections, token, &request, now);
        if !connections.admission.unpark_first(bytes) {
            return connections.wait_for(token, RequestStage::AwaitingRoom(request));
        }
        self.begin(connections, token, *request, bytes, now);
        self.take_decisions(connections, now);
        connections.ready.insert(token);
    }

    fn answer_bytes(
        &mut self,
        connections: &Connections,
        token: ConnectionToken,
        request: &Request,
        now: ClockReading,
    ) -> usize {
        let connection = connections.slots.get(token);
        connection.map_or(0, |connection| self.service.answer_room(&connection.caller, request, now).bytes())
    }

    /// Builds the next page of one list.
    pub(super) fn build_list_page(&mut self, connections: &mut Connections, now: ClockReading) {
        let Connections { slots, admission, .. } = connections;
        let is_started = |token| {
            let request = slots.get(token).and_then(|connection| connection.request.as_ref());
            request.is_some_and(ActiveRequest::is_listing)
        };
        let Some(token) = admission.next_list(is_started) else { return };
        match connections.take_stage(token) {
            Some(RequestStage::AwaitingRoom(request)) => self.begin(connections, token, *request, 0, now),
            Some(RequestStage::AwaitingListTurn(next)) => {
                self.resume(connections, token, next, (), now);
                connections.settle(token, now);
            }
            Some(_) | None => {}
        }
        self.take_decisions(connections, now);
        connections.ready.insert(token);
    }

    /// Begins a request whose answer needs about this many bytes.
    fn begin(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        request: Request,
        answer_bytes: usize,
        now: ClockReading,
    ) {
        let Some(connection) = connections.get_mut(token) else { return };
        if let Some(active) = &mut connection.request {
            active.reserved_bytes = answer_bytes;
        }
        let step = self.service.begin_request(&mut connection.caller, request, now);
        self.take_step(connections, token, step, now);
        connections.settle(token, now);
    }

    /// Begins a parsed request, or lets it wait for room.
    fn admit(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        parsed: Result<Request, BadRequest>,
        now: ClockReading,
    ) {
        let Some(connection) = connections.slots.get_mut(token) else { return };
        let Some(active) = &mut connection.request else { return };
        match parsed {
            Ok(request) => {
                active.request_id.clone_from(&request.request_id);
                match self.service.answer_room(&connection.caller, &request, now) {
                    AnswerRoom::List => {
                        active.wait_for(RequestStage::AwaitingRoom(Box::new(request)));
                        connections.admission.queue_list(token);
                    }
                    AnswerRoom::Bytes(bytes) if !connections.admission.can_start(bytes) => {
                        active.wait_for(RequestStage::AwaitingRoom(Box::new(request)));
                        connections.admission.park(token);
                    }
                    room => self.begin(connections, token, request, room.bytes(), now),
                }
            }
            Err(BadRequest { request_id, failure }) => {
                active.request_id = request_id;
                self.refuse(connections, token, failure, now);
            }
        }
        self.take_decisions(connections, now);
    }

    /// Answers with a failure. After a syntax error the end of the message is unknown in stream form, so the
    /// connection ends.
    fn refuse(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        failure: RequestFailure,
        now: ClockReading,
    ) {
        let is_lost = failure.code == FailureCode::Syntax;
        self.reply(connections, token, Err(failure), now);
        if is_lost
            && let Some(connection) = connections.get_mut(token)
            && !connection.survives_syntax_errors()
        {
            connection.begin_close();
        }
    }

    /// Continues a request with what it has waited for.
    fn resume<T>(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        next: Continuation<T>,
        result: T,
        now: ClockReading,
    ) {
        let Some(connection) = connections.get_mut(token) else { return };
        let step = next(&mut self.service, &mut connection.caller, result, now);
        self.take_step(connections, token, step, now);
    }

    fn take_step(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        step: RequestStep,
        now: ClockReading,
    ) {
        // Never decide on a partial read: a user that could not be read looks like one without a password.
        if !matches!(step, RequestStep::Answer(_)) && !self.service.state().check_reads(now.ms) {
            return self.reply(connections, token, Err(dispatch::unreadable_state()), now);
        }
        let Some(active) = connections.request_mut(token) else { return };
        match step {
            RequestStep::Answer(reply) | RequestStep::DelayedAnswer(reply, 0) => {
                self.reply(connections, token, *reply, now);
            }
            RequestStep::DelayedAnswer(reply, delay_ms) => {
                let at_ms = (active.received_ms + delay_ms).max(now.ms);
                active.wait_for(RequestStage::AwaitingDelay(reply));
                connections.timers.set(LoopTimer::DelayedAnswer(token), at_ms);
            }
            RequestStep::BuildAnswer(build) => {
                let (request_id, epoch) = (active.request_id.take(), self.service.epoch());
                let draft = Box::new(AnswerDraft { request_id, epoch, build });
                self.submit_body(connections, token, BodyJob::Build(draft));
            }
            RequestStep::ContinueList(bytes, next) => {
                active.reserved_bytes = bytes;
                active.wait_for(RequestStage::AwaitingListTurn(next));
                connections.admission.requeue_list(token);
            }
            RequestStep::Password(job, next) => self.submit_password(connections, token, job, next, now),
            RequestStep::Propose(command, next) => {
                active.wait_for(RequestStage::AwaitingDecision(next));
                self.service.state().propose(token, *command);
            }
        }
    }

    /// Hands a large body to the workers, or lets it wait for a place.
    fn submit_body(&mut self, connections: &mut Connections, token: ConnectionToken, job: BodyJob) {
        let stage = match &job {
            BodyJob::Parse(_) => RequestStage::Parsing,
            BodyJob::Render(_) | BodyJob::Build(_) => RequestStage::Rendering,
        };
        match self.bodies.submit(token, job) {
            Ok(()) => connections.wait_for(token, stage),
            Err(job) => {
                connections.wait_for(token, RequestStage::AwaitingWorker(job));
                self.queued_bodies.push_back(token);
            }
        }
    }

    /// Hands a password to the workers, unless too many wait, or too many from this address block.
    fn submit_password(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        job: PasswordJob,
        next: Continuation<PasswordResult>,
        now: ClockReading,
    ) {
        let Some(connection) = connections.get_mut(token) else { return };
        let block = throttle::address_block(connection.caller.ip);
        let from_here = self.hashing.values().filter(|other| **other == block).count();
        let is_crowded = from_here >= PASSWORDS_PER_BLOCK && self.hashing.len() >= PASSWORDS_SHARED;
        if is_crowded || self.passwords.submit(token, job).is_err() {
            return self.reply(connections, token, Err(dispatch::too_many_logins()), now);
        }
        self.hashing.insert(token, block);
        connections.wait_for(token, RequestStage::AwaitingPassword(next));
    }

    /// Continues every request whose decision has come.
    fn take_decisions(&mut self, connections: &mut Connections, now: ClockReading) {
        while let Some(decided) = self.service.state().next_decided(now.ms) {
            let token = decided.connection;
            let Some(RequestStage::AwaitingDecision(next)) = connections.take_stage(token) else { continue };
            match decided.outcome {
                Ok(outcome) => self.resume(connections, token, next, outcome, now),
                Err(error) => self.reply(connections, token, Err(dispatch::proposal_failure(&error)), now),
            }
            connections.ready.insert(token);
        }
    }

    /// Continues every request whose password, large body or decision is ready.
    pub(super) fn take_results(&mut self, connections: &mut Connections, now: ClockReading) {
        while let Some((token, result)) = self.passwords.next_result() {
            self.hashing.remove(&token);
            let Some(RequestStage::AwaitingPassword(next)) = connections.take_stage(token) else { continue };
            let result = result.unwrap_or(PasswordResult::Failed);
            self.resume(connections, token, next, result, now);
            connections.ready.insert(token);
        }
        while let Some((token, result)) = self.bodies.next_result() {
            match (connections.take_stage(token), result) {
                (Some(RequestStage::Parsing), Some(BodyResult::Parsed(parsed))) => {
                    self.admit(connections, token, *parsed, now);
                }
                (Some(RequestStage::Rendering), Some(BodyResult::Rendered(json))) => {
                    connections.finish_request(token, &json, now);
                }
                (Some(_), _) => self.reply(connections, token, Err(dispatch::internal_failure()), now),
                (None, _) => {}
            }
            connections.ready.insert(token);
            if let Some(next) = self.queued_bodies.pop_front()
                && let Some(RequestStage::AwaitingWorker(job)) = connections.take_stage(next)
            {
                self.submit_body(connections, next, job);
            }
        }
        self.take_decisions(connections, now);
    }

    /// Sends the answer of a request whose delay is over.
    pub(super) fn end_delay(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        now: ClockReading,
    ) {
        if let Some(RequestStage::AwaitingDelay(reply)) = connections.take_stage(token) {
            self.reply(connections, token, *reply, now);
            connections.ready.insert(token);
        }
    }

    fn reply(
        &mut self,
        connections: &mut Connections,
        token: ConnectionToken,
        mut result: Reply,
        now: ClockReading,
    ) {
        if !self.service.state().check_reads(now.ms) {
            result = Err(dispatch::unreadable_state());
        }
        let Some(active) = connections.request_mut(token) else { return };
        let response =
            Box::new(Response { request_id: active.request_id.take(), epoch: self.service.epoch(), result });
        if bodies::is_large_response(&response) {
            active.reserved_bytes = active.reserved_bytes.max(bodies::list_bytes(&response));
            self.submit_body(connections, token, BodyJob::Render(response));
            return connections.settle(token, now);
        }
        connections.finish_request(token, &response.to_json(), now);
    }

    /// Forgets the request of a closed connection.
    pub(super) fn forget(&mut self, token: ConnectionToken) {
        self.queued_bodies.retain(|queued| *queued != token);
    }
}
