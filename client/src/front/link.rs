//! A front end's side of the connection to a node.
//!
//! Invariant: what greets at the other end runs as the same user, since passwords go there, and it greets in time or not
//! at all.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::protocol::{Answer, Ask, Event, Tell};
use super::wire;
use crate::exit::{Exit, Fault};
use crate::limits;

/// An open connection to a node, in this process or another.
pub(crate) struct NodeLink {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    pid: u32,
}

impl NodeLink {
    /// Greets the node at the other end of `stream`.
    ///
    /// # Errors
    /// A fault when nobody answers in time, or somebody that is no node of this version or of another user.
    pub(crate) fn over(stream: UnixStream) -> Result<NodeLink, Fault> {
        NodeLink::greeted(stream, Duration::from_millis(limits::NODE_START_WAIT_MS))
    }

    fn greeted(stream: UnixStream, patience: Duration) -> Result<NodeLink, Fault> {
        let other = socket_peercred(&stream).map_err(|error| unusable(&error.into()))?.uid;
        if other != geteuid() {
            let message =
                format!("the node of this state directory runs as another user ({})", other.as_raw());
            return Err(Fault::new(Exit::LocalIo, message).fix("name a directory of your own: `--state DIR`"));
        }
        let writer = stream.try_clone().map_err(|error| unusable(&error))?;
        stream.set_read_timeout(Some(patience)).map_err(|error| unusable(&error))?;
        let mut reader = BufReader::new(stream);
        match wire::read_line(&mut reader, limits::ASK_MAX_BYTES) {
            Ok(Some(Tell::Hello { protocol: limits::FRONT_PROTOCOL, pid })) => {
                // From here on it may take its time: a download does.
                writer.set_read_timeout(None).map_err(|error| unusable(&error))?;
                Ok(NodeLink { reader, writer, pid })
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Fault::new(
                    Exit::Other,
                    "the node of this state directory takes commands but does not answer",
                )
                .fix("see with `ps` what it does and end it, or use another `--state DIR`"))
            }
            Ok(Some(Tell::Failed(fault))) => Err(fault),
            Ok(None) => Err(gone()),
            Ok(Some(_)) | Err(_) => Err(Fault::new(
                Exit::Protocol,
                "the node that runs here is of another version and is not understood",
            )
            .fix("end it with its own `client quit` (or SIGTERM), then try again")),
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
    pub(crate) fn breaker(&self) -> std::io::Result<UnixStream> {
        self.writer.try_clone()
    }

    /// Asks, hands on each event, and gives the answer. When `on_event` fails the question is abandoned: the
    /// connection is of no more use and is to be dropped.
    ///
    /// # Errors
    /// The node's fault, `on_event`'s, or that the node went away.
    pub(crate) fn ask(
        &mut self,
        ask: &Ask,
        on_event: &mut dyn FnMut(Event) -> Result<(), Fault>,
    ) -> Result<Answer, Fault> {
        wire::write_line(&mut self.writer, ask).map_err(|_| gone())?;
        loop {
            match wire::read_line(&mut self.reader, limits::TELL_MAX_BYTES) {
                Ok(Some(Tell::Event(event))) => on_event(event)?,
                Ok(Some(Tell::Done(answer))) => return Ok(answer),
                Ok(Some(Tell::Failed(fault))) => return Err(fault),
                Ok(Some(Tell::Hello { .. })) => {
                    return Err(Fault::new(Exit::Protocol, "the node greeted in the middle of an answer"));
                }
                Ok(None) | Err(_) => return Err(gone()),
            }
        }
    }
}

fn unusable(error: &io::Error) -> Fault {
    Fault::new(Exit::LocalIo, format!("cannot talk to the node: {error}")).fix("raise `ulimit -n`")
}

fn gone() -> Fault {
    Fault::new(Exit::Other, "the node of this state directory went away before it answered")
        .fix("start it again with `client serve`, or give the command again: it then needs no node")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_that_says(lines: &[Tell]) -> UnixStream {
        let (front, mut node) = UnixStream::pair().unwrap();
        lines.iter().for_each(|line| wire::write_line(&mut node, line).unwrap());
        // The question may go unread; the lines are in the front end's buffer and the stream stays open for writing.
        node.shutdown(std::net::Shutdown::Write).unwrap();
        std::mem::forget(node);
        front
    }

    const HELLO: Tell = Tell::Hello { protocol: limits::FRONT_PROTOCOL, pid: 7 };

    #[test]
    fn events_come_before_the_answer() {
        let notice = Event::Notice { text: "n".into() };
        let said = Answer::Said { message: "ok".into() };
        let stream = node_that_says(&[HELLO, Tell::Event(notice.clone()), Tell::Done(said.clone())]);
        let mut link = NodeLink::over(stream).unwrap();
        let mut events = Vec::new();
        let answer = link.ask(&Ask::Whoami, &mut |event| {
            events.push(event);
            Ok(())
        });
        assert_eq!(answer, Ok(said));
        assert_eq!(events, [notice]);
    }

    #[test]
    fn a_node_that_goes_away_is_exit_1_and_a_foreign_one_13() {
        let mut link = NodeLink::over(node_that_says(&[HELLO])).unwrap();
        assert_eq!(link.ask(&Ask::Whoami, &mut |_| Ok(())).unwrap_err().exit, Exit::Other);
        let other = Tell::Hello { protocol: limits::FRONT_PROTOCOL + 1, pid: 7 };
        assert_eq!(NodeLink::over(node_that_says(&[other])).map(|_| ()).unwrap_err().exit, Exit::Protocol);
        assert_eq!(NodeLink::over(node_that_says(&[])).map(|_| ()).unwrap_err().exit, Exit::Other);
    }

    #[test]
    fn a_node_that_never_greets_is_given_up() {
        let (front, _node) = UnixStream::pair().unwrap();
        let silent = NodeLink::greeted(front, Duration::from_millis(1)).map(|_| ()).unwrap_err();
        assert_eq!(silent.exit, Exit::Other, "{silent}");
        let link = NodeLink::over(node_that_says(&[HELLO])).unwrap();
        assert_eq!(link.writer.read_timeout().unwrap(), None, "an answer may take long");
    }
}
