//! The node's link to the trackers: keeps the session, finds its way back, asks one thing at a time.
//!
//! Invariants: a request that may have reached the tracker is sent again once at most, under the same request id, and
//! only when its connection had been idle before (the tracker may just have closed it). Work in the background keeps to
//! a pause that doubles; whoever asked gets a try at once. An answer counts only when it names its request; a connection
//! that said anything else is dropped, so no later question reads an earlier one's answer.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::lock::lock;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracker::api::UserId;
use tracker::api::address::ClaimedAddress;
use tracker::api::answers::LoginAnswer;
use tracker::api::failure::FailureCode;
use tracker::api::request::{Command, Password, Request};
use tracker::api::response::{ReceivedAnswer, ReceivedFailure};

use super::connection::TrackerConnection;
use super::{no_tracker_fault, refusal, tracker_addresses};
use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::SecretText;
use crate::limits;
use crate::node::peer::{LocalPeer, TrackerTrust};
use crate::node::state_dir::{SavedSession, StateDir};
use crate::printable::make_printable;

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestUrgency {
    /// A user: a lost tracker is tried at once.
    Immediate,
    /// Nobody: a lost tracker is tried when its pause is over.
    Background,
}

/// How the link is, told without waiting for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrackerStatus {
    /// The tracker that answered last.
    pub(crate) tracker: Option<SocketAddr>,
    /// Why there is none.
    pub(crate) trouble: Option<String>,
    /// The epoch of the last answer; when it changes, what only the trackers' memory held is to be told again.
    pub(crate) epoch: Option<u64>,
}

/// The link.
pub(crate) struct TrackerClient {
    named: Option<PathBuf>,
    state: Arc<StateDir>,
    peer: Arc<LocalPeer>,
    session: Mutex<Option<SavedSession>>,
    status: Mutex<TrackerStatus>,
    slot: Mutex<ConnectionSlot>,
    clock_was_doubted: AtomicBool,
}

struct ConnectionSlot {
    connection: Option<TrackerConnection>,
    id_stem: u64,
    ids: u64,
    pause: Duration,
    not_before: Option<Instant>,
}

impl TrackerClient {
    /// A link that is not connected yet, with the session that was kept, if one was.
    ///
    /// # Errors
    /// A fault when the system gives no random bytes.
    pub(crate) fn new(
        named: Option<PathBuf>,
        state: Arc<StateDir>,
        peer: Arc<LocalPeer>,
    ) -> Result<TrackerClient, ClientFault> {
        let id_stem = getrandom::u64().map_err(|error| ClientFault::no_random(&error))?;
        let session = state.session();
        if let Some(session) = &session {
            peer.set_trust(TrackerTrust { key: session.tracker_key(), clock_offset_s: 0 });
        }
        let pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        Ok(TrackerClient {
            named,
            state,
            peer,
            session: Mutex::new(session),
            status: Mutex::default(),
            slot: Mutex::new(ConnectionSlot { connection: None, id_stem, ids: 0, pause, not_before: None }),
            clock_was_doubted: AtomicBool::new(false),
        })
    }

    /// Who is logged in.
    pub(crate) fn user(&self) -> Option<String> {
        lock(&self.session).as_ref().map(|session| session.user.clone())
    }

    /// Who is logged in, or the fault that nobody is.
    ///
    /// # Errors
    /// Exit 3.
    pub(crate) fn require_user(&self) -> Result<String, ClientFault> {
        self.user().ok_or_else(|| {
            ClientFault::new(ExitCause::NotLoggedIn, "nobody is logged in here").fix("`login USER`")
        })
    }

    /// The trackers' addresses, as the file has them now.
    ///
    /// # Errors
    /// A usage fault when there is no file or it is wrong.
    pub(crate) fn find_addresses(&self) -> Result<Vec<SocketAddr>, ClientFault> {
        tracker_addresses(self.named.as_deref())
    }

