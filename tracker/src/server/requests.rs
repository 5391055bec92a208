//! The path of a request, from the text of its message to its answer: owns the service, the worker pools, and
//! the order in which large bodies wait for a worker.
//!
//! Invariant: a waiting request goes on by exactly one event: room, the turn of its list, a worker's result,
//! a decision of the state, or a timer.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mio::Waker;

use crate::api::answers::AddressProblem;
use crate::api::failure::{FailureCode, RequestFailure};
use crate::api::request::{BadRequest, Request};
use crate::api::response::Response;

use super::active_request::{ActiveRequest, RequestStage};
use super::address_check::{self, AddressCheckJob};
use super::bodies::{self, AnswerDraft, BodyJob, BodyResult};
use super::clock::ClockReading;
use super::connections::Connections;
use super::dispatch::{self, AnswerRoom, Continuation, Reply, RequestStep, Service, StepResult};
use super::limits::{
    ADDRESS_CHECK_THREADS, ADDRESS_CHECKS_WAITING, BODIES_WAITING, BODY_THREADS, LARGE_BODY_BYTES,
    PASSWORD_THREADS,
};
use super::password_queue::{PasswordClass, PasswordQueue};
use super::passwords::{self, PasswordJob, PasswordResult};
use super::slots::ConnectionToken;
use super::throttle;
use super::workers::WorkerPool;

/// Carries out requests, stage by stage.
pub(super) struct RequestPipeline {
    pub(super) service: Service,
    passwords: WorkerPool<PasswordJob, PasswordResult>,
    bodies: WorkerPool<BodyJob, BodyResult>,
    address_checks: WorkerPool<AddressCheckJob, Result<(), AddressProblem>>,
    waiting_passwords: PasswordQueue<PasswordJob>,
    /// Passwords that the workers have: at most one for each.
    passwords_in_work: usize,
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
                PASSWORD_THREADS,
                waker,
                passwords::run_password_job,
            )?,
            bodies: WorkerPool::start("body", BODY_THREADS, BODIES_WAITING, waker, bodies::run_body_job)?,
            address_checks: WorkerPool::start(
                "address",
                ADDRESS_CHECK_THREADS,
                ADDRESS_CHECKS_WAITING,
                waker,
                address_check::run_address_check,
            )?,
            waiting_passwords: PasswordQueue::new(),
            passwords_in_work: 0,
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
        connections.places.note_request(token, now.ms);
        let Some(connection) = connections.get_mut(token) else { return };
        if text.len() <= LARGE_BODY_BYTES {
            connection.request = Some(ActiveRequest::new(0));
            self.run(connections, token, now).admit(Request::parse(&text));
            return self.take_decisions(connections, now);
        }
        connection.request = Some(ActiveRequest::new(text.len()));
        self.run(connections, token, now).submit_body(BodyJob::Parse(text));
    }

    fn run<'a>(
        &'a mut self,
        connections: &'a mut Connections,
        token: ConnectionToken,
        now: ClockReading,
    ) -> RequestRun<'a> {
        RequestRun { pipeline: self, connections, token, now }
    }

    /// Begins the request that has waited longest for room, if there is room now. One per round of the loop: a
    /// long answer takes a while to build, and other connections get their turns in between.
    pub(super) fn begin_parked(&mut self, connections: &mut Connections, now: ClockReading) {
        let Some(token) = connections.admission.first_parked() else { return };
        let Some(RequestStage::AwaitingRoom(request)) = connections.take_stage(token) else {
            unreachable!("a parked request waits for room")
        };
        let caller = connections.slots.get(token).map(|connection| &connection.caller);
        let bytes = caller.map_or(0, |caller| self.service.answer_room(caller, &request, now).bytes());
        if !connections.admission.unpark_first(bytes) {
            return connections.wait_for(token, RequestStage::AwaitingRoom(request));
        }
        self.run(connections, token, now).begin(*request, bytes);
        self.take_decisions(connections, now);
        connections.ready.insert(token);
    }

    /// Builds the next page of one list.
    pub(super) fn build_list_page(&mut self, connections: &mut Connections, now: ClockReading) {
        let Some(token) = connections.admission.next_list() else { return };
        let Some(RequestStage::AwaitingListTurn(next)) = connections.take_stage(token) else {
            unreachable!("a queued list waits for its turn")
        };
        self.run(connections, token, now).resume(next, ());
        connections.settle(token, now);
        self.take_decisions(connections, now);
        connections.ready.insert(token);
    }

    /// Continues every request whose decision has come.
    fn take_decisions(&mut self, connections: &mut Connections, now: ClockReading) {
        while let Some(decided) = self.service.state().next_decided(now.ms) {
            let token = decided.connection;
            let Some(RequestStage::AwaitingDecision(next)) = connections.take_stage(token) else { continue };
            let mut run = self.run(connections, token, now);
            match decided.outcome {
                Ok(outcome) => run.resume(next, outcome),
                Err(error) => run.reply(Err(dispatch::proposal_failure(&error))),
            }
            connections.ready.insert(token);
        }
    }

    /// Continues every request whose password, call, large body or decision is ready.
    pub(super) fn take_results(&mut self, connections: &mut Connections, now: ClockReading) {
        while let Some((token, result)) = self.passwords.next_result() {
            self.passwords_in_work -= 1;
            let Some(RequestStage::AwaitingPassword(next)) = connections.take_stage(token) else { continue };
            self.run(connections, token, now).resume(next, result.unwrap_or(PasswordResult::Failed));
            connections.ready.insert(token);
        }
        self.start_passwords();
        while let Some((token, result)) = self.address_checks.next_result() {
            let Some(RequestStage::AwaitingAddressCheck(next)) = connections.take_stage(token) else {
                continue;
            };
            let result = result.unwrap_or(Err(AddressProblem::NotChecked));
            self.run(connections, token, now).resume(next, result);
            connections.ready.insert(token);
        }
        while let Some((token, result)) = self.bodies.next_result() {
            match (connections.take_stage(token), result) {
                (Some(RequestStage::Parsing), Some(BodyResult::Parsed(parsed))) => {
                    self.run(connections, token, now).admit(*parsed);
                    self.take_decisions(connections, now);
                }
                (Some(RequestStage::Rendering), Some(BodyResult::Rendered(json))) => {
                    connections.finish_request(token, &json, now);
                }
                (Some(_), _) => {
                    self.run(connections, token, now).reply(Err(dispatch::internal_failure()));
                }
                (None, _) => {}
            }
            connections.ready.insert(token);
            if let Some(next) = self.queued_bodies.pop_front()
                && let Some(RequestStage::AwaitingWorker(job)) = connections.take_stage(next)
            {
                self.run(connections, next, now).submit_body(job);
            }
        }
        self.take_decisions(connections, now);
    }

    /// Forgets the request of a closed connection.
    pub(super) fn forget(&mut self, token: ConnectionToken) {
        self.queued_bodies.retain(|queued| *queued != token);
        self.waiting_passwords.forget(token);
    }

    /// Hands passwords to the workers, one to each.
    fn start_passwords(&mut self) {
        while self.passwords_in_work < PASSWORD_THREADS
            && let Some((token, job)) = self.waiting_passwords.pop()
        {
            let is_taken = self.passwords.submit(token, job).is_ok();
            assert!(is_taken, "the pool has room for one password of each worker");
            self.passwords_in_work += 1;
        }
    }
}

