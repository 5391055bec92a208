//! One request and its answer on a connection to a tracker, and the pings that go with it.
//!
//! Always true: an answer counts only if it names its request; after any error the caller drops the connection.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tracker::api::request::{Command, GainedPieces, Request};
use tracker::api::response::{ReceivedAnswer, ReceivedFailure};

use super::connection::TrackerConnection;
use super::standing::TrackerIdentity;
use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::printable::make_printable;

/// A tracker's answer to one request.
pub(super) type Outcome = Result<ReceivedAnswer, ReceivedFailure>;

/// Why a request has no answer. The connection must be dropped.
pub(super) enum ExchangeError {
    /// The connection failed.
    Broken(io::Error),
    /// The message is not the answer to this request.
    Foreign(ClientFault),
    /// The tracker refused the connection: no request is named.
    TurnedAway(ReceivedFailure),
}

/// Sends a request and reads its answer, which must name it.
pub(super) fn send_request(
    connection: &mut TrackerConnection,
    request: &Request,
) -> Result<Outcome, ExchangeError> {
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

/// Presents the session of a request before the request itself, which may be longer than a tracker accepts without a session.
/// A node that does not listen says that it is offline, so that no peer is sent to it. Returns what the tracker tells of itself;
/// `None` when it tells nothing, or refuses the session. Only the request's own answer counts.
pub(super) fn present_session(
    connection: &mut TrackerConnection,
    request: &Request,
) -> Result<Option<TrackerIdentity>, ExchangeError> {
    if request.session.is_none() {
        return Ok(None);
    }
    let command = if request.sender.is_some() { Command::Ping } else { Command::GoOffline };
    let mut presenting = follow_up(request, command, "resume");
    presenting.session.clone_from(&request.session);
    presenting.sender = request.sender;
    send_request(connection, &presenting).map(parse_identity)
}

/// Whether the node keeps a record of what a command has told the trackers.
pub(super) fn is_recorded_here(command: &Command) -> bool {
    match command {
        Command::UploadFile { .. } => true,
        Command::UploadPart { part, .. } => part.end.is_some(),
        Command::UpdatePieces { gained, .. } => *gained == GainedPieces::Complete,
        _ => false,
    }
}

/// Asks a tracker, after a request, what it tells of itself to anyone. A ping would do as well, but would keep a node online.
pub(super) fn ask_identity(
    connection: &mut TrackerConnection,
    request: &Request,
) -> Result<Option<TrackerIdentity>, ExchangeError> {
    send_request(connection, &follow_up(request, Command::Status, "identity")).map(parse_identity)
}

/// A request beside another one. It needs its own id: the tracker stores the answer to each id.
fn follow_up(request: &Request, command: Command, purpose: &str) -> Request {
    let id = request.request_id.as_ref().and_then(Value::as_str);
    Request { request_id: id.map(|id| format!("{id}-{purpose}").into()), ..Request::new(command) }
}

fn parse_identity(outcome: Outcome) -> Option<TrackerIdentity> {
    let identity: TrackerIdentity = outcome.ok()?.answer().ok()?;
    identity.cluster.is_some().then_some(identity)
}

/// A message that is not of this protocol; `bad` may quote it.
pub(super) fn protocol_fault(bad: &dyn std::fmt::Display) -> ClientFault {
    ClientFault::new(ExitCause::Protocol, make_printable(&bad.to_string()))
        .fix("check that `--trackers` names trackers of this version")
}
