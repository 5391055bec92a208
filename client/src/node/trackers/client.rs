//! The node's client for the trackers: holds the session, reconnects, and sends one request at a time.
//!
//! A request that may have reached the tracker is sent again at most once, with the same request id, and only if its
//! connection had been idle before (the tracker may just have closed it). Background requests respect a pause that doubles;
//! a user's request is tried at once. An answer counts only if it names its request; after any other message the connection
//! is dropped, so that no later request reads an earlier one's answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::lock::lock;
use engine::proto::ticket::TrackerKey;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracker::api::UserId;
use tracker::api::address::ClaimedAddress;
use tracker::api::answers::LoginAnswer;
use tracker::api::failure::FailureCode;
use tracker::api::request::{Command, Password, Request};
use tracker::api::response::{ReceivedAnswer, ReceivedFailure};

use super::connection::TrackerConnection;
use super::locator::{FoundTrackers, TrackerLocator};
use super::{no_tracker_fault, refusal};
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::node::disk::state_dir::{SavedSession, StateDir};
use crate::node::peer::{LocalPeer, TrackerTrust};
use crate::node::tracker_time::ToldTime;
use crate::printable::make_printable;

/// Whether a user waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestUrgency {
    /// A user waits: reconnects at once.
    Immediate,
    /// No user waits: reconnects after the pause.
    Background,
}

/// State of the connection, readable while a request is running.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrackerStatus {
    pub(crate) tracker: Option<SocketAddr>,
    /// Why no tracker is connected.
    pub(crate) trouble: Option<String>,
    /// Epoch of the last answer. When it changes, the trackers lost what they hold in memory, and it must be sent again.
    pub(crate) epoch: Option<u64>,
}

/// The client for the trackers.
pub(crate) struct TrackerClient {
    locator: TrackerLocator,
    state: Arc<StateDir>,
    peer: Arc<LocalPeer>,
    session: Mutex<Option<SavedSession>>,
    status: Mutex<TrackerStatus>,
    slot: Mutex<ConnectionSlot>,
    saved_time: Mutex<Option<ToldTime>>,
}

struct ConnectionSlot {
    connection: Option<TrackerConnection>,
    /// Where this node listened when its session was presented on the connection.
    presented_sender: Option<ClaimedAddress>,
    id_stem: u64,
    ids: u64,
    pause: Duration,
    not_before: Option<Instant>,
}

