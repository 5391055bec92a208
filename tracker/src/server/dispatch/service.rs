//! The service: owns the state, the keys and the caches by which requests are answered. Also the types that
//! all commands share: the caller, the context of a request, and the steps in which it is carried out.

use std::net::{IpAddr, SocketAddr};

use engine::proto::ticket::PeerKey;

use crate::api::address::{self, ClaimedAddress};
use crate::api::answers::AddressProblem;
use crate::api::failure::RequestFailure;
use crate::api::response::CommandSuccess;
use crate::state::command::{LogAction, LogCommand};
use crate::state::id::{Actor, RequestId, UserId};
use crate::state::node::NodeEndpoint;
use crate::state::outcome::{CommandOutcome, CommandRefusal};

use super::super::address_check::{AddressCheckCounts, AddressCheckJob};
use super::super::bodies::AnswerBuilder;
use super::super::clock::ClockReading;
use super::super::keys::DerivedKeys;
use super::super::password_queue::PasswordClass;
use super::super::passwords::{PasswordJob, PasswordResult};
use super::super::replicated_state::ReplicatedState;
use super::super::session_token;
use super::super::slots::ConnectionToken;
use super::super::throttle::LoginThrottle;
use super::super::tickets::TicketCache;
use super::replies;

/// The next step of a request, or the failure that it is answered with.
pub(in crate::server) type StepResult = Result<RequestStep, RequestFailure>;

/// Continues a request with the result that it has waited for.
pub(in crate::server) type Continuation<T> =
    Box<dyn FnOnce(&mut Service, &mut Caller, T, ClockReading) -> StepResult>;

/// The state machine's decision on a command.
pub(in crate::server) type Decision = Result<CommandOutcome, CommandRefusal>;

/// What a request needs next.
pub(in crate::server) enum RequestStep {
    Answer(Box<CommandSuccess>),
    BuildAnswer(AnswerBuilder),
    /// Build the next page of a list in a later turn.
    ContinueList(Continuation<()>),
    Password(PasswordClass, PasswordJob, Continuation<PasswordResult>),
    CheckAddress(AddressCheckJob, Continuation<Result<(), AddressProblem>>),
    Propose(Box<LogCommand>, Continuation<Decision>),
}

impl RequestStep {
    pub(super) fn answer(success: CommandSuccess) -> StepResult {
        Ok(RequestStep::Answer(Box::new(success)))
    }

    /// An answer without fields.
    pub(super) fn succeed(message: impl Into<String>) -> StepResult {
        RequestStep::answer(replies::plain_success(message))
    }

    pub(super) fn password(
        class: PasswordClass,
        job: PasswordJob,
        next: impl FnOnce(&mut Service, &mut Caller, PasswordResult, ClockReading) -> StepResult + 'static,
    ) -> StepResult {
        Ok(RequestStep::Password(class, job, Box::new(next)))
    }

    pub(super) fn propose(
        command: LogCommand,
        next: impl FnOnce(&mut Service, &mut Caller, Decision, ClockReading) -> StepResult + 'static,
    ) -> StepResult {
        Ok(RequestStep::Propose(Box::new(command), Box::new(next)))
    }

    /// The next page of a list.
    pub(super) fn continue_list(
        next: impl FnOnce(&mut Service, &mut Caller, (), ClockReading) -> StepResult + 'static,
    ) -> StepResult {
        Ok(RequestStep::ContinueList(Box::new(next)))
    }
}

pub(in crate::server) struct Caller {
    pub(in crate::server) connection: ConnectionToken,
    /// The client's address, as IPv4 where it is mapped.
    pub(in crate::server) ip: IpAddr,
    pub(super) session: Option<BoundSession>,
}

/// The session of a connection, and the token that named it.
pub(in crate::server) struct BoundSession {
    pub(super) actor: Actor,
    pub(super) token: String,
}

impl Caller {
    pub(in crate::server) fn new(connection: ConnectionToken, ip: IpAddr) -> Caller {
        Caller { connection, ip: ip.to_canonical(), session: None }
    }

    pub(in crate::server) fn is_logged_in(&self) -> bool {
        self.session.is_some()
    }

    /// The user of the session.
    pub(in crate::server) fn user(&self) -> Option<&UserId> {
        self.session.as_ref().map(|bound| &bound.actor.user)
    }
}

/// The session and node in whose name a request is carried out.
#[derive(Clone)]
pub(super) struct RequestContext {
    pub(super) actor: Actor,
    /// Where the request came from.
    pub(super) ip: IpAddr,
    /// The node with which the session shares files, if any.
    pub(super) node: Option<NodeEndpoint>,
    pub(super) request_id: Option<RequestId>,
}

impl RequestContext {
    /// The node, with the key of this request where it names one.
    pub(super) fn node(&self, peer_key: Option<PeerKey>) -> Option<NodeEndpoint> {
        self.node.map(|node| NodeEndpoint { address: node.address, peer_key: peer_key.or(node.peer_key) })
    }

