//! A front end's side of the connection to a node.
//!
//! Invariant: what greets at the other end runs as the same user, since passwords go there, and it greets in time or not
//! at all. Whoever greets nobody and closes is ending; everybody else is a node, or something else that is there.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::json_lines;
use super::protocol::{NodeAnswer, NodeEvent, NodeMessage, NodeRequest};
use crate::exit::{ClientFault, ExitCause};
use crate::limits;

/// Why there is no greeting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The node at the other end was just ending: there is none any more.
    NodeEnding,
    /// Somebody is there, who does not let this front end in or cannot be talked to.
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
    /// Greets the node at the other end of `stream`.
    ///
    /// # Errors
    /// That the node is ending; a fault when nobody answers in time, when the node takes nobody, or when it is none of
    /// this version or another user's.
    pub(crate) fn handshake(stream: UnixStream) -> Result<NodeConnection, HandshakeError> {
        NodeConnection::handshake_within(stream, Duration::from_millis(limits::NODE_START_WAIT_MS))
    }

    fn handshake_within(stream: UnixStream, patience: Duration) -> Result<NodeConnection, HandshakeError> {
        let other = socket_peercred(&stream).map_err(|error| connection_fault(&error.into()))?.uid;
        if other != geteuid() {
            let message =
                format!("the node of this state directory runs as another user ({})", other.as_raw());
            let fault = ClientFault::new(ExitCause::LocalIo, message)
                .fix("name a directory of your own: `--state DIR`");
            return Err(fault.into());
        }
        let writer = stream.try_clone().map_err(|error| connection_fault(&error))?;
        stream.set_read_timeout(Some(patience)).map_err(|error| connection_fault(&error))?;
        let mut reader = BufReader::new(stream);
        match json_lines::read_line(&mut reader, limits::IPC_REQUEST_MAX_BYTES) {
            Ok(Some(NodeMessage::Hello { protocol: limits::IPC_VERSION, pid })) => {
                // From here on it may take its time: a download does.
                writer.set_read_timeout(None).map_err(|error| connection_fault(&error))?;
                Ok(NodeConnection { reader, writer, pid })
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let message = "the node of this state directory takes commands but does not answer";
                let fix = "see with `ps` what it does and end it, or use another `--state DIR`";
                Err(ClientFault::new(ExitCause::Other, message).fix(fix).into())
            }
            Ok(Some(NodeMessage::Failed(fault))) => Err(fault.into()),
            Ok(None) => Err(HandshakeError::NodeEnding),
            // What was connected and not accepted yet when the node ended.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(HandshakeError::NodeEnding),
            Err(error) if error.raw_os_error().is_some() => Err(connection_fault(&error).into()),
            Ok(Some(_)) | Err(_) => {
                let message = "the node that runs here is of another version and is not understood";
                let fix = "end it with its own `client quit` (or SIGTERM), then try again";
                Err(ClientFault::new(ExitCause::Protocol, message).fix(fix).into())
            }
        }
    }

    /// The node's process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A handle that can end the connection from elsewhere.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub(crate) fn shutdown_handle(&self) -> std::io::Result<UnixStream> {
        self.writer.try_clone()
    }

    /// Asks, hands on each event, and gives the answer. When `on_event` fails the question is abandoned: the
    /// connection is of no more use and is to be dropped.
    ///
    /// # Errors
    /// The node's fault, `on_event`'s, or that the node went away.
    pub(crate) fn request(
        &mut self,
        ask: &NodeRequest,
        on_event: &mut dyn FnMut(NodeEvent) -> Result<(), ClientFault>,
    ) -> Result<NodeAnswer, ClientFault> {
        json_lines::write_line(&mut self.writer, ask).map_err(|error| match error.raw_os_error() {
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

/// Nothing was sent: what was asked has no form as a line.
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
    use super::*;

    fn node_that_says(lines: &[NodeMessage]) -> UnixStream {
        let (front, mut node) = UnixStream::pair().unwrap();
        lines.iter().for_each(|line| json_lines::write_line(&mut node, line).unwrap());
        // The question may go unread; the lines are in the front end's buffer and the stream stays open for writing.
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
        let mut link = NodeConnection::handshake(stream).unwrap();
        let mut events = Vec::new();
        let answer = link.request(&NodeRequest::Whoami, &mut |event| {
            events.push(event);
            Ok(())
        });
        assert_eq!(answer, Ok(said));
        assert_eq!(events, [notice]);
    }

    #[test]
    fn a_node_that_goes_away_is_exit_1_and_a_foreign_one_13() {
        let mut link = NodeConnection::handshake(node_that_says(&[HELLO])).unwrap();
        assert_eq!(link.request(&NodeRequest::Whoami, &mut |_| Ok(())).unwrap_err().exit, ExitCause::Other);
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
    fn who_closes_without_a_word_is_ending_and_who_refuses_is_there() {
        let silent = NodeConnection::handshake(node_that_says(&[])).map(|_| ());
        assert_eq!(silent, Err(HandshakeError::NodeEnding));
        let full = ClientFault::new(ExitCause::Other, "too many");
        let refusing =
            NodeConnection::handshake(node_that_says(&[NodeMessage::Failed(full.clone())])).map(|_| ());
        assert_eq!(refusing, Err(HandshakeError::Fault(full)));
    }

    #[test]
    fn a_connection_that_nobody_accepted_in_time_is_a_node_that_was_ending() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let front = UnixStream::connect(dir.path().join("s")).unwrap();
        drop(listener);
        assert_eq!(NodeConnection::handshake(front).map(|_| ()), Err(HandshakeError::NodeEnding));
    }

    #[test]
    fn what_cannot_be_said_is_no_dead_node() {
        use std::os::unix::ffi::OsStrExt;
        let path = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(b"/a\xff"));
        let mut link = NodeConnection::handshake(node_that_says(&[HELLO])).unwrap();
        let asked = link.request(&NodeRequest::Upload { group: "g".into(), path }, &mut |_| Ok(()));
        assert_eq!(asked.unwrap_err().exit, ExitCause::Usage);
    }

    #[test]
    fn a_node_that_never_greets_is_given_up() {
        let (front, _node) = UnixStream::pair().unwrap();
        let silent = NodeConnection::handshake_within(front, Duration::from_millis(1));
        assert_eq!(exit_of(silent), ExitCause::Other, "somebody is there");
        let link = NodeConnection::handshake(node_that_says(&[HELLO])).unwrap();
        assert_eq!(link.writer.read_timeout().unwrap(), None, "an answer may take long");
    }
}