impl TrackerClient {
    /// A client that is not connected yet, with the saved session.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn new(
        locator: TrackerLocator,
        state: Arc<StateDir>,
        peer: Arc<LocalPeer>,
    ) -> Result<TrackerClient, ClientFault> {
        let id_stem = getrandom::u64().map_err(|error| ClientFault::no_random(&error))?;
        let (session, saved_time) = (state.session(), state.told_time());
        if let Some(session) = &session {
            peer.set_trust(TrackerTrust { key: session.tracker_key(), told_time: saved_time.clone() });
        }
        Ok(TrackerClient {
            locator,
            state,
            peer,
            session: Mutex::new(session),
            status: Mutex::default(),
            slot: Mutex::new(ConnectionSlot::new(id_stem)),
            saved_time: Mutex::new(saved_time),
        })
    }

    /// The logged-in user.
    pub(crate) fn user(&self) -> Option<String> {
        lock(&self.session).as_ref().map(|session| session.user.clone())
    }

    /// The logged-in user.
    ///
    /// # Errors
    /// Exit 3 if no user is logged in.
    pub(crate) fn require_user(&self) -> Result<String, ClientFault> {
        self.user().ok_or_else(|| {
            ClientFault::new(ExitCause::NotLoggedIn, "no user is logged in here")
                .fix("`login USER`, or `create_user USER` for a new account")
        })
    }

    /// The trackers to use now.
    ///
    /// # Errors
    /// A usage error when there are none, or their file is invalid.
    pub(crate) fn find_trackers(&self) -> Result<FoundTrackers, ClientFault> {
        self.locator.find()
    }

    /// Keeps the trackers of a login for later commands in other directories.
    fn remember_trackers(&self) {
        let found = self.find_trackers().ok();
        if let Some(text) = found.and_then(|found| found.to_remembered())
            && let Err(fault) = self.state.save_trackers(&text)
        {
            tracing::warn!("the trackers' addresses are not remembered: {fault}");
        }
    }

    /// The connection's state.
    pub(crate) fn status(&self) -> TrackerStatus {
        lock(&self.status).clone()
    }

    /// Sends a command; returns the fields of its answer and the tracker's message.
    ///
    /// # Errors
    /// The tracker's refusal, or that no tracker can be reached.
    pub(crate) fn request<T: DeserializeOwned>(
        &self,
        command: Command,
        urgency: RequestUrgency,
    ) -> Result<(T, String), ClientFault> {
        self.request_for(None, command, urgency)
    }

    /// Like [`TrackerClient::request`], but only in the session of `user`: by the time that background work gets its turn, another
    /// user may be logged in.
    ///
    /// # Errors
    /// As [`TrackerClient::request`]; exit 3 when `user` is not logged in.
    pub(crate) fn request_as<T: DeserializeOwned>(
        &self,
        user: &str,
        command: Command,
        urgency: RequestUrgency,
    ) -> Result<(T, String), ClientFault> {
        self.request_for(Some(user), command, urgency)
    }

    /// Sends a command of the session on a connection of its own, since its answer may take seconds.
    ///
    /// # Errors
    /// Exit 3 if no user is logged in; the tracker's refusal, or that no tracker can be reached.
    pub(crate) fn request_separately<T: DeserializeOwned>(&self, command: Command) -> Result<T, ClientFault> {
        self.require_user()?;
        let found = self.find_trackers()?.resolve();
        let tried = found.and_then(|addresses| TrackerConnection::connect_first(&addresses));
        let mut connection = tried.map_err(|tried| no_tracker_fault(&tried))?;
        let mut request = Request::new(command);
        request.session = lock(&self.session).as_ref().map(|session| session.token.clone());
        request.sender = self.sender(&connection);
        match send_request(&mut connection, &request) {
            Ok(Ok(received)) => received.answer().map_err(|bad| protocol_fault(&bad)),
            Ok(Err(refused)) | Err(ExchangeError::TurnedAway(refused)) => {
                Err(refusal::refusal_fault(refused.failure, true))
            }
            Err(ExchangeError::Foreign(fault)) => Err(fault),
            Err(ExchangeError::Broken(error)) => Err(no_tracker_fault(&error.to_string())),
        }
    }

    fn request_for<T: DeserializeOwned>(
        &self,
        user: Option<&str>,
        command: Command,
        urgency: RequestUrgency,
    ) -> Result<(T, String), ClientFault> {
        let mut slot = lock(&self.slot);
        // Read while the connection is locked: exactly this session goes out with the request.
        let session = lock(&self.session).clone();
        if let Some(user) = user
            && session.as_ref().is_none_or(|session| session.user != user)
        {
            return Err(ClientFault::new(ExitCause::NotLoggedIn, format!("{user} is not logged in here"))
                .fix(format!("`login {user}`")));
        }
        let mut request = Request::new(command);
        request.request_id = Some(Value::String(slot.next_id()));
        request.session = session.as_ref().map(|session| session.token.clone());
        let outcome = self.exchange(&mut slot, request, urgency)?;
        drop(slot);
        match outcome {
            Ok(received) => {
                lock(&self.status).epoch = Some(received.epoch);
                let answer = received.answer().map_err(|bad| protocol_fault(&bad))?;
                Ok((answer, make_printable(&received.message)))
            }
            Err(refused) => Err(self.refused(refused, session)),
        }
    }

    /// Logs in, saves the session, and gives the engine the key that verifies tickets.
    ///
    /// # Errors
    /// As [`TrackerClient::request`]; or the session cannot be saved.
    pub(crate) fn log_in(&self, user: UserId, password: Password) -> Result<String, ClientFault> {
        let name = user.to_string();
        let command = Command::Login { user, password, peer_key: Some(self.peer.key()) };
        let (answer, message): (LoginAnswer, String) = self.request(command, RequestUrgency::Immediate)?;
        let session = SavedSession { user: name, token: answer.session, tracker_key: answer.tracker_key.0 };
        self.trust_tracker(answer.tracker_key, answer.server_time);
        self.state.save_session(&session)?;
        self.remember_trackers();
        *lock(&self.session) = Some(session);
        Ok(message)
    }

    /// Ends the local session.
    pub(crate) fn forget_session(&self) {
        *lock(&self.session) = None;
        self.state.forget_session();
    }

    /// Sets the engine's time of day to what a tracker has just told.
    pub(crate) fn learn_time(&self, server_time: u64) {
        if let Some(session) = lock(&self.session).as_ref() {
            self.trust_tracker(session.tracker_key(), server_time);
        }
    }

    /// Lets the engine verify tickets by this key and time, and saves the time now and then for the next process.
    fn trust_tracker(&self, key: TrackerKey, server_time: u64) {
        let told = ToldTime::new(server_time, clock::read_clocks());
        self.peer.set_trust(TrackerTrust { key, told_time: Some(told.clone()) });
        let mut saved = lock(&self.saved_time);
        let is_recent = |saved: &ToldTime| {
            saved.boot_id == told.boot_id
                && told.server_time.abs_diff(saved.server_time) < limits::TRACKER_TIME_SAVE_EVERY_S
        };
        if saved.as_ref().is_some_and(is_recent) {
            return;
        }
        match self.state.save_told_time(&told) {
            Ok(()) => *saved = Some(told),
            Err(fault) => tracing::warn!("the trackers' time is not saved: {fault}"),
        }
    }

    /// Sends the request on the open connection, or on a new one. After any error the connection is dropped.
    fn exchange(
        &self,
        slot: &mut ConnectionSlot,
        mut request: Request,
        urgency: RequestUrgency,
    ) -> Result<Outcome, ClientFault> {
        if let Some(mut connection) = slot.connection.take() {
            request.sender = self.sender(&connection);
            match slot.send(&mut connection, &request, false) {
                Ok(outcome) => {
                    slot.connection = Some(connection);
                    return Ok(outcome);
                }
                Err(ExchangeError::Foreign(fault)) => return Err(fault),
                Err(ExchangeError::Broken(error)) => {
                    tracing::info!("the connection to {} broke: {error}", connection.address());
                }
                Err(ExchangeError::TurnedAway(refused)) => {
                    let message = make_printable(&refused.failure.message);
                    tracing::info!("{} ended the connection: {message}", connection.address());
                }
            }
        }
        let mut connection = self.connect(slot, urgency)?;
        request.sender = self.sender(&connection);
        match slot.send(&mut connection, &request, true) {
            Ok(outcome) => {
                slot.connection = Some(connection);
                Ok(outcome)
            }
            Err(ExchangeError::Foreign(fault)) => Err(fault),
            Err(ExchangeError::TurnedAway(refused)) => Ok(Err(refused)),
            Err(ExchangeError::Broken(error)) => {
                Err(self.lost(slot, &format!("{}: {error}", connection.address())))
            }
        }
    }

    fn connect(
        &self,
        slot: &mut ConnectionSlot,
        urgency: RequestUrgency,
    ) -> Result<TrackerConnection, ClientFault> {
        if urgency == RequestUrgency::Immediate {
            // A user who tries again expects that background work tries again soon, too.
            slot.reset_pause();
        }
        let too_early = slot.not_before.is_some_and(|at| clock::now() < at);
        if urgency == RequestUrgency::Background && too_early {
            return Err(no_tracker_fault(&self.status().trouble.unwrap_or_default()));
        }
        let found = self.find_trackers().inspect_err(|fault| {
            lock(&self.status).trouble = Some(fault.message.clone());
        })?;
        match found.resolve().and_then(|addresses| TrackerConnection::connect_first(&addresses)) {
            Ok(connection) => {
                slot.reset_pause();
                let mut status = lock(&self.status);
                status.tracker = Some(connection.address());
                status.trouble = None;
                drop(status);
                Ok(connection)
            }
            Err(tried) => Err(self.lost(slot, &format!("{tried}; {}", found.source()))),
        }
    }

    fn lost(&self, slot: &mut ConnectionSlot, tried: &str) -> ClientFault {
        slot.back_off(clock::now());
        let mut status = lock(&self.status);
        status.tracker = None;
        status.trouble = Some(tried.to_owned());
        no_tracker_fault(tried)
    }

    fn refused(&self, refused: ReceivedFailure, sent: Option<SavedSession>) -> ClientFault {
        lock(&self.status).epoch = Some(refused.epoch);
        if refused.failure.code == FailureCode::NotLoggedIn
            && let Some(sent) = sent
        {
            let mut session = lock(&self.session);
            // Another thread may have logged in since.
            if *session == Some(sent) {
                *session = None;
                self.state.forget_session();
            }
        }
        refusal::refusal_fault(refused.failure, refused.request_id.is_some())
    }

    fn sender(&self, connection: &TrackerConnection) -> Option<ClaimedAddress> {
        let address = self.peer.announced_address(connection.local())?;
        Some(ClaimedAddress { ip: Some(address.ip()), port: address.port() })
    }
}

