//! The node's link to the trackers: keeps the session, finds its way back, asks one thing at a time.
//!
//! Invariants: a request that may have reached the tracker is sent again once at most, under the same request id, and
//! only when its connection had been idle before (the tracker may just have closed it). Work in the background keeps to
//! a pause that doubles; whoever asked gets a try at once.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tracker::api::UserId;
use tracker::api::address::Sender;
use tracker::api::answers::LoginAnswer;
use tracker::api::failure::FailureCode;
use tracker::api::request::{Command, Password, Request};
use tracker::api::response::{BadResponse, Received, Refused};

use super::line::Line;
use super::{addresses, refusal, unreachable};
use crate::clock;
use crate::exit::{Exit, Fault};
use crate::front::protocol::Secret;
use crate::limits;
use crate::lock::lock;
use crate::node::peer::{Peer, Trust};
use crate::node::state::{SavedSession, StateDir};

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A user: a lost tracker is tried at once.
    Asked,
    /// Nobody: a lost tracker is tried when its pause is over.
    Background,
}

/// How the link is, told without waiting for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The tracker that answered last.
    pub(crate) tracker: Option<SocketAddr>,
    /// Why there is none.
    pub(crate) trouble: Option<String>,
    /// The epoch of the last answer; when it changes, what only the trackers' memory held is to be told again.
    pub(crate) epoch: Option<u64>,
}

/// The link.
pub(crate) struct TrackerLink {
    named: Option<PathBuf>,
    state: Arc<StateDir>,
    peer: Arc<Peer>,
    session: Mutex<Option<SavedSession>>,
    view: Mutex<View>,
    wire: Mutex<Wire>,
}

struct Wire {
    line: Option<Line>,
    id_stem: u64,
    ids: u64,
    pause: Duration,
    not_before: Option<Instant>,
}

impl TrackerLink {
    /// A link that is not connected yet, with the session that was kept, if one was.
    ///
    /// # Errors
    /// A fault when the system gives no random bytes.
    pub(crate) fn new(
        named: Option<PathBuf>,
        state: Arc<StateDir>,
        peer: Arc<Peer>,
    ) -> Result<TrackerLink, Fault> {
        let id_stem = getrandom::u64().map_err(|error| {
            Fault::new(Exit::LocalIo, format!("the system gives no random bytes: {error}"))
        })?;
        let session = state.session();
        if let Some(session) = &session {
            peer.trust(Trust { key: session.tracker_key(), clock_offset_s: 0 });
        }
        let pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        Ok(TrackerLink {
            named,
            state,
            peer,
            session: Mutex::new(session),
            view: Mutex::default(),
            wire: Mutex::new(Wire { line: None, id_stem, ids: 0, pause, not_before: None }),
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
    pub(crate) fn require_user(&self) -> Result<String, Fault> {
        self.user().ok_or_else(|| Fault::new(Exit::NotLoggedIn, "nobody is logged in here").fix("login USER"))
    }

    /// The trackers' addresses, as the file has them now.
    ///
    /// # Errors
    /// A usage fault when there is no file or it is wrong.
    pub(crate) fn find_addresses(&self) -> Result<Vec<SocketAddr>, Fault> {
        addresses(self.named.as_deref())
    }

    /// How the link is.
    pub(crate) fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// Asks, and reads the fields that the answer adds; with the tracker's message.
    ///
    /// # Errors
    /// The tracker's refusal, or that none can be reached.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        command: Command,
        urgency: Urgency,
    ) -> Result<(T, String), Fault> {
        let mut wire = lock(&self.wire);
        let session = lock(&self.session).clone();
        let mut request = Request::new(command);
        request.request_id = Some(Value::String(wire.next_id()));
        request.session = session.as_ref().map(|session| session.token.clone());
        let text = self.exchange(&mut wire, request, urgency)?;
        drop(wire);
        let received = Received::parse(&text).map_err(|bad| foreign(&bad))?;
        match received {
            Ok(received) => {
                lock(&self.view).epoch = Some(received.epoch);
                let answer = received.answer().map_err(|bad| foreign(&bad))?;
                Ok((answer, received.message))
            }
            Err(refused) => Err(self.refused(refused, session)),
        }
    }

    /// Logs in, keeps the session, and tells the engine whose tickets count.
    ///
    /// # Errors
    /// As [`TrackerLink::ask`]; or the session cannot be kept.
    pub(crate) fn login(&self, user: UserId, password: &Secret) -> Result<String, Fault> {
        let name = user.to_string();
        let password = password_of(password)?;
        let command = Command::Login { user, password, peer_key: Some(self.peer.key()) };
        let (answer, message): (LoginAnswer, String) = self.ask(command, Urgency::Asked)?;
        let session = SavedSession { user: name, token: answer.session, tracker_key: answer.tracker_key.0 };
        self.peer.trust(Trust { key: answer.tracker_key, clock_offset_s: offset(answer.server_time) });
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
            self.peer.trust(Trust { key: session.tracker_key(), clock_offset_s: offset(server_time) });
        }
    }

    /// Sends the request on the open connection, or on a new one, and gives the answer's text.
    fn exchange(&self, wire: &mut Wire, mut request: Request, urgency: Urgency) -> Result<Vec<u8>, Fault> {
        if let Some(line) = &mut wire.line {
            request.sender = self.sender(line);
            match line.exchange(&request.to_json()) {
                Ok(text) => return Ok(text),
                Err(error) => tracing::info!("the connection to {} broke: {error}", line.address()),
            }
            wire.line = None;
        }
        let line = self.connect(wire, urgency)?;
        request.sender = self.sender(line);
        let answered = resume(line, &request).and_then(|()| line.exchange(&request.to_json()));
        answered.map_err(|error| {
            let tried =
                wire.line.take().map_or_else(String::new, |line| format!("{}: {error}", line.address()));
            self.lost(wire, &tried)
        })
    }

    fn connect<'w>(&self, wire: &'w mut Wire, urgency: Urgency) -> Result<&'w mut Line, Fault> {
        let too_early = wire.not_before.is_some_and(|at| clock::now() < at);
        if urgency == Urgency::Background && too_early {
            return Err(unreachable(&self.view().trouble.unwrap_or_default()));
        }
        let addresses = self.find_addresses().inspect_err(|fault| {
            lock(&self.view).trouble = Some(fault.message.clone());
        })?;
        match Line::to_first(&addresses) {
            Ok(line) => {
                wire.found();
                let mut view = lock(&self.view);
                view.tracker = Some(line.address());
                view.trouble = None;
                drop(view);
                Ok(wire.line.insert(line))
            }
            Err(tried) => Err(self.lost(wire, &tried)),
        }
    }

    fn lost(&self, wire: &mut Wire, tried: &str) -> Fault {
        wire.lost(clock::now());
        let mut view = lock(&self.view);
        view.tracker = None;
        view.trouble = Some(tried.to_owned());
        unreachable(tried)
    }

    fn refused(&self, refused: Refused, sent: Option<SavedSession>) -> Fault {
        lock(&self.view).epoch = Some(refused.epoch);
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
        refusal::fault(refused.failure)
    }

    fn sender(&self, line: &Line) -> Option<Sender> {
        let address = self.peer.sender(line.local())?;
        Some(Sender { ip: Some(address.ip()), port: address.port() })
    }
}