    /// How the link is.
    pub(crate) fn status(&self) -> TrackerStatus {
        lock(&self.status).clone()
    }

    /// Asks, and reads the fields that the answer adds; with the tracker's message.
    ///
    /// # Errors
    /// The tracker's refusal, or that none can be reached.
    pub(crate) fn request<T: DeserializeOwned>(
        &self,
        command: Command,
        urgency: RequestUrgency,
    ) -> Result<(T, String), ClientFault> {
        self.request_for(None, command, urgency)
    }

    /// As [`TrackerClient::request`], in the name of `user` and of nobody else: whoever works in the background may find another
    /// user logged in by the time it is its turn.
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

    fn request_for<T: DeserializeOwned>(
        &self,
        user: Option<&str>,
        command: Command,
        urgency: RequestUrgency,
    ) -> Result<(T, String), ClientFault> {
        let mut wire = lock(&self.slot);
        // Read once the line is ours: this very session goes out with the request.
        let session = lock(&self.session).clone();
        if let Some(user) = user
            && session.as_ref().is_none_or(|session| session.user != user)
        {
            return Err(ClientFault::new(ExitCause::NotLoggedIn, format!("{user} is not logged in here"))
                .fix(format!("`login {user}`")));
        }
        let mut request = Request::new(command);
        request.request_id = Some(Value::String(wire.next_id()));
        request.session = session.as_ref().map(|session| session.token.clone());
        let outcome = self.exchange(&mut wire, request, urgency)?;
        drop(wire);
        match outcome {
            Ok(received) => {
                lock(&self.status).epoch = Some(received.epoch);
                let answer = received.answer().map_err(|bad| protocol_fault(&bad))?;
                Ok((answer, make_printable(&received.message)))
            }
            Err(refused) => Err(self.refused(refused, session)),
        }
    }

    /// Logs in, keeps the session, and tells the engine whose tickets count.
    ///
    /// # Errors
    /// As [`TrackerClient::request`]; or the session cannot be kept.
    pub(crate) fn login(&self, user: UserId, password: &SecretText) -> Result<String, ClientFault> {
        let name = user.to_string();
        let password = parse_password(password)?;
        let command = Command::Login { user, password, peer_key: Some(self.peer.key()) };
        let (answer, message): (LoginAnswer, String) = self.request(command, RequestUrgency::Immediate)?;
        let session = SavedSession { user: name, token: answer.session, tracker_key: answer.tracker_key.0 };
        self.peer.set_trust(TrackerTrust {
            key: answer.tracker_key,
            clock_offset_s: self.offset(answer.server_time),
        });
        self.state.save_session(&session)?;
        *lock(&self.session) = Some(session);
        Ok(message)
    }

    /// Forgets who is logged in.
    pub(crate) fn forget_session(&self) {
        *lock(&self.session) = None;
        self.state.forget_session();
    }

    /// Sets the engine's clock by the trackers'.
    pub(crate) fn learn_time(&self, server_time: u64) {
        if let Some(session) = lock(&self.session).as_ref() {
            self.peer.set_trust(TrackerTrust {
                key: session.tracker_key(),
                clock_offset_s: self.offset(server_time),
            });
        }
    }

