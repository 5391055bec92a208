//! What every command's part builds on: the caller and its session, the steps of a request, and everything that requests
//! are decided by.

use std::net::{IpAddr, SocketAddr};

use engine::proto::ticket::PeerKey;

use crate::api::address::{self, ClaimedAddress};
use crate::api::failure::RequestFailure;
use crate::state::command::{LogAction, LogCommand as Change};
use crate::state::id::{Actor, RequestId};
use crate::state::node::NodeEndpoint;
use crate::state::outcome::{CommandOutcome, CommandRefusal};

use super::super::bodies::AnswerBuilder;
use super::super::clock::ClockReading;
use super::super::keys::DerivedKeys;
use super::super::passwords;
use super::super::replicated_state::ReplicatedState;
use super::super::session_token;
use super::super::slots::ConnectionToken;
use super::super::throttle::LoginThrottle;
use super::super::tickets::TicketCache;
use super::replies::{self, Reply};

/// What is to be done when something is ready.
pub(in crate::server) type Continuation<T> =
    Box<dyn FnOnce(&mut Service, &mut Caller, T, ClockReading) -> RequestStep>;

/// A decision of the state.
pub(in crate::server) type Decision = Result<CommandOutcome, CommandRefusal>;

/// What a request needs next.
pub(in crate::server) enum RequestStep {
    /// Nothing: here is the answer.
    Answer(Box<Reply>),
    /// Here is the answer, to be sent this many milliseconds late.
    DelayedAnswer(Box<Reply>, u64),
    /// Much work that needs nothing but itself: it builds the answer beside the loop.
    BuildAnswer(AnswerBuilder),
    /// More of a list, when others had their turns; so many bytes of it are built.
    ContinueList(usize, Continuation<()>),
    /// A password's hash.
    Password(passwords::PasswordJob, Continuation<passwords::PasswordResult>),
    /// A decision of the state.
    Propose(Box<Change>, Continuation<Decision>),
}

impl RequestStep {
    /// An answer that is ready.
    pub(super) fn answer(reply: Reply) -> RequestStep {
        RequestStep::Answer(Box::new(reply))
    }
}

/// The connection that a request came over.
pub(in crate::server) struct Caller {
    /// Its token.
    pub(in crate::server) connection: ConnectionToken,
    /// Its own address, unmapped.
    pub(in crate::server) ip: IpAddr,
    /// The session that its requests belong to.
    pub(super) session: Option<BoundSession>,
}

/// A connection's session, and the token that named it.
pub(in crate::server) struct BoundSession {
    pub(super) actor: Actor,
    pub(super) token: String,
}

impl Caller {
    /// A connection before login.
    pub(in crate::server) fn new(connection: ConnectionToken, ip: IpAddr) -> Caller {
        Caller { connection, ip: ip.to_canonical(), session: None }
    }

    /// Whether its requests belong to a session.
    pub(in crate::server) fn is_logged_in(&self) -> bool {
        self.session.is_some()
    }
}

/// A request of a session that holds.
#[derive(Clone)]
pub(super) struct RequestContext {
    pub(super) actor: Actor,
    /// The node that the session shares with, if any.
    pub(super) node: Option<NodeEndpoint>,
    pub(super) request_id: Option<RequestId>,
}

impl RequestContext {
    /// The node, under the key that this request gives, if it gives one.
    pub(super) fn node(&self, peer_key: Option<PeerKey>) -> Option<NodeEndpoint> {
        self.node.map(|node| NodeEndpoint { address: node.address, peer_key: peer_key.or(node.peer_key) })
    }

    /// The node, for commands that share.
    pub(super) fn sharing_node(&self, peer_key: Option<PeerKey>) -> Result<NodeEndpoint, RequestFailure> {
        let missing = "is missing: others must know where this node listens";
        self.node(peer_key).ok_or_else(|| RequestFailure::field("sender_port", missing))
    }

    /// The change that this request asks for.
    pub(super) fn to_command(&self, now: ClockReading, action: LogAction) -> Box<Change> {
        Box::new(Change::by(self.actor.clone(), now.unix_s, self.request_id, action))
    }
}

/// Everything that requests are decided by.
pub(in crate::server) struct Service {
    pub(super) state: ReplicatedState,
    pub(super) keys: DerivedKeys,
    pub(super) throttle: LoginThrottle,
    pub(super) tickets: TicketCache,
    pub(super) own_address: SocketAddr,
}

impl Service {
    /// A lone tracker that answers at `own`.
    pub(in crate::server) fn new(
        keys: DerivedKeys,
        own_address: SocketAddr,
        state: ReplicatedState,
    ) -> Service {
        Service {
            state,
            keys,
            throttle: LoginThrottle::default(),
            tickets: TicketCache::default(),
            own_address,
        }
    }

    /// Changes with the leader; stands in every answer.
    pub(in crate::server) fn epoch(&self) -> u64 {
        self.state.epoch()
    }

    /// The state.
    pub(in crate::server) fn state(&mut self) -> &mut ReplicatedState {
        &mut self.state
    }

    /// Forgets what is long past. To be called now and then.
    pub(in crate::server) fn sweep(&mut self, now: ClockReading) {
        self.state.leases.sweep(now.ms);
        self.state.propose_housekeeping(Change::anonymous(now.unix_s, LogAction::Expire));
        self.throttle.sweep(now.ms);
        self.tickets.sweep(now.unix_s);
    }

    /// A connection has ended, or takes no more requests; saying so twice does nothing.
    pub(in crate::server) fn connection_closed(&mut self, caller: &mut Caller, now: ClockReading) {
        self.unbind_session(caller, now);
    }

    /// Who asks; with the node that the session has to be told about first, when it is another than the state knows.
    pub(super) fn authenticate(
        &mut self,
        caller: &mut Caller,
        sender: Option<ClaimedAddress>,
        request_id: Option<RequestId>,
        now: ClockReading,
    ) -> Option<(RequestContext, Option<NodeEndpoint>)> {
        let actor = caller.session.as_ref()?.actor.clone();
        let Some(session) = self.state.session(actor.session, now.unix_s) else {
            self.unbind_if_readable(caller, now);
            return None;
        };
        let known_key = session.node.and_then(|node| node.peer_key);
        let node = sender.map(|sender| claimed_holder(caller, sender, known_key)).or(session.node);
        let moved = node.filter(|node| session.node != Some(*node));
        Some((RequestContext { actor, node, request_id }, moved))
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

    /// Takes the session away that was not found, if that was for want of it: a read that failed finds nothing either.
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

/// The node that a connection claims to be.
pub(super) fn claimed_holder(
    caller: &Caller,
    sender: ClaimedAddress,
    peer_key: Option<PeerKey>,
) -> NodeEndpoint {
    NodeEndpoint { address: address::share_address(caller.ip, sender), peer_key }
}
