//! A front end's side of the connection to a node.

use std::io::BufReader;
use std::os::unix::net::UnixStream;

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
    /// A fault when nobody answers, or somebody that is no node of this version.
    pub(crate) fn over(stream: UnixStream) -> Result<NodeLink, Fault> {
        let writer = stream.try_clone().map_err(|error| {
            Fault::new(Exit::LocalIo, format!("cannot talk to the node: {error}")).fix("raise `ulimit -n`")
        })?;
        let mut reader = BufReader::new(stream);
        match wire::read_line(&mut reader, limits::ASK_MAX_BYTES) {
            Ok(Some(Tell::Hello { protocol: limits::FRONT_PROTOCOL, pid })) => {
                Ok(NodeLink { reader, writer, pid })
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
}
