//! A front end's connection to a node.
//!
//! The peer process must run as the same user, since passwords are sent, and must greet within a timeout. A node that closes
//! the connection without a greeting is shutting down.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::json_lines;
use super::protocol::{NodeAnswer, NodeEvent, NodeMessage, NodeRequest};
use crate::exit::{ClientFault, ExitCause};
use crate::limits;

/// Why the handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The node is shutting down: treat it as absent.
    NodeEnding,
    /// A process is there, but refuses this front end or cannot be understood.
    Fault(ClientFault),
}

impl From<ClientFault> for HandshakeError {
    fn from(fault: ClientFault) -> HandshakeError {
        HandshakeError::Fault(fault)
    }
}

impl From<HandshakeError> for ClientFault {
    fn from(why: HandshakeError) -> ClientFault {
        match why {
            HandshakeError::NodeEnding => node_gone_fault(),
            HandshakeError::Fault(fault) => fault,
        }
    }
}

/// An open connection to a node, in this process or another.
pub(crate) struct NodeConnection {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    pid: u32,
}

impl NodeConnection {
    /// Completes the handshake over `stream`.
    ///
    /// # Errors
    /// That the node is shutting down; or an error when it does not greet in time, refuses this front end, or is of another
    /// version or user.
    pub(crate) fn handshake(stream: UnixStream) -> Result<NodeConnection, HandshakeError> {
        NodeConnection::handshake_within(stream, Duration::from_millis(limits::NODE_START_WAIT_MS))
    }

    fn handshake_within(stream: UnixStream, patience: Duration) -> Result<NodeConnection, HandshakeError> {
        let other = socket_peercred(&stream).map_err(|error| connection_fault(&error.into()))?.uid;
        if other != geteuid() {
            let message =
                format!("the node of this state directory runs as another user ({})", other.as_raw());
            let fault = ClientFault::new(ExitCause::LocalIo, message)
                .fix("use a directory of your own: `--state DIR`");
            return Err(fault.into());
        }
        let writer = stream.try_clone().map_err(|error| connection_fault(&error))?;
        stream.set_read_timeout(Some(patience)).map_err(|error| connection_fault(&error))?;
        let mut reader = BufReader::new(stream);
        match json_lines::read_line(&mut reader, limits::IPC_REQUEST_MAX_BYTES) {
            Ok(Some(NodeMessage::Hello { protocol: limits::IPC_VERSION, pid })) => {
                // Answers have no timeout: a download may take hours.
                writer.set_read_timeout(None).map_err(|error| connection_fault(&error))?;
                Ok(NodeConnection { reader, writer, pid })
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let message = "the node of this state directory accepts connections but does not answer";
                let fix = "find it with `ps` and stop it, or use another `--state DIR`";
                Err(ClientFault::new(ExitCause::Other, message).fix(fix).into())
            }
            Ok(Some(NodeMessage::Failed(fault))) => Err(fault.into()),
            Ok(None) => Err(HandshakeError::NodeEnding),
            // Connected but not yet accepted when the node ended.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(HandshakeError::NodeEnding),
            Err(error) if error.raw_os_error().is_some() => Err(connection_fault(&error).into()),
            Ok(Some(_)) | Err(_) => {
                let message = "the running node has another version than this client";
                let fix = "stop it with its own `client quit` (or SIGTERM), then try again";
                Err(ClientFault::new(ExitCause::Protocol, message).fix(fix).into())
            }
        }
    }

    /// Process id of the node.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A handle with which another thread can shut the connection down.
    ///
    /// # Errors
    /// When the system has no free file descriptor.
    pub(crate) fn shutdown_handle(&self) -> std::io::Result<UnixStream> {
        self.writer.try_clone()
    }

    /// Sends a request, passes each event to `on_event`, and returns the answer. When `on_event` fails the request is abandoned
    /// and the connection must be dropped.
    ///
    /// # Errors
    /// The node's error, that of `on_event`, or that the node went away.
    pub(crate) fn request(
        &mut self,
        request: &NodeRequest,
        on_event: &mut dyn FnMut(NodeEvent) -> Result<(), ClientFault>,
    ) -> Result<NodeAnswer, ClientFault> {
        json_lines::write_line(&mut self.writer, request).map_err(|error| match error.raw_os_error() {
            Some(_) => node_gone_fault(),
            None => unencodable_fault(&error),
        })?;
        loop {
            match json_lines::read_line(&mut self.reader, limits::IPC_MESSAGE_MAX_BYTES) {
                Ok(Some(NodeMessage::Event(event))) => on_event(event)?,
                Ok(Some(NodeMessage::Done(answer))) => return Ok(answer),
                Ok(Some(NodeMessage::Failed(fault))) => return Err(fault),
                Ok(Some(NodeMessage::Hello { .. })) => {
                    return Err(ClientFault::new(
                        ExitCause::Protocol,
                        "the node greeted in the middle of an answer",
                    ));
                }
                Ok(None) | Err(_) => return Err(node_gone_fault()),
            }
        }
    }
}