impl ConnectionSlot {
    fn new(id_stem: u64) -> ConnectionSlot {
        let pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        ConnectionSlot { connection: None, presented_sender: None, id_stem, ids: 0, pause, not_before: None }
    }

    fn next_id(&mut self) -> String {
        self.ids += 1;
        format!("{:016x}-{}", self.id_stem, self.ids)
    }

    /// Sends a request. Presents the session first on a new connection, and when the node listens elsewhere than before.
    fn send(
        &mut self,
        connection: &mut TrackerConnection,
        request: &Request,
        is_new: bool,
    ) -> Result<Outcome, ExchangeError> {
        if is_new || self.presented_sender != request.sender {
            present_session(connection, request)?;
            self.presented_sender = request.sender;
        }
        send_request(connection, request)
    }

    fn reset_pause(&mut self) {
        self.pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        self.not_before = None;
    }

    fn back_off(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(limits::RECONNECT_MAX_MS));
    }
}

/// A tracker's answer to one request.
type Outcome = Result<ReceivedAnswer, ReceivedFailure>;

/// Why a request has no answer. The connection must be dropped.
enum ExchangeError {
    /// The connection failed.
    Broken(io::Error),
    /// The message is not the answer to this request.
    Foreign(ClientFault),
    /// The tracker refused the connection: no request is named.
    TurnedAway(ReceivedFailure),
}

