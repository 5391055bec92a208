//! What every command's part builds on: the caller and its session, the steps of a request, and everything that requests
//! are decided by.

use std::net::{IpAddr, SocketAddr};

use engine::proto::ticket::PeerKey;

use crate::api::address::{self, Sender};
use crate::api::failure::Failure;
use crate::state::command::{Action, Command as Change};
use crate::state::id::{Actor, RequestId};
use crate::state::node::Holder;
use crate::state::outcome::{Outcome, Refusal};

use super::super::bodies::Build;
use super::super::clock::Now;
use super::super::keys::Keys;
use super::super::passwords;
use super::super::proposals::Proposals;
use super::super::session_token;
use super::super::slots::ConnectionToken;
use super::super::throttle::Throttle;
use super::super::tickets::Tickets;
use super::replies::{self, Reply};

/// What is to be done when something is ready.
pub(in crate::server) type Next<T> = Box<dyn FnOnce(&mut Service, &mut Caller, T, Now) -> Step>;

/// A decision of the state.
pub(in crate::server) type Decision = Result<Outcome, Refusal>;

/// What a request needs next.
pub(in crate::server) enum Step {
    /// Nothing: here is the answer.
    Answer(Box<Reply>),
    /// Here is the answer, to be sent this many milliseconds late.
    Late(Box<Reply>, u64),
    /// Much work that needs nothing but itself: it builds the answer beside the loop.
    Build(Build),
    /// More of a list, when others had their turns; so many bytes of it are built.
    More(usize, Next<()>),
    /// A password's hash.
    Password(passwords::Job, Next<passwords::Done>),
    /// A decision of the state.
    Propose(Box<Change>, Next<Decision>),
}

impl Step {
    /// An answer that is ready.
    pub(super) fn done(reply: Reply) -> Step {
        Step::Answer(Box::new(reply))
    }
}

/// The connection that a request came over.
pub(in crate::server) struct Caller {
    /// Its token.
    pub(in crate::server) connection: ConnectionToken,
    /// Its own address, unmapped.
    pub(in crate::server) ip: IpAddr,
    /// The session that its requests belong to.
    pub(super) session: Option<Bound>,
}

/// A connection's session, and the token that named it.
pub(in crate::server) struct Bound {
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
pub(super) struct Asked {
    pub(super) actor: Actor,
    /// The node that the session shares with, if any.
    pub(super) node: Option<Holder>,
    pub(super) request_id: Option<RequestId>,
}

impl Asked {
    /// The node, under the key that this request gives, if it gives one.
    pub(super) fn node(&self, peer_key: Option<PeerKey>) -> Option<Holder> {
        self.node.map(|node| Holder { address: node.address, peer_key: peer_key.or(node.peer_key) })
    }

    /// The node, for commands that share.
    pub(super) fn sharing_node(&self, peer_key: Option<PeerKey>) -> Result<Holder, Failure> {
        let missing = "is missing: others must know where this node listens";
        self.node(peer_key).ok_or_else(|| Failure::field("sender_port", missing))
    }

    /// The change that this request asks for.
    pub(super) fn change(&self, now: Now, action: Action) -> Box<Change> {
        Box::new(Change::by(self.actor.clone(), now.unix_s, self.request_id, action))
    }
}

/// Everything that requests are decided by.
pub(in crate::server) struct Service {
    pub(super) proposals: Proposals,
    pub(super) keys: Keys,
    pub(super) throttle: Throttle,
    pub(super) tickets: Tickets,
    pub(super) own: SocketAddr,
}

impl Service {
    /// A lone tracker that answers at `own`.
    pub(in crate::server) fn new(keys: Keys, own: SocketAddr, proposals: Proposals) -> Service {
        Service { proposals, keys, throttle: Throttle::default(), tickets: Tickets::default(), own }
    }

    /// Changes with the leader; stands in every answer.
    pub(in crate::server) fn epoch(&self) -> u64 {
        self.proposals.epoch()
    }

    /// The state.
    pub(in crate::server) fn proposals(&mut self) -> &mut Proposals {
        &mut self.proposals
    }

    /// Forgets what is long past. To be called now and then.
    pub(in crate::server) fn sweep(&mut self, now: Now) {
        self.proposals.leases.sweep(now.ms);
        self.proposals.propose_unasked(Change::anonymous(now.unix_s, Action::Expire));
        self.throttle.sweep(now.ms);
        self.tickets.sweep(now.unix_s);
    }

    /// A connection has ended, or takes no more requests; saying so twice does nothing.
    pub(in crate::server) fn closed(&mut self, caller: &mut Caller, now: Now) {
        self.unbind(caller, now);
    }

    /// Who asks; with the node that the session has to be told about first, when it is another than the state knows.
    pub(super) fn asked(
        &mut self,
        caller: &mut Caller,
        sender: Option<Sender>,
        request_id: Option<RequestId>,
        now: Now,
    ) -> Option<(Asked, Option<Holder>)> {
        let actor = caller.session.as_ref()?.actor.clone();
        let Some(session) = self.proposals.session(actor.session, now.unix_s) else {
            self.unbind_if_known(caller, now);
            return None;
        };
        let known_key = session.node.and_then(|node| node.peer_key);
        let node = sender.map(|sender| holder(caller, sender, known_key)).or(session.node);
        let moved = node.filter(|node| session.node != Some(*node));
        Some((Asked { actor, node, request_id }, moved))
    }

    /// Binds the connection to the session of a token.
    pub(super) fn resume(&mut self, caller: &mut Caller, token: &str, now: Now) -> Result<(), Failure> {
        if caller.session.as_ref().is_some_and(|bound| bound.token == token) {
            return Ok(());
        }
        let claims = session_token::verify(token, &self.keys.sessions, now.unix_s)
            .ok_or_else(replies::not_logged_in)?;
        let session = self.proposals.session(claims.session, now.unix_s);
        let holds = session.is_some_and(|session| {
            session.user == claims.user && session.password_epoch == claims.password_epoch
        });
        if !holds {
            return Err(replies::not_logged_in());
        }
        let actor = Actor { user: claims.user, session: claims.session };
        self.bind(caller, Bound { actor, token: token.to_owned() }, now);
        Ok(())
    }

    pub(super) fn bind(&mut self, caller: &mut Caller, bound: Bound, now: Now) {
        self.unbind(caller, now);
        self.proposals.leases.opened(bound.actor.session, caller.connection.id(), now.ms);
        caller.session = Some(bound);
    }

    /// Takes the session away that was not found, if that was for want of it: a read that failed finds nothing either.
    pub(super) fn unbind_if_known(&mut self, caller: &mut Caller, now: Now) {
        if self.proposals.can_read() {
            self.unbind(caller, now);
        }
    }

    pub(super) fn unbind(&mut self, caller: &mut Caller, now: Now) {
        if let Some(bound) = caller.session.take() {
            self.proposals.leases.closed(bound.actor.session, caller.connection.id(), now.ms);
        }
    }
}

/// The node that a connection claims to be.
pub(super) fn holder(caller: &Caller, sender: Sender, peer_key: Option<PeerKey>) -> Holder {
    Holder { address: address::share_address(caller.ip, sender), peer_key }
}