    pub(super) fn sharing_node(&self, peer_key: Option<PeerKey>) -> Result<NodeEndpoint, RequestFailure> {
        let missing = "is missing: others must know where this node listens";
        self.node(peer_key).ok_or_else(|| RequestFailure::field("sender_port", missing))
    }

    pub(super) fn to_command(&self, now: ClockReading, action: LogAction) -> LogCommand {
        LogCommand::by(self.actor.clone(), now.unix_s, self.request_id, action)
    }
}

pub(in crate::server) struct Service {
    pub(super) state: ReplicatedState,
    pub(super) keys: DerivedKeys,
    pub(super) throttle: LoginThrottle,
    pub(super) address_checks: AddressCheckCounts,
    pub(super) tickets: TicketCache,
    pub(super) own_address: SocketAddr,
}

impl Service {
    /// The service of a cluster's only tracker, which answers at `own_address`.
    pub(in crate::server) fn new(
        keys: DerivedKeys,
        own_address: SocketAddr,
        state: ReplicatedState,
    ) -> Service {
        Service {
            state,
            keys,
            throttle: LoginThrottle::new(),
            address_checks: AddressCheckCounts::default(),
            tickets: TicketCache::default(),
            own_address,
        }
    }

    /// The epoch, which changes with the leader and is part of every answer.
    pub(in crate::server) fn epoch(&self) -> u64 {
        self.state.epoch()
    }

    pub(in crate::server) fn state(&mut self) -> &mut ReplicatedState {
        &mut self.state
    }

    /// Drops expired leases, rows, attempts and tickets. To be called regularly.
    pub(in crate::server) fn sweep(&mut self, now: ClockReading) {
        self.state.leases.sweep(now.ms);
        if self.state.has_expired_rows(now) {
            self.state.propose_housekeeping(LogCommand::anonymous(now.unix_s, LogAction::Expire));
        }
        self.throttle.sweep(now.ms);
        self.tickets.sweep(now.unix_s);
    }

    /// Unbinds the session from a connection that is closed or takes no more requests. A second call does
    /// nothing.
    pub(in crate::server) fn connection_closed(&mut self, caller: &mut Caller, now: ClockReading) {
        self.unbind_session(caller, now);
    }

    /// The context of a request, or `None` without a valid session. `peer_key` is the key that the request names. The
    /// second value is the request's node, if the state must record it first because it differs from the session's: a
    /// client may not have listened yet when it logged in.
    pub(super) fn authenticate(
        &mut self,
        caller: &mut Caller,
        sender: Option<ClaimedAddress>,
        peer_key: Option<PeerKey>,
        request_id: Option<RequestId>,
        now: ClockReading,
    ) -> Option<(RequestContext, Option<NodeEndpoint>)> {
        let actor = caller.session.as_ref()?.actor.clone();
        let Some(session) = self.state.session(actor.session, now.unix_s) else {
            self.unbind_if_readable(caller, now);
            return None;
        };
        let known_key = session.node.and_then(|node| node.peer_key).or(peer_key);
        let node = sender.map(|sender| claimed_holder(caller, sender, known_key)).or(session.node);
        let moved = node.filter(|node| session.node != Some(*node));
        Some((RequestContext { actor, ip: caller.ip, node, request_id }, moved))
    }

    /// Binds the connection to the session of a token.
    pub(super) fn resume_session(
        &mut self,
        caller: &mut Caller,
        token: &str,
        now: ClockReading,
    ) -> Result<(), RequestFailure> {
        if caller.session.as_ref().is_some_and(|bound| bound.token == token) {
            return Ok(());
        }
        let claims = session_token::verify_token(token, &self.keys.sessions, now.unix_s)
            .ok_or_else(replies::not_logged_in)?;
        let session = self.state.session(claims.session, now.unix_s);
        let holds = session.is_some_and(|session| {
            session.user == claims.user && session.password_epoch == claims.password_epoch
        });
        if !holds {
            return Err(replies::not_logged_in());
        }
        let actor = Actor { user: claims.user, session: claims.session };
        self.bind_session(caller, BoundSession { actor, token: token.to_owned() }, now);
        Ok(())
    }

    pub(super) fn bind_session(&mut self, caller: &mut Caller, bound: BoundSession, now: ClockReading) {
        self.unbind_session(caller, now);
        self.state.leases.open_connection(bound.actor.session, caller.connection.id(), now.ms);
        caller.session = Some(bound);
    }

    /// Unbinds a session that was not found from its connection, unless a failed read was the reason.
    pub(super) fn unbind_if_readable(&mut self, caller: &mut Caller, now: ClockReading) {
        if self.state.can_read() {
            self.unbind_session(caller, now);
        }
    }

    pub(super) fn unbind_session(&mut self, caller: &mut Caller, now: ClockReading) {
        if let Some(bound) = caller.session.take() {
            self.state.leases.close_connection(bound.actor.session, caller.connection.id(), now.ms);
        }
    }
}

/// The node that a client claims to be.
pub(super) fn claimed_holder(
    caller: &Caller,
    sender: ClaimedAddress,
    peer_key: Option<PeerKey>,
) -> NodeEndpoint {
    NodeEndpoint { address: address::share_address(caller.ip, sender), peer_key }
}