/// Sends a request and reads its answer, which must name it.
fn send_request(connection: &mut TrackerConnection, request: &Request) -> Result<Outcome, ExchangeError> {
    let text = connection.exchange(&request.to_json()).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => ExchangeError::Foreign(protocol_fault(&error)),
        _ => ExchangeError::Broken(error),
    })?;
    let outcome = ReceivedAnswer::parse(&text).map_err(|bad| ExchangeError::Foreign(protocol_fault(&bad)))?;
    let named = match &outcome {
        Ok(received) => &received.request_id,
        Err(refused) => &refused.request_id,
    };
    if *named == request.request_id {
        return Ok(outcome);
    }
    match outcome {
        Err(refused) if refused.request_id.is_none() => Err(ExchangeError::TurnedAway(refused)),
        _ => Err(ExchangeError::Foreign(protocol_fault(&"the tracker answered another request"))),
    }
}

/// Checks whether a tracker answers at an address.
///
/// # Errors
/// Why not, for users.
pub(crate) fn ping_tracker(address: SocketAddr) -> Result<(), String> {
    let mut ping = Request::new(Command::Ping);
    ping.request_id = Some("ping".into());
    let connection = TrackerConnection::connect(address).map_err(|error| error.to_string())?;
    match send_request(&mut connection.with_timeout(limits::TRACKER_PING_TIMEOUT_MS), &ping) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refused)) | Err(ExchangeError::TurnedAway(refused)) => {
            Err(make_printable(&refused.failure.message))
        }
        Err(ExchangeError::Broken(error)) => {
            Err(format!("a server listens there but does not answer: {error}"))
        }
        Err(ExchangeError::Foreign(_)) => Err("the server there is not a tracker of this version".to_owned()),
    }
}

/// Presents the session before the request itself, which may be longer than a tracker accepts without a session. A node that
/// does not listen says that it is offline, so that no peer is sent to it. Only the request's own answer counts.
fn present_session(connection: &mut TrackerConnection, request: &Request) -> Result<(), ExchangeError> {
    if request.session.is_none() {
        return Ok(());
    }
    let command = if request.sender.is_some() { Command::Ping } else { Command::GoOffline };
    let mut presenting = Request::new(command);
    // Needs its own id: the tracker stores the answer to each id.
    presenting.request_id =
        request.request_id.as_ref().and_then(Value::as_str).map(|id| format!("{id}-resume").into());
    presenting.session.clone_from(&request.session);
    presenting.sender = request.sender;
    send_request(connection, &presenting).map(drop)
}

/// A message that is not of this protocol; `bad` may quote it.
fn protocol_fault(bad: &dyn std::fmt::Display) -> ClientFault {
    ClientFault::new(ExitCause::Protocol, make_printable(&bad.to_string()))
        .fix("check that `--trackers` names trackers of this version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_reset() {
        let pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        let mut slot = ConnectionSlot::new(1);
        let now = clock::now();
        let pauses: Vec<u128> = (0..7)
            .map(|_| {
                slot.back_off(now);
                slot.not_before.unwrap().duration_since(now).as_millis()
            })
            .collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        slot.reset_pause();
        assert_eq!((slot.pause, slot.not_before), (pause, None));
    }

    #[test]
    fn request_ids_differ() {
        let mut slot = ConnectionSlot::new(1);
        assert_ne!(slot.next_id(), slot.next_id());
    }
}