impl Wire {
    fn next_id(&mut self) -> String {
        self.ids += 1;
        format!("{:016x}-{}", self.id_stem, self.ids)
    }

    fn found(&mut self) {
        self.pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        self.not_before = None;
    }

    fn lost(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(limits::RECONNECT_MAX_MS));
    }
}

/// A password as the protocol takes it.
///
/// # Errors
/// A usage fault when it is empty or too long.
pub(crate) fn password_of(secret: &Secret) -> Result<Password, Fault> {
    Password::new(&secret.0)
        .ok_or_else(|| Fault::new(Exit::Usage, "a password has 1 to 1,024 bytes").fix("choose another one"))
}

/// Shows the session on a new connection before the request itself, which may be larger than a tracker takes from a
/// stranger. Whatever this is answered, the request gets the answer that counts.
fn resume(line: &mut Line, request: &Request) -> io::Result<()> {
    if request.session.is_none() {
        return Ok(());
    }
    let mut ping = Request::new(Command::Ping);
    ping.session.clone_from(&request.session);
    ping.sender.clone_from(&request.sender);
    line.exchange(&ping.to_json()).map(drop)
}

fn foreign(bad: &BadResponse) -> Fault {
    Fault::new(Exit::Protocol, bad.to_string())
        .fix("see that `--trackers FILE` names trackers of this version")
}

fn offset(server_time: u64) -> i64 {
    // Both are seconds of this era; what does not fit is nonsense of the tracker's and counts as no difference.
    let signed = |seconds: u64| i64::try_from(seconds).ok();
    signed(server_time).zip(signed(clock::unix_s())).map_or(0, |(theirs, ours)| theirs - ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_begin_anew() {
        let pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
        let mut wire = Wire { line: None, id_stem: 1, ids: 0, pause, not_before: None };
        let now = clock::now();
        let pauses: Vec<u128> = (0..7)
            .map(|_| {
                wire.lost(now);
                wire.not_before.unwrap().duration_since(now).as_millis()
            })
            .collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        wire.found();
        assert_eq!((wire.pause, wire.not_before), (pause, None));
    }

    #[test]
    fn request_ids_differ() {
        let mut wire = Wire { line: None, id_stem: 1, ids: 0, pause: Duration::ZERO, not_before: None };
        assert_ne!(wire.next_id(), wire.next_id());
    }
}