/// Takes one request from its present stage to the next.
struct RequestRun<'a> {
    pipeline: &'a mut RequestPipeline,
    connections: &'a mut Connections,
    token: ConnectionToken,
    now: ClockReading,
}

impl RequestRun<'_> {
    /// Begins a parsed request, or lets it wait for room.
    fn admit(&mut self, parsed: Result<Request, BadRequest>) {
        let Some(connection) = self.connections.slots.get_mut(self.token) else { return };
        let Some(active) = &mut connection.request else { return };
        let request = match parsed {
            Ok(request) => request,
            Err(BadRequest { request_id, failure }) => {
                active.request_id = request_id;
                return self.refuse(failure);
            }
        };
        active.request_id.clone_from(&request.request_id);
        match self.pipeline.service.answer_room(&connection.caller, &request, self.now) {
            AnswerRoom::Bytes(bytes) if !self.connections.admission.can_start(bytes) => {
                active.wait_for(RequestStage::AwaitingRoom(Box::new(request)));
                self.connections.admission.park(self.token);
            }
            room => self.begin(request, room.bytes()),
        }
    }

    /// Begins a request whose answer needs about this many bytes.
    fn begin(&mut self, request: Request, answer_bytes: usize) {
        let Some(connection) = self.connections.get_mut(self.token) else { return };
        if let Some(active) = &mut connection.request {
            active.reserved_bytes = answer_bytes;
        }
        let step = self.pipeline.service.begin_request(&mut connection.caller, request, self.now);
        self.take_step(step);
        self.connections.settle(self.token, self.now);
    }

    /// Answers with a failure. After a syntax error the end of the message is unknown in stream form, so the
    /// connection ends.
    fn refuse(&mut self, failure: RequestFailure) {
        let is_lost = failure.code == FailureCode::Syntax;
        self.reply(Err(failure));
        if is_lost
            && let Some(connection) = self.connections.get_mut(self.token)
            && !connection.survives_syntax_errors()
        {
            connection.begin_close();
        }
    }

    /// Continues with what the request has waited for.
    fn resume<T>(&mut self, next: Continuation<T>, result: T) {
        let Some(connection) = self.connections.get_mut(self.token) else { return };
        let step = next(&mut self.pipeline.service, &mut connection.caller, result, self.now);
        self.take_step(step);
    }

    fn take_step(&mut self, step: StepResult) {
        let (token, now, service) = (self.token, self.now, &mut self.pipeline.service);
        // Never decide on a partial read: a user that could not be read looks like one without a password.
        let needs_reads = !matches!(step, Ok(RequestStep::Answer(_)) | Err(_));
        if needs_reads && !service.state().check_reads(now.ms) {
            return self.reply(Err(dispatch::unreadable_state()));
        }
        let Some(active) = self.connections.request_mut(token) else { return };
        match step {
            Err(failure) => self.reply(Err(failure)),
            Ok(RequestStep::Answer(success)) => self.reply(Ok(*success)),
            Ok(RequestStep::BuildAnswer(build)) => {
                let (request_id, epoch) = (active.request_id.take(), service.epoch());
                self.submit_body(BodyJob::Build(Box::new(AnswerDraft { request_id, epoch, build })));
            }
            Ok(RequestStep::ContinueList(next)) => {
                active.wait_for(RequestStage::AwaitingListTurn(next));
                self.connections.admission.queue_list(token);
            }
            Ok(RequestStep::Password(class, job, next)) => self.queue_password(class, job, next),
            Ok(RequestStep::CheckAddress(job, next)) => {
                if self.pipeline.address_checks.submit(token, job).is_err() {
                    return self.reply(Err(dispatch::too_many_checks()));
                }
                self.connections.wait_for(token, RequestStage::AwaitingAddressCheck(next));
            }
            Ok(RequestStep::Propose(command, next)) => {
                active.wait_for(RequestStage::AwaitingDecision(next));
                service.state().propose(token, *command);
            }
        }
    }

    /// Hands a large body to the workers, or lets it wait for a place.
    fn submit_body(&mut self, job: BodyJob) {
        let stage = match &job {
            BodyJob::Parse(_) => RequestStage::Parsing,
            BodyJob::Render(_) | BodyJob::Build(_) => RequestStage::Rendering,
        };
        match self.pipeline.bodies.submit(self.token, job) {
            Ok(()) => self.connections.wait_for(self.token, stage),
            Err(job) => {
                self.connections.wait_for(self.token, RequestStage::AwaitingWorker(job));
                self.pipeline.queued_bodies.push_back(self.token);
            }
        }
    }

    /// Queues a password. If too many wait, the request that has no place goes on without its password.
    fn queue_password(&mut self, class: PasswordClass, job: PasswordJob, next: Continuation<PasswordResult>) {
        let Some(connection) = self.connections.get_mut(self.token) else { return };
        let block = throttle::address_block(connection.caller.ip);
        self.connections.wait_for(self.token, RequestStage::AwaitingPassword(next));
        let refused = self.pipeline.waiting_passwords.push(class, block, self.token, job);
        if let Some(token) = refused
            && let Some(RequestStage::AwaitingPassword(next)) = self.connections.take_stage(token)
        {
            self.pipeline.run(self.connections, token, self.now).resume(next, PasswordResult::Refused);
            self.connections.ready.insert(token);
        }
        self.pipeline.start_passwords();
    }

    fn reply(&mut self, mut result: Reply) {
        let (token, now, service) = (self.token, self.now, &mut self.pipeline.service);
        if !service.state().check_reads(now.ms) {
            result = Err(dispatch::unreadable_state());
        }
        let Some(active) = self.connections.request_mut(token) else { return };
        let (request_id, epoch) = (active.request_id.take(), service.epoch());
        let response = Box::new(Response { request_id, epoch, result });
        if bodies::is_large_response(&response) {
            active.reserved_bytes = active.reserved_bytes.max(bodies::list_bytes(&response));
            self.submit_body(BodyJob::Render(response));
            return self.connections.settle(token, now);
        }
        self.connections.finish_request(token, &response.to_json(), now);
    }
}