    /// How far ahead the trackers' clock is, in seconds. What cannot be believed counts as no difference, and is said once.
    fn offset(&self, server_time: u64) -> i64 {
        let now = clock::unix_time_s();
        clock_offset(server_time, now).unwrap_or_else(|| {
            if !self.clock_was_doubted.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the tracker's clock says {server_time} s since 1970, this machine's {now} s: more than a year apart, \
                     so the tracker's is not believed; set the clock that is wrong"
                );
            }
            0
        })
    }

    /// Sends the request on the open connection, or on a new one, and gives what came of it. A connection on which
    /// anything went wrong is dropped.
    fn exchange(
        &self,
        wire: &mut ConnectionSlot,
        mut request: Request,
        urgency: RequestUrgency,
    ) -> Result<Outcome, ClientFault> {
        if let Some(mut line) = wire.connection.take() {
            request.sender = self.sender(&line);
            match send_request(&mut line, &request) {
                Ok(outcome) => {
                    wire.connection = Some(line);
                    return Ok(outcome);
                }
                Err(ExchangeError::Foreign(fault)) => return Err(fault),
                Err(ExchangeError::Broken(error)) => {
                    tracing::info!("the connection to {} broke: {error}", line.address());
                }
                Err(ExchangeError::TurnedAway(refused)) => {
                    let message = make_printable(&refused.failure.message);
                    tracing::info!("{} ended the connection: {message}", line.address());
                }
            }
        }
        let mut line = self.connect(wire, urgency)?;
        request.sender = self.sender(&line);
        match present_session(&mut line, &request).and_then(|()| send_request(&mut line, &request)) {
            Ok(outcome) => {
                wire.connection = Some(line);
                Ok(outcome)
            }
            Err(ExchangeError::Foreign(fault)) => Err(fault),
            Err(ExchangeError::TurnedAway(refused)) => Ok(Err(refused)),
            Err(ExchangeError::Broken(error)) => {
                Err(self.lost(wire, &format!("{}: {error}", line.address())))
            }
        }
    }

    fn connect(
        &self,
        wire: &mut ConnectionSlot,
        urgency: RequestUrgency,
    ) -> Result<TrackerConnection, ClientFault> {
        let too_early = wire.not_before.is_some_and(|at| clock::now() < at);
        if urgency == RequestUrgency::Background && too_early {
            return Err(no_tracker_fault(&self.status().trouble.unwrap_or_default()));
        }
        let addresses = self.find_addresses().inspect_err(|fault| {
            lock(&self.status).trouble = Some(fault.message.clone());
        })?;
        match TrackerConnection::connect_first(&addresses) {
            Ok(line) => {
                wire.reset_pause();
                let mut view = lock(&self.status);
                view.tracker = Some(line.address());
                view.trouble = None;
                drop(view);
                Ok(line)
            }
            Err(tried) => Err(self.lost(wire, &tried)),
        }
    }

    fn lost(&self, wire: &mut ConnectionSlot, tried: &str) -> ClientFault {
        wire.back_off(clock::now());
        let mut view = lock(&self.status);
        view.tracker = None;
        view.trouble = Some(tried.to_owned());
        no_tracker_fault(tried)
    }

    fn refused(&self, refused: ReceivedFailure, sent: Option<SavedSession>) -> ClientFault {
        lock(&self.status).epoch = Some(refused.epoch);
        if refused.failure.code == FailureCode::NotLoggedIn
            && let Some(sent) = sent
        {
            let mut session = lock(&self.session);
            // Another thread may have logged in meanwhile.
            if *session == Some(sent) {
                *session = None;
                self.state.forget_session();
            }
        }
        refusal::refusal_fault(refused.failure, refused.request_id.is_some())
    }

    fn sender(&self, line: &TrackerConnection) -> Option<ClaimedAddress> {
        let address = self.peer.announced_address(line.local())?;
        Some(ClaimedAddress { ip: Some(address.ip()), port: address.port() })
    }
}