fn connection_fault(error: &io::Error) -> ClientFault {
    ClientFault::new(ExitCause::LocalIo, format!("cannot talk to the node: {error}")).fix("raise `ulimit -n`")
}

/// Nothing was sent: the request has no JSON form.
fn unencodable_fault(error: &io::Error) -> ClientFault {
    ClientFault::new(ExitCause::Usage, format!("this cannot be put to the node: {error}"))
        .fix("give names and paths that are UTF-8")
}

fn node_gone_fault() -> ClientFault {
    ClientFault::new(ExitCause::Other, "the node of this state directory went away before it answered")
        .fix("start it again with `client serve`, or give the command again: it then needs no node")
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::FileName;
    use tracker::api::{GroupFile, GroupId};

    use super::*;

    fn node_that_says(lines: &[NodeMessage]) -> UnixStream {
        let (front, mut node) = UnixStream::pair().unwrap();
        lines.iter().for_each(|line| json_lines::write_line(&mut node, line).unwrap());
        // The request may stay unread; the lines are buffered, and the stream stays open for writing.
        node.shutdown(std::net::Shutdown::Write).unwrap();
        std::mem::forget(node);
        front
    }

    const HELLO: NodeMessage = NodeMessage::Hello { protocol: limits::IPC_VERSION, pid: 7 };

    #[test]
    fn events_come_before_the_answer() {
        let notice = NodeEvent::Notice { text: "n".into() };
        let said = NodeAnswer::Said { message: "ok".into() };
        let stream =
            node_that_says(&[HELLO, NodeMessage::Event(notice.clone()), NodeMessage::Done(said.clone())]);
        let mut connection = NodeConnection::handshake(stream).unwrap();
        let mut events = Vec::new();
        let answer = connection.request(&NodeRequest::Status, &mut |event| {
            events.push(event);
            Ok(())
        });
        assert_eq!(answer, Ok(said));
        assert_eq!(events, [notice]);
    }

    #[test]
    fn a_node_that_goes_away_is_exit_1_and_a_foreign_one_13() {
        let mut connection = NodeConnection::handshake(node_that_says(&[HELLO])).unwrap();
        assert_eq!(
            connection.request(&NodeRequest::Status, &mut |_| Ok(())).unwrap_err().exit,
            ExitCause::Other
        );
        let other = NodeMessage::Hello { protocol: limits::IPC_VERSION + 1, pid: 7 };
        assert_eq!(exit_of(NodeConnection::handshake(node_that_says(&[other]))), ExitCause::Protocol);
    }

    fn exit_of(greeted: Result<NodeConnection, HandshakeError>) -> ExitCause {
        match greeted.map(|_| ()) {
            Err(HandshakeError::Fault(fault)) => fault.exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_silent_close_is_a_shutdown_and_a_refusal_is_an_error() {
        let silent = NodeConnection::handshake(node_that_says(&[])).map(|_| ());
        assert_eq!(silent, Err(HandshakeError::NodeEnding));
        let full = ClientFault::new(ExitCause::Other, "too many");
        let refusing =
            NodeConnection::handshake(node_that_says(&[NodeMessage::Failed(full.clone())])).map(|_| ());
        assert_eq!(refusing, Err(HandshakeError::Fault(full)));
    }

    #[test]
    fn a_connection_that_was_not_accepted_in_time_is_a_shutdown() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let front = UnixStream::connect(dir.path().join("s")).unwrap();
        drop(listener);
        assert_eq!(NodeConnection::handshake(front).map(|_| ()), Err(HandshakeError::NodeEnding));
    }

    #[test]
    fn a_request_without_a_json_form_is_a_usage_error() {
        use std::os::unix::ffi::OsStrExt;
        let destination = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(b"/a\xff"));
        let file = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
        let request = NodeRequest::Download { file, destination, overwrite: false, background: false };
        let mut connection = NodeConnection::handshake(node_that_says(&[HELLO])).unwrap();
        let asked = connection.request(&request, &mut |_| Ok(()));
        assert_eq!(asked.unwrap_err().exit, ExitCause::Usage);
    }

    #[test]
    fn a_node_that_never_greets_times_out() {
        let (front, _node) = UnixStream::pair().unwrap();
        let silent = NodeConnection::handshake_within(front, Duration::from_millis(1));
        assert_eq!(exit_of(silent), ExitCause::Other, "a process is there");
        let connection = NodeConnection::handshake(node_that_says(&[HELLO])).unwrap();
        assert_eq!(connection.writer.read_timeout().unwrap(), None, "an answer may take long");
    }
}