impl ConnectionSlot {
    fn next_id(&mut self) -> String {
        self.ids += 1;
        format!("{:016x}-{}", self.id_stem, self.ids)
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

/// A password as the protocol takes it.
///
/// # Errors
/// A usage fault when it is empty or too long.
pub(crate) fn parse_password(secret: &SecretText) -> Result<Password, ClientFault> {
    Password::new(&secret.0).ok_or_else(|| {
        ClientFault::new(ExitCause::Usage, "a password has 1 to 1,024 bytes").fix("choose another one")
    })
}

/// What a tracker said to one request.
type Outcome = Result<ReceivedAnswer, ReceivedFailure>;

/// Why a request has no answer. The connection is of no more use.
enum ExchangeError {
    /// It failed.
    Broken(io::Error),
    /// What came is not this request's answer.
    Foreign(ClientFault),
    /// The tracker refused without naming a request: it speaks of the connection.
    TurnedAway(ReceivedFailure),
}

/// Sends a request and reads its answer, which must name it.
fn send_request(line: &mut TrackerConnection, request: &Request) -> Result<Outcome, ExchangeError> {
    let text = line.exchange(&request.to_json()).map_err(|error| match error.kind() {
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

/// Asks whoever listens at an address whether it is a tracker that answers.
///
/// # Errors
/// Why not, for people.
pub(crate) fn ping_tracker(address: SocketAddr) -> Result<(), String> {
    let mut ping = Request::new(Command::Ping);
    ping.request_id = Some("ping".into());
    let line = TrackerConnection::connect(address).map_err(|error| error.to_string())?;
    match send_request(&mut line.with_timeout(limits::TRACKER_PING_TIMEOUT_MS), &ping) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refused)) | Err(ExchangeError::TurnedAway(refused)) => {
            Err(make_printable(&refused.failure.message))
        }
        Err(ExchangeError::Broken(error)) => {
            Err(format!("something listens there, but gives no answer: {error}"))
        }
        Err(ExchangeError::Foreign(_)) => Err("what listens there is no tracker of this version".to_owned()),
    }
}

/// Shows the session on a new connection before the request itself, which may be larger than a tracker takes from a
/// stranger. Whatever this is answered, the request gets the answer that counts.
fn present_session(line: &mut TrackerConnection, request: &Request) -> Result<(), ExchangeError> {
    if request.session.is_none() {
        return Ok(());
    }
    let mut ping = Request::new(Command::Ping);
    // Its own id: the tracker remembers what it answered to each.
    ping.request_id =
        request.request_id.as_ref().and_then(Value::as_str).map(|id| format!("{id}-resume").into());
    ping.session.clone_from(&request.session);
    ping.sender.clone_from(&request.sender);
    send_request(line, &ping).map(drop)
}

/// What a tracker sent is not of this protocol; the reason may quote it.
fn protocol_fault(bad: &dyn std::fmt::Display) -> ClientFault {
    ClientFault::new(ExitCause::Protocol, make_printable(&bad.to_string()))
        .fix("see that `--trackers FILE` names trackers of this version")
}

/// The trackers' clock minus ours, in seconds; `None` when they differ by more than clocks do.
fn clock_offset(server_time: u64, now: u64) -> Option<i64> {
    let apart = i64::try_from(server_time.abs_diff(now)).ok()?;
    let believed = apart.unsigned_abs() <= limits::CLOCK_OFFSET_MAX_S;
    believed.then_some(if server_time < now { -apart } else { apart })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_begin_anew() {
        let pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        let mut wire = ConnectionSlot { connection: None, id_stem: 1, ids: 0, pause, not_before: None };
        let now = clock::now();
        let pauses: Vec<u128> = (0..7)
            .map(|_| {
                wire.back_off(now);
                wire.not_before.unwrap().duration_since(now).as_millis()
            })
            .collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        wire.reset_pause();
        assert_eq!((wire.pause, wire.not_before), (pause, None));
    }

    #[test]
    fn request_ids_differ() {
        let mut wire =
            ConnectionSlot { connection: None, id_stem: 1, ids: 0, pause: Duration::ZERO, not_before: None };
        assert_ne!(wire.next_id(), wire.next_id());
    }

    #[test]
    fn a_clock_is_believed_up_to_a_year() {
        let year = limits::CLOCK_OFFSET_MAX_S;
        let now = 2 * year;
        for (theirs, believed) in [
            (now, Some(0)),
            (now - 5, Some(-5)),
            (now + year, i64::try_from(year).ok()),
            (now + year + 1, None),
            (1, None),
            (u64::MAX, None),
        ] {
            assert_eq!(clock_offset(theirs, now), believed, "{theirs}");
        }
    }
}
